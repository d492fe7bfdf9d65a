"""The total is a quantity of its own: it can be undone, and voxels add up to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from caloforge.learn.condition import Conditions
from caloforge.learn.preprocess import CUT_MEV, Drawn, Scaled
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.totalscale import TotalScale

SETTINGS = [VoxelSettings(), VoxelSettings(divide="largest", transform="power")]


@pytest.fixture
def batch(
    toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]],
) -> tuple[torch.Tensor, Conditions]:
    return toy_batch(40)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.divide)
def test_scaling_can_be_undone(
    settings: VoxelSettings, batch: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = batch
    scale = TotalScale(settings)
    scale.fit(voxels, given, steps=200)
    scaled = scale(voxels, given)
    assert scaled.energies.shape == (40, scale.quantities) == (40, 1 + (settings == SETTINGS[1]))
    assert abs(float(scaled.energies[:, 0].mean())) < 0.2
    kept = torch.where(voxels >= CUT_MEV, voxels, 0.0)
    assert torch.allclose(scale.inverse(scaled, given), kept, rtol=5e-3, atol=2 * CUT_MEV)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.divide)
def test_energy_closes_whatever_the_voxels(
    settings: VoxelSettings, batch: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = batch
    scale = TotalScale(settings)
    scale.fit(voxels, given, steps=20)
    energies = scale(voxels, given).energies
    total = torch.where(voxels >= CUT_MEV, voxels, 0.0).sum(dim=(1, 2, 3))
    other = torch.rand(voxels.shape)
    for drawn in (
        Scaled(other, energies),
        Drawn(other, energies, torch.where(other > 0.5, 1.0, -1.0)),
    ):
        mev = scale.inverse(drawn, given)
        assert torch.allclose(mev.sum(dim=(1, 2, 3)), total, rtol=1e-4)
        if isinstance(drawn, Drawn):
            assert torch.equal(mev > 0, drawn.odds > 0)


def test_a_shower_without_a_hit_stays_empty(batch: tuple[torch.Tensor, Conditions]) -> None:
    voxels, given = batch
    scale = TotalScale(VoxelSettings())
    scale.fit(voxels, given, steps=20)
    none = Drawn(voxels, scale(voxels, given).energies, torch.full_like(voxels, -torch.inf))
    assert torch.equal(scale.inverse(none, given), torch.zeros_like(voxels))
