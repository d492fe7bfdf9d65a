import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.metric import Key, against_ideal, beside_floor, beside_replicas
from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.observables import measure
from caloforge.evaluate.samples import choose, draw


def test_halves_are_disjoint_and_of_one_size():
    trio = draw(np.random.default_rng(0), 101, 80, None)
    assert len(trio.reference) == len(trio.generated) == len(trio.floor) == 50
    assert not set(trio.reference) & set(trio.floor)
    for index, n in ((trio.reference, 101), (trio.generated, 80), (trio.floor, 101)):
        assert len(set(index)) == 50 and max(index) < n


def test_with_a_floor_every_shower_of_the_smallest_is_taken():
    trio = draw(np.random.default_rng(0), 90, 70, 80)
    assert sorted(trio.generated) == list(range(70))
    assert len(trio.reference) == len(trio.floor) == 70


def test_values_are_those_of_the_drawn_showers(reference, toy):
    other, floor = measure(toy(300, 2)), measure(toy(800, 4))
    setting = choose(reference, other, floor, 3, 5)
    values = setting.values(lambda o: o.energy)
    np.testing.assert_array_equal(values.floor, floor.energy[setting.chosen.floor])
    assert setting.from_file and setting.size == 300
    assert setting.weights.generated.shape == (5, 300)
    first, second = setting.floor_pair(lambda o: o.energy)
    assert len(first) == len(second) == 800


def test_the_seed_draws_and_too_few_are_refused(reference, toy):
    other = measure(toy(300, 2))
    first, second, third = (choose(reference, other, None, seed, 2).chosen for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.floor, second.floor)
    assert (first.floor != third.floor).any()
    with pytest.raises(RequestError, match="floor file has 5"):
        choose(reference, other, measure(toy(100, 3)[:5]), 0, 2)


def test_a_distance_is_judged_beside_its_floor_and_at_its_size():
    key = Key("x", "X", "distance")
    plain = beside_floor(key, Estimate(5, 3), Estimate(1, 4), "")
    assert plain.name == "x.distance" and plain.sigmas == pytest.approx(4 / 5)
    matched = beside_floor(key, Estimate(5, 3), Estimate(1, 4), "", matched=Estimate(11, 3))
    assert (matched.value, matched.matched, matched.sigmas) == (5, 11, pytest.approx(2))
    score = beside_floor(Key("x", "X", "score"), Estimate(0.2, 0.03), Estimate(0.5, 0.04), "")
    assert (score.sigmas, score.size) == (pytest.approx(-6), pytest.approx(6))
    replicas = beside_replicas(key, np.array([2.0, 1, 3]), np.array([1.0, 1, 1]), "")
    assert replicas.error == pytest.approx(np.std([1, 3], ddof=1)) and replicas.ideal is None


def test_a_difference_is_judged_both_ways_by_its_own_error():
    metric = against_ideal(Key("x", "X", "difference", "mm", "shift"), Estimate(-2, 0.5),
                           Estimate(0.1, 0.5), 0.0, "")  # fmt: skip
    assert metric.name == "x.shift" and metric.sigmas == -4 and metric.size == 4
