"""Distances between two samples of features: Frechet, kernel, and nearest neighbours.

Frechet and kernel physics distance (FPD, KPD: R. Kansal et al., arXiv:2211.10295) as the
CaloChallenge took them: features over the reference's largest magnitude; FPD from 20 bootstrap
batches at each of ten sizes between 10,000 and 50,000, extrapolated to infinite size; KPD the
median over ten batches of 10,000 of the squared mean discrepancy with the kernel
(x.y/F + 1)^4. A batch is drawn with replacement, so it is a row of integer weights on the sample,
and every sum over the batch is one over distinct showers: the same numbers for small samples at a
hundredth of the work, and memory that does not grow with the batch.

Precision and recall, density and coverage: M. F. Naeem et al., arXiv:2002.09797.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.metrics import Estimate, mean

__all__ = ["Neighbours", "frechet_distance", "kernel_distance", "neighbour_scores"]

Array = NDArray[Any]
_ROWS = 2048  # rows of a pairwise matrix in memory at a time
_SEED = 42  # that of the published numbers


def normalised(reference: Array, other: Array) -> tuple[Array, Array]:
    """Features (n, F) and (m, F) over the largest magnitude in the reference; no unit after."""
    scale = np.abs(reference).max(axis=0)
    scale[scale == 0] = 1.0
    return reference / scale, other / scale


def frechet_distance(
    reference: Array,
    other: Array,
    *,
    smallest: int = 10_000,
    largest: int = 50_000,
    points: int = 10,
    batches: int = 20,
    seed: int = _SEED,
) -> Estimate:
    """FPD of features (n, F) and (m, F), no unit, extrapolated to infinite samples.

    To the error of the straight line in 1/size, which is the published one, comes that of the
    samples: the spread of the smallest batches, scaled from their size to that of the samples. Two
    samples of one law are not at 0, and the floor of the same size says where they are.
    """
    x, y = normalised(reference, other)
    centre = x.mean(axis=0)  # of no effect on the distance, but on rounding
    x, y = x - centre, y - centre
    sizes = (1 / np.linspace(1.0 / smallest, 1.0 / largest, points)).astype("int32")
    rng = np.random.default_rng(seed)
    values = np.array(
        [[_frechet(*_pair(x, y, size, rng)) for _ in range(batches)] for size in sizes]
    )
    found = _intercept(1 / sizes, values.mean(axis=1))
    sampling = values[0].std(ddof=1) * np.sqrt(sizes[0] / min(len(x), len(y)))
    return Estimate(found.value, float(np.hypot(found.error, sampling)))


def _pair(x: Array, y: Array, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
    return _moments(x, rng.choice(len(x), size)), _moments(y, rng.choice(len(y), size))


def _moments(x: Array, rows: Array) -> tuple[Array, Array]:
    """Mean (F,) and covariance (F, F) of the drawn rows of (n, F), near their centre."""
    count = np.bincount(rows, minlength=len(x))
    used = np.flatnonzero(count)
    total, squares = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    # Some rows at a time, so that they stay in the cache between one pass and the next.
    for start in range(0, len(used), _ROWS):
        part = used[start : start + _ROWS]
        root = np.sqrt(count[part].astype(float))
        chosen = x[part]
        chosen *= root[:, None]
        total += root @ chosen
        squares += chosen.T @ chosen
    n = len(rows)
    return total / n, (squares - np.outer(total, total) / n) / (n - 1)


def _frechet(first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
    """Frechet distance of two Gaussians of means (F,) and covariances (F, F)."""
    (mean_1, cov_1), (mean_2, cov_2) = first, second
    overlap = _root_trace(cov_1, cov_2)
    gap = mean_1 - mean_2
    return float(gap @ gap + np.trace(cov_1) + np.trace(cov_2) - 2 * overlap)


def _root_trace(cov_1: Array, cov_2: Array) -> float:
    """Trace of the square root of cov_1 cov_2, (F, F) each.

    The eigenvalues of the product are those of the symmetric root(cov_1) cov_2 root(cov_1), whose
    roots are exact where a general matrix square root fails (features that do not vary).
    """
    values, vectors = np.linalg.eigh(cov_1)
    root = vectors * np.sqrt(np.clip(values, 0, None))  # cov_1 = root root^T
    squares = np.linalg.eigvalsh(root.T @ cov_2 @ root)
    return float(np.sqrt(np.clip(squares, 0, None)).sum())


def _intercept(x: Array, y: Array) -> Estimate:
    """Value at x = 0 of a straight line, intercept and slope not negative, with its error."""
    from scipy.optimize import curve_fit

    start = [max(float(y.min()), 0.0), 0.0]
    bounds = ([0.0, 0.0], [np.inf, np.inf])
    found, cov = curve_fit(lambda t, a, b: a + b * t, x, y, p0=start, bounds=bounds)
    error = float(np.sqrt(cov[0, 0])) if np.isfinite(cov[0, 0]) else 0.0
    return Estimate(float(found[0]), error)


# --- kernel -----------------------------------------------------------------------------------


def kernel_distance(
    reference: Array, other: Array, *, size: int = 10_000, batches: int = 10, seed: int = _SEED
) -> Estimate:
    """KPD of features (n, F) and (m, F), no unit: unbiased, so it may come out below 0.

    Median over the batches, and half of their central 68 %, as published; for samples smaller than
    a batch that is scaled to the size of the samples.
    """
    x, y = normalised(reference, other)
    values = []
    for batch in range(batches):
        rng = np.random.default_rng(seed + 1000 * batch)
        values.append(_discrepancy(*_drawn(x, size, rng), *_drawn(y, size, rng)))
    low, high = np.percentile(values, [16.275, 83.725])
    scale = max(1.0, float(np.sqrt(size / min(len(x), len(y)))))
    return Estimate(float(np.median(values)), scale * float(high - low) / 2)


def _drawn(x: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw `size` rows of (n, F): the distinct ones (u, F) and how often each came (u,)."""
    count = np.bincount(rng.choice(len(x), size), minlength=len(x))
    used = np.flatnonzero(count)
    return x[used], count[used].astype(float)


