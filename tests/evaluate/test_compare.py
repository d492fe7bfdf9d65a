from dataclasses import asdict

import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.compare import compare
from caloforge.evaluate.observables import measure
from caloforge.evaluate.verdict import THRESHOLD, worst_observables


def named(comparison):
    return {m.name: m for m in comparison.metrics}


@pytest.fixture(scope="module")
def same(reference, toy):
    return compare(reference, measure(toy(800, 2)))


@pytest.fixture(scope="module")
def changed(reference, toy):
    """Compare with showers of another seed after a change to them."""
    return lambda change: compare(reference, measure(change(toy(800, 2))))


def test_one_law_stays_within_the_floor(same):
    assert worst_observables(same) == []
    auc = named(same)["classifier.auc"]
    assert abs(auc.value - 0.5) < 3 * auc.error
    assert all(m.sigmas < THRESHOLD for m in same.layers)


def test_the_floor_is_taken_at_the_same_size(same, reference):
    assert same.size == len(reference) // 2
    assert same.floor_from == "halves"


def test_scaled_energy_is_called_response(changed):
    seen = changed(lambda s: s.with_(deposit=s.deposit * np.float32(1.05)))
    assert worst_observables(seen)[0].observable in ("response", "hit_energy")
    ratio = named(seen)["response.ratio"]
    assert abs(ratio.value - 1.05) < 4 * ratio.error
    assert ratio.sigmas > 5
    for name in ("longitudinal_profile", "phi_link", "hits", "z_mean"):
        assert name not in {m.observable for m in worst_observables(seen)}


def test_shifted_layers_are_called_longitudinal(changed, alter):
    def shift(showers):
        voxels = np.roll(showers.dense(), 1, axis=3)
        voxels[..., 0] = 0
        return alter(showers, voxels)

    seen = changed(shift)
    assert worst_observables(seen)[0].observable == "z_mean"
    moved = named(seen)["z_mean.shift"]
    assert moved.unit == "mm" and 0.5 * 12 < moved.value < 1.2 * 12
    assert {"longitudinal_profile", "layer_energy"} < {
        m.observable for m in worst_observables(seen)
    }


def test_shuffled_sectors_are_called_azimuthal(changed, alter):
    order = [3, 0, 6, 1, 4, 7, 2, 5]
    seen = changed(lambda s: alter(s, s.dense()[:, :, order]))
    worst = [m.observable for m in worst_observables(seen)]
    assert all(name.startswith("phi") for name in worst[:2]) and "phi_link" in worst[:3]
    assert abs(named(seen)["response.ratio"].sigmas) < 4


def test_dropped_cells_are_called_hits_and_response(changed):
    rng = np.random.default_rng(0)
    seen = changed(lambda s: s.with_(deposit=s.deposit * (rng.random(len(s.deposit)) > 0.05)))
    first = [m.observable for m in worst_observables(seen)[:2]]
    assert set(first) == {"hits", "response"}
    for name in ("hits.ratio", "response.ratio"):
        metric = named(seen)[name]
        assert abs(metric.value - 0.95) < 4 * metric.error


def test_a_classifier_sees_what_changes(changed):
    seen = changed(lambda s: s.with_(deposit=s.deposit * np.float32(1.15)))
    assert named(seen)["classifier.auc"].sigmas > 3


def test_a_floor_file_uses_every_shower(reference, toy):
    seen = compare(reference, measure(toy(800, 2)), measure(toy(800, 4)))
    assert seen.size == 800 and seen.floor_from == "file"
    assert worst_observables(seen) == []


def test_the_seed_repeats_everything(reference, toy, same):
    again = compare(reference, measure(toy(800, 2)))
    assert asdict(again) == asdict(same)
    other = compare(reference, measure(toy(800, 2)), seed=1)
    assert named(other)["hits.separation"].value != named(same)["hits.separation"].value


def test_more_showers_lower_the_floor(toy):
    floors = [
        named(compare(measure(toy(n, 1)), measure(toy(n, 2)), measure(toy(n, 4))))[
            "z_mean.wasserstein"
        ].floor
        for n in (60, 800)
    ]
    assert floors[1] < floors[0]


@pytest.mark.parametrize(("n", "m"), [(39, 100), (100, 19)])
def test_too_few_showers_are_refused(toy, n, m):
    with pytest.raises(RequestError, match="at least"):
        compare(measure(toy(800, 1)[:n]), measure(toy(800, 2)[:m]))


def test_a_single_energy_and_empty_showers_survive(toy):
    showers = toy(100, 3)
    single = measure(showers.with_(energy=np.full(100, 5e4), theta=np.full(100, 1.5)))
    empty = measure(showers.with_(deposit=showers.deposit * 0))
    for one, two in ((single, single), (single, empty), (empty, empty)):
        for metric in compare(one, two, replicas=20).metrics:
            assert np.isfinite([metric.value, metric.error, metric.floor, metric.sigmas]).all()
