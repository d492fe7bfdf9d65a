"""Tuning: never worse than where it began, reproducible; from scratch nothing is inherited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model
from caloforge.showers.showers import Showers
from caloforge.tasks.events import Deal, deal
from caloforge.tasks.features import View
from caloforge.tasks.head import Budget
from caloforge.tasks.question import Question
from caloforge.tasks.tuning import Tuned, fresh, tune

Toy = Callable[..., Showers]
SHORT = Budget(rate=2e-3, passes=40, least=20, most=120, batch=32, looks=4)
QUESTION = Question("theta")


@pytest.fixture(scope="module")
def taught(toy: Toy, small_detector: Detector) -> tuple[Showers, Deal]:
    showers = toy(small_detector, 150)
    # Theta that voxels know, but no line tells: how far the depth of a shower is from the usual.
    depth = showers.layer_energies() @ showers.mesh.centres_z / showers.visible()
    showers = showers.with_(theta=1 + np.abs(depth - np.median(depth)) / depth.std())
    return showers, deal(QUESTION, showers)


def learn(model: Model, taught: tuple[Showers, Deal], manner: str, seed: int = 0) -> Tuned:
    return tune(QUESTION, model, *taught, View(2), manner=manner, seed=seed, budget=SHORT)


@pytest.mark.parametrize("manner", ["tuned", "scratch"])
def test_it_gets_better_and_the_best_state_is_kept(
    tiny_model: Model, taught: tuple[Showers, Deal], manner: str
) -> None:
    before = {k: v.clone() for k, v in tiny_model.network.state_dict().items()}
    found = learn(tiny_model, taught, manner)
    assert min(found.losses.values()) < found.losses[0]
    after = tiny_model.network.state_dict()
    assert all((before[k] == after[k]).all() for k in before), "the backbone itself is not touched"


def test_the_same_seed_gives_the_same_weights(
    tiny_model: Model, taught: tuple[Showers, Deal]
) -> None:
    one, same, other = (learn(tiny_model, taught, "tuned", seed) for seed in (0, 0, 1))
    assert one.losses == same.losses and one.losses != other.losses
    assert torch.equal(one.head.last.weight, same.head.last.weight)


def test_from_scratch_nothing_is_inherited_but_the_preprocessing(tiny_model: Model) -> None:
    spoiled = replace(tiny_model, network=fresh(tiny_model, 5).network)
    one, other = fresh(tiny_model, 0), fresh(spoiled, 0)
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    weights = tiny_model.network.state_dict()
    changed = {k for k in ours if not torch.equal(ours[k], weights[k])}
    buffers = {k for k, _ in tiny_model.network.named_buffers()}
    assert not changed & buffers and "blocks.0.attention.qkv.weight" in changed
