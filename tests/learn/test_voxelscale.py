"""Every way of scaling voxels can be undone, and says where it lies."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn.condition import Conditions
from caloforge.learn.preprocess import CUT_MEV
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.voxelscale import VoxelScale, bounded

DIVIDE = ("incident_mev", "incident_gev", "largest", "percentile")
WAYS = [
    VoxelSettings(divide=d, transform=t)  # type: ignore[arg-type]
    for d, t in itertools.product(DIVIDE, ("none", "log", "power", "logit"))
    if t != "logit" or d in ("incident_mev", "largest")
]


@pytest.fixture
def batch(
    toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]],
) -> tuple[torch.Tensor, Conditions]:
    return toy_batch(40)


@pytest.mark.parametrize("settings", WAYS, ids=lambda s: f"{s.divide}-{s.transform}")
def test_scaling_can_be_undone(
    settings: VoxelSettings, batch: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = batch
    for unit in (False, True) if bounded(settings) else (False,):
        scale = VoxelScale(settings, unit)
        scale.fit(voxels, given, steps=20)
        scaled = scale(voxels, given)
        kept = torch.where(voxels >= CUT_MEV, voxels, 0.0)
        back = scale.inverse(scaled, given)
        assert torch.allclose(back, kept, rtol=5e-3, atol=2 * CUT_MEV)
        assert torch.allclose(back.sum((1, 2, 3)), kept.sum((1, 2, 3)), rtol=1e-3)
        if unit:
            assert float(scaled.voxels.min()) >= 0 and float(scaled.voxels.max()) <= 1
        else:
            assert abs(float(scaled.voxels.mean())) < 1e-3
            assert abs(float(scaled.voxels.std()) - 1) < 1e-3
        assert scaled.energies.shape == (40, settings.divide in ("largest", "percentile"))


def test_the_largest_voxel_is_one_and_an_empty_shower_is_empty(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    voxels, given = batch
    scale = VoxelScale(VoxelSettings(divide="largest", transform="power"), unit=True)
    scale.fit(voxels, given, steps=20)
    assert torch.allclose(scale(voxels, given).voxels.amax((1, 2, 3)), torch.ones(40))
    nothing = torch.zeros_like(voxels)
    assert not scale.inverse(scale(nothing, given), given).any()


def test_what_cannot_be_is_refused_with_the_remedy() -> None:
    with pytest.raises(RequestError, match="divide by 'incident_mev' or 'largest'"):
        VoxelScale(VoxelSettings(divide="percentile", transform="logit"))
    with pytest.raises(RequestError, match="'bce' needs voxels in"):
        VoxelScale(VoxelSettings(divide="incident_gev"), unit=True)
