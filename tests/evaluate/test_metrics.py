import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from caloforge.evaluate import metrics
from caloforge.evaluate.metrics import Estimate


def test_separation_power_is_0_for_equal_and_1_for_disjoint():
    h = np.array([1.0, 4.0, 2.0, 0.0])
    assert metrics.separation_power(h, 7 * h) == pytest.approx(0, abs=1e-15)
    assert metrics.separation_power([1, 2, 0, 0], [0, 0, 5, 1]) == pytest.approx(1)


def test_separation_power_of_two_bins_by_hand():
    # 1/2 ((1/4)^2/(3/4) + (1/4)^2/(5/4)) = 1/24 + 1/40
    assert metrics.separation_power([1, 1], [1, 3]) == pytest.approx(1 / 24 + 1 / 40)


@given(st.lists(st.floats(0, 9), min_size=3, max_size=9), st.integers(0, 9))
@settings(deadline=None)
def test_separation_power_is_symmetric_and_bounded(contents, seed):
    h1 = np.array(contents)
    h2 = np.random.default_rng(seed).permutation(h1) + 0.1
    value = metrics.separation_power(h1, h2)
    assert value == pytest.approx(metrics.separation_power(h2, h1))
    assert 0 <= value <= 1 + 1e-12


def test_wasserstein_is_the_shift_and_agrees_with_scipy(rng):
    x, y = rng.normal(size=300), rng.exponential(size=200)
    assert metrics.wasserstein(x, x + 0.7) == pytest.approx(0.7)
    assert metrics.wasserstein(x, x) == pytest.approx(0, abs=1e-12)
    assert metrics.wasserstein(x, y) == pytest.approx(wasserstein_distance(x, y))


def test_weights_mean_the_same_as_repeating(rng):
    x, y = rng.normal(size=40), rng.normal(1, 2, 50)
    wx, wy = metrics.resample(40, 6, rng), metrics.resample(50, 6, rng)
    repeated = [
        metrics.wasserstein(np.repeat(x, a), np.repeat(y, b)) for a, b in zip(wx, wy, strict=True)
    ]
    np.testing.assert_allclose(metrics.wasserstein(x, y, wx, wy), repeated)
    edges = np.linspace(-3, 3, 9)
    np.testing.assert_array_equal(
        metrics.histogram(x, edges, wx), [metrics.histogram(np.repeat(x, a), edges) for a in wx]
    )


def test_chunks_change_nothing(rng, monkeypatch):
    x, y = rng.normal(size=30), rng.normal(size=30)
    wx, wy = metrics.resample(30, 5, rng), metrics.resample(30, 5, rng)
    whole = metrics.wasserstein(x, y, wx, wy)
    monkeypatch.setattr(metrics, "_CHUNK", 1)
    np.testing.assert_allclose(metrics.wasserstein(x, y, wx, wy), whole, rtol=1e-12)


def test_binned_distance_is_the_shift_in_bins():
    h = np.array([0.0, 1, 3, 2, 0, 0])
    assert metrics.binned_wasserstein(h, np.roll(h, 2), 3.4) == pytest.approx(6.8)


def test_a_circle_has_no_beginning(rng):
    h1, h2 = rng.random(12), rng.random(12)
    value = metrics.circular_wasserstein(h1, h2, 0.1)
    turned = metrics.circular_wasserstein(np.roll(h1, 5), np.roll(h2, 5), 0.1)
    assert value == pytest.approx(turned)
    assert value <= metrics.binned_wasserstein(h1, h2, 0.1) + 1e-12
    one = np.eye(12)
    assert metrics.circular_wasserstein(one[11], one[0], 0.1) == pytest.approx(0.1)


def test_bootstrap_is_reproducible_and_knows_the_error_of_a_mean(rng):
    first, second = (metrics.resample(400, 500, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first.sum(axis=1), 400)
    x = rng.normal(3, 2, 400)
    error = Estimate.of(x.mean(), (first / 400) @ x).error
    assert error == pytest.approx(metrics.mean(x).error, rel=0.15)


def test_histograms_lose_nothing_and_edges_survive_a_constant(rng):
    x = rng.lognormal(size=500)
    for log in (False, True):
        edges = metrics.bin_edges(x, 20, log=log)
        assert (np.diff(edges) > 0).all()
        assert metrics.histogram(x, edges).sum() == 500
    for constant in (0.0, 5.0, -2.0):
        edges = metrics.bin_edges(np.full(9, constant))
        assert (np.diff(edges) > 0).all() and edges[0] < constant < edges[-1]
    assert (np.diff(metrics.bin_edges(np.zeros(9), log=True)) > 0).all()


def test_resolution_of_a_gaussian_and_of_nothing(rng):
    seen = metrics.resolution(rng.normal(10, 1, 4000))
    assert abs(seen.value - 0.1) < 4 * seen.error
    assert seen.error == pytest.approx(0.1 / np.sqrt(8000), rel=0.1)
    assert metrics.resolution(np.zeros(9)) == Estimate(0, 0)
    assert metrics.resolution(np.full(9, 2.0)).error == 0


def test_ratio_and_weighted_mean_propagate_errors():
    assert metrics.ratio(Estimate(4, 0.3), Estimate(2, 0.2)).error == pytest.approx(0.25)
    assert metrics.ratio(Estimate(0, 0), Estimate(0, 0)) == Estimate(1, 0)
    assert metrics.ratio(Estimate(1, 0.1), Estimate(0, 0)) == Estimate(0, 0)
    joined = metrics.weighted_mean([Estimate(1, 1), Estimate(3, 1), Estimate(9, 0)])
    assert joined.value == pytest.approx(2) and joined.error == pytest.approx(0.5**0.5)
    assert metrics.weighted_mean([Estimate(1, 0), Estimate(3, 0)]) == Estimate(2, 0)
    with pytest.raises(ValueError, match="nothing"):
        metrics.weighted_mean([])


def test_deviation_is_finite():
    assert metrics.deviation(0, 0) == 0
    assert metrics.deviation(-1, 0) == -metrics.SIGMA_LIMIT
    assert metrics.deviation(1, 0.5) == 2


@pytest.fixture
def rng():
    return np.random.default_rng(11)
