"""Preprocessing: inverse(forward) is the identity, energy closes whatever the network draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.condition import FEATURE_NAMES, Conditions, conditions
from caloforge.learn.preprocess import (
    CUT_MEV,
    ConditionalScale,
    Drawn,
    NoSketch,
    ShowerScale,
    quantities,
)
from caloforge.learn.tokens import Patches
from caloforge.showers.showers import Showers

Toy = Callable[..., Showers]
SKETCH = Patches((3, 4, 10), (3, 2, 5))


@pytest.fixture(scope="module")
def batch(toy: Toy, small_detector: Detector) -> tuple[torch.Tensor, Conditions]:
    showers = toy(small_detector, 60)
    number = np.zeros(60, np.int64)
    given = conditions([small_detector], number, showers.energy, showers.theta, showers.pdg)
    return torch.from_numpy(showers.dense()), given


@pytest.fixture(scope="module")
def scale(batch: tuple[torch.Tensor, Conditions]) -> ShowerScale:
    torch.manual_seed(0)
    scale = ShowerScale(SKETCH)
    scale.fit(*batch, steps=200)
    return scale


def test_inverse_undoes_forward(scale: ShowerScale, batch: tuple[torch.Tensor, Conditions]) -> None:
    voxels, given = batch
    back = scale.inverse(scale(voxels, given), given)
    assert torch.allclose(back, voxels, rtol=1e-4, atol=1e-4)


def test_hits_that_were_spread_out_come_back_exactly(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    """Also where many layers are empty, whose spread-out hits would add up to some."""
    voxels, given = batch
    voxels = voxels.clone()
    voxels[:, :, :, 1::2] = 0.0
    counted = ShowerScale(NoSketch((3, 4, 10)), counted=True)
    counted.fit(voxels, given, steps=50)
    white = counted(voxels, given, torch.Generator().manual_seed(0)).energies
    wanted = (voxels >= CUT_MEV).sum(dim=(1, 2))
    assert torch.equal(counted.hits(white, given).long(), wanted)


def test_energy_closes_for_any_draw(
    scale: ShowerScale, batch: tuple[torch.Tensor, Conditions]
) -> None:
    _, given = batch
    torch.manual_seed(1)
    voxels, odds = torch.randn(60, 3, 4, 10), torch.randn(60, 3, 4, 10)
    drawn = Drawn(voxels, torch.randn(60, quantities(SKETCH)), odds)
    voxels = scale.inverse(drawn, given).double()
    assert (voxels >= 0).all()
    total = scale.layer_energies(drawn.energies, given).double().sum(1)
    assert torch.allclose(voxels.sum((1, 2, 3)), total, rtol=1e-5)
    filled = (voxels > 0).any(dim=2).any(dim=1)
    layers = scale.layer_energies(drawn.energies, given, filled).double()
    assert torch.allclose(voxels.sum((1, 2)), layers, rtol=1e-5)


def test_a_shower_without_a_likely_voxel_still_has_its_energy(
    scale: ShowerScale, batch: tuple[torch.Tensor, Conditions]
) -> None:
    _, given = batch
    nothing = torch.full((60, 3, 4, 10), -3.0)
    drawn = Drawn(nothing, torch.zeros(60, quantities(SKETCH)), nothing + torch.rand(60, 3, 4, 10))
    voxels = scale.inverse(drawn, given)
    assert ((voxels > 0).sum((1, 2, 3)) == 1).all()
    total = scale.layer_energies(drawn.energies, given).sum(1)
    assert torch.allclose(voxels.sum((1, 2, 3)), total, rtol=1e-5)


def test_what_is_below_the_cut_is_empty(
    scale: ShowerScale, batch: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = batch
    dusty = voxels + 1e-5
    back = scale.inverse(scale(dusty, given), given)
    assert torch.equal(back > 0, voxels >= CUT_MEV)


def test_the_fit_whitens(scale: ShowerScale, batch: tuple[torch.Tensor, Conditions]) -> None:
    scaled = scale(*batch)
    assert scaled.energies.mean().abs() < 0.15
    assert 0.6 < float(scaled.energies.std()) < 1.4
    assert float(scaled.voxels.std()) == pytest.approx(1.0, abs=0.02)


def test_conditional_scale_finds_mean_and_spread() -> None:
    torch.manual_seed(0)
    x = torch.rand(4000, 2) * 4
    y = torch.stack([3 * x[:, 0] + (0.1 + x[:, 1]) * torch.randn(4000)], dim=1)
    scale = ConditionalScale(2, 1)
    scale.fit(y, x, steps=800)
    with torch.no_grad():
        mean, log_spread = scale.moments(torch.tensor([[1.0, 0.5], [3.0, 3.0]]))
    assert torch.allclose(mean.flatten(), torch.tensor([3.0, 9.0]), atol=0.6)
    assert torch.allclose(log_spread.exp().flatten(), torch.tensor([0.6, 3.1]), rtol=0.3)


def test_features_are_named(batch: tuple[torch.Tensor, Conditions]) -> None:
    assert batch[1].features.shape == (60, len(FEATURE_NAMES))
    assert torch.isfinite(batch[1].features).all()
