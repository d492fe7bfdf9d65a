import itertools

import numpy as np
import pytest

from caloforge.evaluate.differences import Trend, energy_bins, ratio_of_bins
from caloforge.evaluate.observables import QUANTITIES, measure


def test_the_trend_of_the_reference_leaves_nothing_of_it(reference):
    for name in ("hits", "z_mean", "r_mean"):
        trend = Trend(reference, QUANTITIES[name])
        rest = trend.residual(reference)
        x = np.log(reference.energy)
        assert abs(np.corrcoef(x, rest)[0, 1]) < 0.1
        assert rest.std() < QUANTITIES[name].of(reference).std()


def test_an_effect_has_its_size_whatever_the_energies(reference, toy):
    """Only low energies on one side: a comparison at equal energy does not mind."""
    showers = toy(800, 2)
    low = measure(showers[showers.energy < 15_000])
    for name in ("hits", "z_mean"):
        trend = Trend(reference, QUANTITIES[name])
        seen = trend.difference(trend.residual(low), trend.residual(reference))
        ideal = 1.0 if QUANTITIES[name].relative else 0.0
        assert abs(seen.value - ideal) < 4 * seen.error
    plain = QUANTITIES["hits"].of(low).mean() / QUANTITIES["hits"].of(reference).mean()
    assert plain < 0.8


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
