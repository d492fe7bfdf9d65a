"""The mirrors of a barrel: what they do to conditions, and that Geant4's showers have them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from caloforge.detector.detector import load_detector
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.mirrors import mirrored
from caloforge.showers.formats import read_showers

THETA = np.array([0.9, 1.3, 1.57, 2.1])


def told(theta: np.ndarray) -> Conditions:
    detector = load_detector("par04-siw")
    n = len(theta)
    return conditions([detector], np.zeros(n, np.int64), np.full(n, 2e4), theta, np.full(n, 11))


def test_along_the_beam_conditions_become_those_of_the_other_angle() -> None:
    given, yes = told(THETA), torch.ones(4, dtype=torch.bool)
    found = mirrored(torch.zeros(4, 9, 16, 45), given, ~yes, yes)[1]
    for part, wanted in zip(found, told(np.pi - THETA), strict=True):
        torch.testing.assert_close(part, wanted, rtol=0.0, atol=1e-3)


def test_only_the_chosen_are_mirrored_and_twice_is_not_at_all() -> None:
    given, voxels = told(THETA), torch.rand(4, 9, 16, 45)
    across, along = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]).bool()
    once = mirrored(voxels, given, across, along)
    same = [torch.equal(a, b) for a, b in zip(once[0], voxels, strict=True)]
    assert same == [True, False, False, False]
    assert torch.equal(once[0][1], voxels[1].flip(1))
    assert torch.equal(once[0][2], voxels[2].roll(8, 1))
    again = mirrored(*once, across, along)
    assert torch.equal(again[0], voxels)
    for part, before in zip(again[1], given, strict=True):
        assert torch.equal(part, before)


def test_half_a_turn_needs_an_even_number_of_sectors() -> None:
    given, voxels = told(THETA), torch.rand(4, 2, 5, 3)
    yes = torch.ones(4, dtype=torch.bool)
    seen, same = mirrored(voxels, given, yes, yes)
    assert torch.equal(seen, voxels.flip(2)) and same is given


def test_showers_of_geant4_are_mirrored_into_showers_of_geant4() -> None:
    """Forward and backward ones lean to opposite sides; once these are mirrored, to the same."""
    path = resources.files("caloforge") / "reference" / "par04-siw.h5"
    showers = read_showers(Path(str(path)))
    voxels = torch.from_numpy(showers.dense())
    slope = torch.from_numpy(np.cos(showers.theta))
    chosen = slope.abs() > 0.2
    back = slope < 0
    given = told(showers.theta)
    turned = mirrored(voxels, given, torch.zeros_like(back), back)[0]

    def lean(some: torch.Tensor) -> torch.Tensor:
        """How far a shower leans along x' (B,): the dipole of its sectors."""
        angle = (torch.arange(some.shape[2]) + 0.5) * 2 * torch.pi / some.shape[2]
        sectors = some.sum(dim=(1, 3))
        return (sectors * angle.cos()).sum(1) / sectors.sum(1)

    def apart(some: torch.Tensor) -> float:
        """Difference of forward and backward ones, in standard errors."""
        one, two = (lean(some)[chosen & side] for side in (~back, back))
        error = (one.var() / len(one) + two.var() / len(two)).sqrt()
        return float((one.mean() - two.mean()) / error)

    assert abs(apart(turned)) < 3
    assert abs(apart(voxels)) > abs(apart(turned)) + 2