def _discrepancy(x: Array, wx: Array, y: Array, wy: Array) -> float:
    """Unbiased squared mean discrepancy of weighted samples (u, F), (u,), (v, F), (v,)."""
    n = wx.sum()
    cross = _kernel_sum(x, wx, y, wy) / n**2
    within = [
        (_kernel_sum(z, w, z, w) - w @ _kernel((z * z).sum(axis=1), z.shape[1])) / (n * (n - 1))
        for z, w in ((x, wx), (y, wy))
    ]
    return float(within[0] + within[1] - 2 * cross)


def _kernel_sum(x: Array, wx: Array, y: Array, wy: Array) -> float:
    total = 0.0
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        total += float(wx[rows] @ (_kernel(x[rows] @ y.T, x.shape[1]) @ wy))
    return total


def _kernel(product: Array, features: int) -> Array:
    """(x.y/F + 1)^4 of scalar products (...)."""
    product /= features
    product += 1.0
    np.square(product, out=product)
    return np.square(product, out=product)


# --- nearest neighbours -----------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """Precision, recall, density and coverage, no unit, each in [0, 1] but for the density.

    precision: share of the generated near a real shower; recall: of the real near a generated one;
    density: how many real neighbourhoods hold a generated shower, over k; coverage: share of the
    real showers with a generated one nearer than their k-th real neighbour. Errors are those of a
    share (binomial) and of a mean.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def neighbour_scores(real: Array, other: Array, k: int = 5) -> Neighbours:
    """Scores of features (n, F) and (m, F), f4, by k nearest neighbours in Euclidean distance.

    Raises `ValueError` if a sample has no more than k showers.
    """
    if min(len(real), len(other)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} showers")
    reach, reach_other = _reach(real, k), _reach(other, k)
    inside = np.zeros(len(other))  # how many real neighbourhoods hold each of the others
    recalled, covered = [], []
    for rows, squares in _squares(real, other):
        near = squares < reach[rows, None]
        inside += near.sum(axis=0)
        covered.append(squares.min(axis=1) < reach[rows])
        recalled.append((squares < reach_other).any(axis=1))
    shares = (inside > 0, np.concatenate(recalled), np.concatenate(covered))
    precision, recall, coverage = (mean(share.astype(float)) for share in shares)
    return Neighbours(precision, recall, mean(inside / k), coverage)


def _reach(x: Array, k: int) -> Array:
    """Squared distance (n,) to the k-th neighbour among the others."""
    found = []
    for rows, squares in _squares(x, x):
        place = np.arange(len(squares))
        squares[place, place + rows.start] = 0.0  # itself, without rounding
        found.append(np.partition(squares, k, axis=1)[:, k])
    return np.concatenate(found)


def _squares(x: Array, y: Array) -> Iterator[tuple[slice, Array]]:
    """Yield squared distances (rows, m) of (n, F) to (m, F), some rows at a time."""
    lengths = (y * y).sum(axis=1)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, min(start + _ROWS, len(x)))
        part = x[rows]
        squares = part @ y.T
        squares *= -2.0
        squares += lengths
        squares += (part * part).sum(axis=1)[:, None]
        yield rows, np.maximum(squares, 0.0, out=squares)
