"""The law of whole showers takes the shape of a new detector's, and other detectors hardly notice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caloforge.detector.detector import parse_detector
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.totals import fit_totals
from caloforge.showers.showers import Showers
from tests.conftest import SMALL, prepared

Prepared = tuple[torch.Tensor, Conditions]


@pytest.fixture
def model(tiny_prior: Path) -> Model:
    return load_model(tiny_prior)


@torch.no_grad()
def surprise(model: Model, voxels: torch.Tensor, given: Conditions) -> float:
    white = model.scale(voxels, given, torch.Generator().manual_seed(1)).energies
    return float(model.network.surprise_of_whole(white, given).mean())


def leaking(voxels: torch.Tensor, seed: int) -> torch.Tensor:
    """All showers keep the same share of the energy, but a tenth of them loses a third of it."""
    lost = torch.rand(len(voxels), generator=torch.Generator().manual_seed(seed)) < 0.1
    return voxels * torch.where(lost, 0.67, 1.0)[:, None, None, None]


def test_a_tail_of_leakage_is_learned_and_old_detectors_hardly_notice(
    model: Model, toy: Callable[..., Showers]
) -> None:
    """The detectors of the training have 2.5 and 4 mm of lead; not rehearsed, the latter's
    surprise grows by 1.8.
    """

    def of(lead: float, seed: int) -> Prepared:
        detector = parse_detector(SMALL.format(name="of", lead=lead))
        return prepared(toy(detector, 400, seed=seed), detector)

    (voxels, given), (fresh, told) = of(3.2, 5), of(3.2, 6)
    fresh, old = leaking(fresh, 1), [of(2.5, 9), of(4.0, 9)]
    before = [surprise(model, *sample) for sample in ((fresh, told), *old)]
    fit_totals(model.network, model.scale, leaking(voxels, 0), given)
    after = [surprise(model, *sample) for sample in ((fresh, told), *old)]
    assert after[0] < before[0] - 0.2
    assert max(after[1] - before[1], after[2] - before[2]) < 0.4


def test_what_is_no_better_than_chance_is_not_taken(
    model: Model, toy: Callable[..., Showers]
) -> None:
    """Of twenty showers four judge: whatever fits them, nothing that the law knows is given up."""
    new = parse_detector(SMALL.format(name="new", lead=3.2))
    voxels, given = prepared(toy(new, 400, seed=5), new)
    fit_totals(model.network, model.scale, voxels, given)  # now it knows the detector
    before = copy.deepcopy(model.network.state_dict())
    few, told = prepared(toy(new, 20, seed=8), new)
    fit_totals(model.network, model.scale, few, told)
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
