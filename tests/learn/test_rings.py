"""Gains of rings: what draws lack is found, kept at its detector, and layers stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector, parse_detector
from caloforge.learn.adapt import drawing
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.condition import Conditions
from caloforge.learn.noise import Noise
from caloforge.learn.rings import fit_rings
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


def test_what_rings_lack_is_given_back_and_layers_stay(
    model: Model, new: Detector, toy: Callable[..., Showers]
) -> None:
    """A detector whose outer rings hold less than the model knows."""
    thin = torch.tensor([1.0, 0.7, 0.5])[None, :, None, None]
    voxels, given = prepared(toy(new, 200, seed=5), new)
    fresh, told = prepared(toy(new, 200, seed=6), new)
    before = made(model, told)
    fit_rings(model.scale, drawing(model, "m"), voxels * thin, given)
    gains = model.scale.rings.values[0]
    assert gains[0] > 0 > gains[1] > gains[2]
    after = made(model, told)
    far = [(shares(some) - shares(fresh * thin)).abs().max() for some in (before, after)]
    assert far[0] > 0.03 and far[1] < 0.3 * far[0]
    torch.testing.assert_close(before.sum(dim=(1, 2)), after.sum(dim=(1, 2)), rtol=1e-4, atol=1e-3)


def test_other_detectors_keep_their_rings(
    model: Model, new: Detector, toy: Callable[..., Showers]
) -> None:
    other = parse_detector(SMALL.format(name="other", lead=9.0))
    known = prepared(toy(other, 10), other)[1]
    before = made(model, known)
    fit_rings(model.scale, drawing(model, "m"), *prepared(toy(new, 100, seed=5), new))
    torch.testing.assert_close(made(model, known), before, rtol=1e-3, atol=1e-3)


def test_they_are_found_again_whatever_was_there_and_are_saved(
    model: Model, new: Detector, toy: Callable[..., Showers], tmp_path: Path
) -> None:
    sample = prepared(toy(new, 60, seed=5), new)
    fit_rings(model.scale, drawing(model, "m"), *sample)
    once = model.scale.rings.values.clone()
    fit_rings(model.scale, drawing(model, "m"), *sample)
    assert torch.equal(model.scale.rings.values, once) and len(model.scale.rings) == 1
    save_model(model, tmp_path / "model")
    assert torch.equal(load_model(tmp_path / "model").scale.rings.values, once)
