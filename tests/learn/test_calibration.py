"""The correction of the whitening finds a shift, finds nothing where there is none, and stays at home."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector, parse_detector
from caloforge.learn.calibration import Draw, calibrate, shrunk
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.denoiser import energies
from caloforge.learn.noise import Noise
from caloforge.showers.showers import Showers
from tests.conftest import SMALL, prepared

Prepared = tuple[torch.Tensor, Conditions]


def louder(showers: Showers, detector: Detector) -> Prepared:
    """Showers that leave a third more than they do."""
    voxels, given = prepared(showers, detector)
    return 1.3 * voxels, given


def drawing(model: Model) -> Draw:
    return partial(energies, model.network)


@pytest.fixture
def between() -> Detector:
    return parse_detector(SMALL.format(name="between", lead=3.2))


def test_a_shifted_response_is_found(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    scale = copy.deepcopy(tiny_model.scale)
    voxels, given = louder(toy(between, 200, seed=5), between)
    fresh, told = louder(toy(between, 400, seed=6), between)

    def total() -> torch.Tensor:
        return scale.energies(scale.raw_energies(fresh, told), told.features)[:, 0]

    noise = Noise(np.arange(800, 1600, 2).astype(np.uint64), torch.device("cpu"))
    with torch.no_grad():
        drawn = drawing(tiny_model)(told, noise)[:, 0]
    assert abs(float((total() - drawn).mean())) > 2.0
    assert calibrate(scale, drawing(tiny_model), voxels, given) > 0.1
    white = total()
    assert abs(float((white - drawn).mean())) < 0.4
    assert 0.75 < float(white.std() / drawn.std()) < 1.33


def test_other_detectors_do_not_notice(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    scale = copy.deepcopy(tiny_model.scale)
    other = parse_detector(SMALL.format(name="other", lead=9.0))
    features = prepared(toy(other, 20), other)[1].features
    before = scale.energies.moments(features)
    calibrate(scale, drawing(tiny_model), *louder(toy(between, 200, seed=5), between))
    after = scale.energies.moments(features)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_the_same_showers_give_the_same_correction_however_often(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    scale = copy.deepcopy(tiny_model.scale)
    sample = prepared(toy(between, 100, seed=5), between)
    calibrate(scale, drawing(tiny_model), *sample)
    once = scale.energies.residual.values.clone()
    calibrate(scale, drawing(tiny_model), *sample)
    torch.testing.assert_close(scale.energies.residual.values, once)
    assert len(scale.energies.residual) == 1


def test_a_handful_of_showers_changes_nothing(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    scale = copy.deepcopy(tiny_model.scale)
    assert calibrate(scale, drawing(tiny_model), *prepared(toy(between, 15), between)) == 0.0
    assert len(scale.energies.residual) == 0


def test_chance_is_shrunk_away_and_what_is_real_stays() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.ones(400)
    chance = torch.randn(1, 400, generator=draw)
    real = chance + 20 * torch.randn(1, 400, generator=draw)
    assert float(shrunk(chance, noise, [400]).std()) < 0.2
    torch.testing.assert_close(shrunk(real, noise, [400]), real, rtol=0.01, atol=0.05)


def test_one_energy_and_one_angle_are_enough_for_a_constant(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    """Terms that say nothing new are left out, and elsewhere the correction stays what it is."""
    scale = copy.deepcopy(tiny_model.scale)
    showers = toy(between, 200, seed=5)
    showers.energy[:], showers.theta[:] = 20e3, 1.5
    voxels, given = louder(showers, between)
    assert calibrate(scale, drawing(tiny_model), voxels, given) > 0.1
    terms = scale.energies.residual.values.reshape(4, -1)
    assert terms[0].abs().max() > 0.1 and torch.equal(terms[1:], torch.zeros_like(terms[1:]))


def test_beyond_its_energies_a_correction_is_that_at_their_end(
    tiny_model: Model, toy: Callable[..., Showers], between: Detector
) -> None:
    plain, scale = tiny_model.scale, copy.deepcopy(tiny_model.scale)
    voxels, given = louder(toy(between, 200, seed=5), between)
    calibrate(scale, drawing(tiny_model), voxels, given)
    low = given.features[given.energy.argmin()].repeat(2, 1)
    low[1, 0] -= 3.0  # twenty times less energy

    def moved(features: torch.Tensor) -> torch.Tensor:
        mean, log_spread = plain.energies.moments(features)
        return (scale.energies.moments(features)[0] - mean) * torch.exp(-log_spread)

    corrections = moved(low)
    torch.testing.assert_close(corrections[1], corrections[0], rtol=1e-3, atol=1e-3)
