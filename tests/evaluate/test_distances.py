import numpy as np
import pytest

from caloforge.evaluate import distances
from caloforge.evaluate.distances import frechet_distance, kernel_distance, neighbour_scores


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def test_frechet_of_shifted_and_widened_gaussians(rng):
    """Both divided by the largest magnitude m: ((shift)^2 + (s - 1)^2 per feature)/m^2."""
    x, y = rng.normal(size=(40_000, 3)), 1.5 * rng.normal(size=(40_000, 3)) + 0.5
    scale = np.abs(x).max(axis=0)
    expected = ((0.5 / scale) ** 2 + (0.5 / scale) ** 2).sum()
    seen = frechet_distance(x, y, points=4, batches=6)
    assert abs(seen.value - expected) < 5 * seen.error
    assert seen.error < 0.05 * expected


def test_the_floor_of_equal_laws_falls_with_the_size(rng):
    small, large = (
        frechet_distance(
            rng.normal(size=(n, 4)), rng.normal(size=(n, 4)), points=4, batches=4
        ).value
        for n in (200, 20_000)
    )
    assert large < 0.2 * small


def test_features_that_do_not_vary_do_no_harm(rng):
    x, y = rng.normal(size=(500, 3)), rng.normal(size=(500, 3))
    plain = frechet_distance(x, y, points=3, batches=3)
    padded = [np.hstack([z, np.zeros((500, 2)), np.full((500, 1), 2.0)]) for z in (x, y)]
    assert frechet_distance(*padded, points=3, batches=3).value == pytest.approx(plain.value)


def test_weights_mean_the_same_as_rows_drawn_again(rng):
    x = rng.normal(size=(50, 3))
    rows = rng.choice(50, 200)
    mean, covariance = distances._moments(x, rows)
    np.testing.assert_allclose(mean, x[rows].mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(x[rows], rowvar=False))


def test_kernel_distance_is_0_for_equal_laws_and_grows(rng):
    x, y = rng.normal(size=(3000, 4)), rng.normal(size=(3000, 4))
    same = kernel_distance(x, y, size=2000, batches=5)
    shifted = kernel_distance(x, y + 0.3, size=2000, batches=5)
    assert abs(same.value) < 5 * same.error
    assert shifted.value > 10 * same.error


def test_the_kernel_sum_over_draws_by_hand(rng, monkeypatch):
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    wx, wy = np.array([2.0, 0, 1, 3, 1, 1]), np.array([1.0, 2, 2, 2, 1])
    xs, ys = np.repeat(x, wx.astype(int), axis=0), np.repeat(y, wy.astype(int), axis=0)

    def kernel(a, b):
        return (a @ b.T / 2 + 1) ** 4

    n = len(xs)
    within = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(xs, xs), kernel(ys, ys)))
    expected = within - 2 * kernel(xs, ys).mean()
    for rows in (2, 100):
        monkeypatch.setattr(distances, "_ROWS", rows)
        assert distances._discrepancy(x, wx, y, wy) == pytest.approx(expected)


def test_neighbours_of_one_law_and_of_two(rng):
    x, y = rng.normal(size=(400, 3)), rng.normal(size=(400, 3))
    same = neighbour_scores(x, y)
    assert same.precision.value > 0.85 and same.recall.value > 0.85 and same.coverage.value > 0.85
    assert abs(same.density.value - 1) < 5 * same.density.error
    far = neighbour_scores(x, y + 100)
    assert far.precision.value == far.recall.value == far.coverage.value == 0
    narrow = neighbour_scores(x, 0.2 * y)  # all of it plausible, little of it covered
    assert narrow.precision.value > 0.95 and narrow.recall.value < 0.5 < narrow.density.value


def test_neighbours_do_not_depend_on_the_rows_in_memory(rng, monkeypatch):
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(40, 3))
    whole = neighbour_scores(x, y)
    monkeypatch.setattr(distances, "_ROWS", 7)
    assert neighbour_scores(x, y) == whole
    with pytest.raises(ValueError, match="neighbours need"):
        neighbour_scores(x[:5], y)
