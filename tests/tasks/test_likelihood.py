"""Likelihoods by place: they add up to that of the shower, and whose they are can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import Conditions
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind, as_particle
from caloforge.tasks.features import View, cut, features
from caloforge.tasks.likelihood import ODDS, log_likelihoods, prior_tokens, surprises

Toy = Callable[..., Showers]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior(tiny_prior: Path) -> Model:
    """A prior of which no head is zero: it tells particles apart, at random."""
    model = load_model(tiny_prior)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.network.condition.parameters():
            weight.normal_(std=0.3)
        for name, weight in model.network.named_parameters():
            if name.startswith(("modulation", "profile", "head", "energies")):
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return model


@pytest.fixture(scope="module")
def seen(prior: Model, toy: Toy, small_detector: Detector) -> tuple[torch.Tensor, Conditions]:
    """Voxels of six showers, and what can be assumed of them."""
    voxels = torch.from_numpy(toy(small_detector, 6).dense())
    return voxels, Blind(prior.scale, small_detector, CPU)(voxels)


def test_places_add_up_to_the_likelihood_of_the_prior(
    prior: Model, seen: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = seen
    with torch.inference_mode():
        each, _, _ = surprises(prior.network, prior.scale, voxels, given)
        clean = prior.scale(voxels, given)
        energies, codes = prior.network(clean, given)
        spread = prior.scale.energies.moments(given.features)[1].sum(dim=1)
    assert torch.allclose(each[..., 1].sum(dim=1), codes, rtol=1e-4)
    assert torch.allclose(each[..., 0].sum(dim=1), energies + spread, rtol=1e-3, atol=1e-3)


def test_tokens_hold_what_particles_differ_by(
    prior: Model, seen: tuple[torch.Tensor, Conditions]
) -> None:
    voxels, given = seen
    with torch.inference_mode():
        tokens = prior_tokens(prior.network, prior.scale, voxels, given, 1)
    assert tokens.shape == (6, 11, ODDS + 64)
    likely = log_likelihoods(prior, voxels, given, [11, 22, 11])
    assert (likely[:, 0] == likely[:, 2]).all()
    apart = likely[:, 0] - likely[:, 1]
    assert np.abs(apart).min() > 1e-3
    photon = ODDS - 1  # the last particle, all of the shower
    assert tokens[:, 0, photon].numpy() == pytest.approx(apart, rel=1e-2, abs=2e-2)
    by_place = tokens[:, 1:, photon - 1 : photon + 1].sum(dim=(1, 2))
    assert (tokens[:, 0, photon - 1] + by_place).numpy() == pytest.approx(apart, rel=1e-2, abs=2e-2)


def test_a_cut_prior_says_the_same_and_the_truth_is_not_known(
    prior: Model, toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 9)
    other = showers.with_(energy=showers.energy * 2, theta=np.full(9, 1.0), pdg=np.full(9, 22))
    for pooling in ("front", "odds"):
        view = View(1, pooling).check(prior.network)
        rows = features(prior, showers, view)
        assert np.isfinite(rows).all() and (rows == features(prior, other, view)).all()
        small = replace(prior, network=cut(prior.network, 1))
        assert rows == pytest.approx(features(small, showers, view), abs=1e-5)
        assert rows[:1] == pytest.approx(features(prior, showers[:1], view), abs=1e-3)


def test_a_particle_is_told_by_its_code(prior: Model, small_detector: Detector) -> None:
    given = Blind(prior.scale, small_detector, CPU)(torch.ones(2, 3, 4, 10))
    assert torch.equal(as_particle(given, 11).features, given.features)
    assert not torch.equal(as_particle(given, 22).features, given.features)


def test_what_has_no_likelihood_is_refused(
    prior: Model, tiny_model: Model, small_detector: Detector
) -> None:
    given = Blind(prior.scale, small_detector, CPU)(torch.ones(2, 3, 4, 10))
    with pytest.raises(RequestError, match="111"):
        log_likelihoods(prior, torch.ones(2, 3, 4, 10), given, [11, 111])
    with pytest.raises(RequestError, match="take 'codes'"):
        log_likelihoods(tiny_model, torch.ones(2, 3, 4, 10), given, [11, 22])
    with pytest.raises(RequestError, match="'odds' needs a likelihood"):
        View(pooling="odds").check(tiny_model.network)
    with pytest.raises(RequestError, match="as they are"):
        View(level=0.5).check(prior.network)
