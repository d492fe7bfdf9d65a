"""Nothing of the primary reaches the features; the assumed energy is the inverse of a response."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind
from caloforge.tasks.features import View, features

CPU = torch.device("cpu")
Toy = Callable[..., Showers]


@pytest.mark.parametrize("level", [1.0, 0.7])
def test_features_do_not_change_with_the_truth(
    tiny_model: Model, toy: Toy, small_detector: Detector, level: float
) -> None:
    showers = toy(small_detector, 20)
    other = showers.with_(
        energy=showers.energy[::-1] * 2, theta=np.full(20, 1.0), phi=np.zeros(20),
        pdg=np.full(20, 22), leakage=np.zeros(20), seed=np.arange(20),
    )  # fmt: skip
    view = View(block=2, pooling="front", level=level)
    assert (features(tiny_model, showers, view) == features(tiny_model, other, view)).all()


def test_features_do_change_with_the_shower(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 20)
    louder = showers.with_(deposit=2 * showers.deposit)
    rows, more = (features(tiny_model, s, View()) for s in (showers, louder))
    assert (np.abs(rows - more).max(axis=1) > 1e-3).all()
    assert (more[:, 0] > rows[:, 0]).all(), "more visible energy suggests more energy"


def test_the_assumed_energy_inverts_the_mean_response(
    tiny_model: Model, small_detector: Detector
) -> None:
    blind = Blind(tiny_model.scale, small_detector, CPU)
    energy = np.geomspace(2e3, 9e4, 20)
    given = blind._features(torch.from_numpy(energy).float())
    with torch.inference_mode():
        mean = tiny_model.scale.energies.moments(given)[0][:, 0].double().exp().numpy()
    offset = 0.1 * float(blind.one.features[0, -1].exp())
    # A response that grows everywhere is inverted; the toy's does.
    assert blind.energy(mean * energy - offset) == pytest.approx(energy, rel=5e-3)


def test_an_empty_shower_and_a_huge_one_have_conditions(
    tiny_model: Model, small_detector: Detector
) -> None:
    blind = Blind(tiny_model.scale, small_detector, CPU)
    voxels = torch.zeros(2, *small_detector.mesh.shape)
    voxels[1] += 1e6
    given = blind(voxels)
    assert torch.isfinite(given.features).all() and given.energy[0] < given.energy[1]
