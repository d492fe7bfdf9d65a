"""What cells and rings hold: what draws lack is found, kept at its detector, and layers stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector, parse_detector
from caloforge.learn.adapt import drawing
from caloforge.learn.cells import cell_moves
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.prior_tuning import fit_details
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import APART, CUT_MEV, KNOTS
from caloforge.learn.rings import ring_gains
from caloforge.showers.showers import Showers
from tests.conftest import SMALL, prepared


@pytest.fixture
def model(tiny_prior: Path) -> Model:
    return load_model(tiny_prior)


@pytest.fixture
def new() -> Detector:
    return parse_detector(SMALL.format(name="new", lead=3.2))


@torch.no_grad()
def made(model: Model, given: Conditions) -> torch.Tensor:
    """Showers as they are drawn, always from the same noise."""
    noise = Noise(np.arange(1000, 1000 + given.showers).astype(np.uint64), given.energy.device)
    return drawing(model, "m")(given, noise)


def shares(voxels: torch.Tensor) -> torch.Tensor:
    rings = voxels.sum(dim=(2, 3))
    return (rings / rings.sum(dim=1, keepdim=True)).mean(dim=0)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two spectra of cells are from one another: the largest difference of their shares
    below an energy (Kolmogorov and Smirnov).
    """
    one, other = (some[some > 0].sort().values for some in (one, other))
    both = torch.cat([one, other]).sort().values
    below = [torch.searchsorted(some, both, right=True) / len(some) for some in (one, other)]
    return float((below[0] - below[1]).abs().max())


def evened(voxels: torch.Tensor) -> torch.Tensor:
    """Small cells hold more and large ones less, and all together what they did."""
    even = voxels**0.8
    return even * (voxels.sum() / even.sum())


def test_cells_get_the_spectrum_of_the_detector_and_their_number_stays(
    model: Model, new: Detector, toy: Callable[..., Showers]
) -> None:
    voxels, given = prepared(toy(new, 200, seed=5), new)
    fresh, told = prepared(toy(new, 200, seed=6), new)
    before = made(model, told)
    fit_details(model.scale, drawing(model, "m"), evened(voxels), given, 200)
    after = made(model, told)
    far = [apart(some, evened(fresh)) for some in (before, after)]
    assert far[0] > 0.1 and far[1] < 0.6 * far[0]
    assert torch.equal(before > 0, after > 0)
    torch.testing.assert_close(before.sum(dim=(1, 2)), after.sum(dim=(1, 2)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("alone", "left"), [(True, 0.3), (False, 0.5)])
def test_what_rings_lack_is_given_back_and_layers_stay(
    model: Model, new: Detector, toy: Callable[..., Showers], alone: bool, left: float
) -> None:
    """A detector whose outer rings hold less than the model knows; the moves of cells, which a
    layer has few of here, then take a little of it back.
    """
    thin = torch.tensor([1.0, 0.7, 0.5])[None, :, None, None]
    voxels, given = prepared(toy(new, 200, seed=5), new)
    fresh, told = prepared(toy(new, 200, seed=6), new)
    before = made(model, told)
    fit_details(model.scale, drawing(model, "m"), voxels * thin, given, 200)
    if alone:
        model.scale.cells.values.zero_()
    gains = model.scale.rings.values[0]
    assert gains[0] > 0 > gains[1] > gains[2]
    after = made(model, told)
    far = [(shares(some) - shares(fresh * thin)).abs().max() for some in (before, after)]
    assert far[0] > 0.03 and far[1] < left * far[0]
    torch.testing.assert_close(before.sum(dim=(1, 2)), after.sum(dim=(1, 2)), rtol=1e-4, atol=1e-3)


def cells(seed: int) -> torch.Tensor:
    """Showers with cells of exp(2) to exp(3) cuts."""
    draw = torch.Generator().manual_seed(seed)
    return CUT_MEV * torch.exp(2 + torch.rand(400, 3, 4, 10, generator=draw))


def test_moves_lead_from_share_to_share() -> None:
    """To cells of twice the energy the logarithm is moved by log 2, where there are any."""
    voxels, knots = cells(0), torch.arange(KNOTS) * APART
    found = cell_moves(voxels, 2 * voxels)
    inside = (knots - 2.5).abs() < 0.4
    assert (found[inside] - np.log(2)).abs().max() < 0.02
    assert not found[(knots - 2.5).abs() > 0.6].any()
    nothing = torch.zeros_like(voxels)
    assert not cell_moves(nothing, voxels).any() and not cell_moves(voxels, nothing).any()


def test_of_two_samples_of_one_law_next_to_nothing_is_taken_for_real(
    new: Detector, toy: Callable[..., Showers]
) -> None:
    assert float(cell_moves(cells(0), cells(1)).abs().max()) < 0.01
    one, other = (prepared(toy(new, 400, seed=k), new)[0] for k in (5, 6))
    assert float(ring_gains(one, other).abs().max()) < 0.01


def test_a_ring_that_nothing_reaches_has_no_say(new: Detector, toy: Callable[..., Showers]) -> None:
    voxels = prepared(toy(new, 400, seed=5), new)[0]
    thin = voxels * torch.tensor([1.0, 0.9, 0.81])[None, :, None, None]
    bare = [torch.nn.functional.pad(some, (0, 0, 0, 0, 0, 2)) for some in (voxels, thin)]
    found, alone = ring_gains(*bare), ring_gains(voxels, thin)
    assert (found[:3] - alone).abs().max() < 0.01 and found.isfinite().all()
    assert (alone.diff() - np.log(0.9)).abs().max() < 0.01


def test_other_detectors_keep_what_they_have(
    model: Model, new: Detector, toy: Callable[..., Showers]
) -> None:
    other = parse_detector(SMALL.format(name="other", lead=9.0))
    known = prepared(toy(other, 10), other)[1]
    before = made(model, known)
    fit_details(model.scale, drawing(model, "m"), *prepared(toy(new, 100, seed=5), new), 100)
    torch.testing.assert_close(made(model, known), before, rtol=1e-3, atol=1e-3)


def test_they_are_found_again_whatever_was_there_and_are_saved(
    model: Model, new: Detector, toy: Callable[..., Showers], tmp_path: Path
) -> None:
    sample = prepared(toy(new, 60, seed=5), new)

    def found(model: Model) -> list[torch.Tensor]:
        return [part.values.clone() for part in (model.scale.cells, model.scale.rings)]

    fit_details(model.scale, drawing(model, "m"), *sample, 60)
    once = found(model)
    fit_details(model.scale, drawing(model, "m"), *sample, 60)
    save_model(model, tmp_path / "model")
    for again in (found(model), found(load_model(tmp_path / "model"))):
        assert all(torch.equal(a, b) and len(a) == 1 for a, b in zip(again, once, strict=True))
