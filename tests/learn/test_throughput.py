"""Counting operations: what a matrix product needs, and no traces on the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import conditions
from caloforge.learn.throughput import flop_per_shower, peak_flops
from caloforge.showers.showers import Showers


def test_operations_are_those_of_the_layers(
    toy: Callable[..., Showers], small_detector: Detector, tiny_model: Model
) -> None:
    showers = toy(small_detector, 16)
    given = conditions(
        [small_detector], np.zeros(16, np.int64), showers.energy, showers.theta, showers.pdg
    )
    clean = tiny_model.scale(torch.from_numpy(showers.dense()), given)
    needed = flop_per_shower(tiny_model, clean, given)
    tokens, weights = 3, sum(p.numel() for b in tiny_model.network.blocks for p in b.parameters())
    blocks = 2 * 3 * tokens * weights  # a multiplication and an addition, forward and twice back
    assert 0.7 * blocks < needed < 10 * blocks  # the convolutions over the voxels come on top
    half = flop_per_shower(
        tiny_model,
        type(clean)(*(t[:8] for t in clean)),
        type(given)(*(t[:8] for t in given)),
    )
    assert abs(half / needed - 1) < 0.05
    assert all(p.grad is None for p in tiny_model.network.parameters())


def test_the_peak_is_one_of_this_machine() -> None:
    assert 1e9 < peak_flops(torch.device("cpu")) < 1e14
