import itertools

import numpy as np
import pytest

from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.observables import measure
from caloforge.evaluate.resolution import (
    ResponseBin,
    angle_bins,
    energy_bins,
    fit_resolution,
    ratio_of_bins,
)


def test_bins_hold_every_shower_once(reference, toy):
    pairs = energy_bins(reference, measure(toy(300, 2)))
    assert sum(r.n for r, _ in pairs) == len(reference)
    assert all(a.high == b.low for (a, _), (b, _) in itertools.pairwise(pairs))
    resolution = [r.resolution.value for r, _ in pairs]
    assert resolution[0] > 2 * resolution[-1]


def test_one_energy_makes_one_bin(toy):
    showers = toy(100, 3)
    single = measure(showers.with_(energy=np.full(100, 5e4)))
    pairs = energy_bins(single, single)
    assert len(pairs) == 1 and pairs[0][0].n == pairs[0][1].n == 100
    assert ratio_of_bins(pairs, "response").value == pytest.approx(1)


def test_too_few_in_every_bin_say_nothing(toy):
    few = measure(toy(100, 3)[:5])
    assert ratio_of_bins(energy_bins(few, few), "response").error == 0


def test_angles_are_cut_like_energies(reference, toy):
    pairs = angle_bins(reference, measure(toy(300, 2)))
    assert len(pairs) == 8 and sum(r.n for r, _ in pairs) == len(reference)
    assert pairs[0][0].low == pytest.approx(float(reference.theta.min()))
    flat = measure(toy(100, 3).with_(theta=np.full(100, 1.5)))
    assert len(angle_bins(flat, flat)) == 1


def bins_of(stochastic, constant, error=0.002, seed=0):
    """Bins of a calorimeter with known terms, scattered by their errors."""
    rng = np.random.default_rng(seed)
    found = []
    for low, high in itertools.pairwise(np.geomspace(1e3, 1e5, 9)):
        truth = np.hypot(stochastic / np.sqrt(np.sqrt(low * high) / 1e3), constant)
        value = truth + error * rng.normal()
        found.append(ResponseBin(low, high, 500, Estimate(0.03, 1e-4), Estimate(value, error)))
    return found


def test_the_fit_finds_both_terms_within_their_errors():
    pulls = []
    for seed in range(60):
        fit = fit_resolution(bins_of(0.15, 0.02, seed=seed))
        for term, truth in ((fit.stochastic, 0.15), (fit.constant, 0.02)):
            pulls.append((term.value - truth) / term.error)
        assert fit.ndf == 6
    assert abs(np.mean(pulls)) < 0.5 and 0.7 < np.std(pulls) < 1.4


def test_without_a_constant_term_it_comes_out_near_zero():
    fit = fit_resolution(bins_of(0.15, 0.0, seed=4))
    assert fit.constant.value < 3 * fit.constant.error
    assert abs(fit.stochastic.value - 0.15) < 4 * fit.stochastic.error


def test_too_few_bins_are_not_fitted(toy):
    assert fit_resolution(bins_of(0.15, 0.02)[:2]) is None
    few = measure(toy(100, 3)[:5])
    assert fit_resolution([pair[0] for pair in energy_bins(few, few)]) is None
