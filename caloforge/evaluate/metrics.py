"""Distances between two samples of showers, each with its statistical error.

Everything here is plain statistics on arrays: nothing knows what a calorimeter is. Errors come from
the bootstrap over *showers* (B. Efron, Ann. Statist. 7 (1979) 1, doi:10.1214/aos/1176344552): a
replica holds each shower 0, 1, 2, ... times, the same draw for every observable, so correlations
inside a shower are kept. A replica is a row of weights, and one function of weighted samples gives
both the value and its replicas.

A distance between finite samples is never zero, even if both obey the same law. It means something
only beside its *floor*: the same distance between two Geant4 samples of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "bin_edges",
    "binned_wasserstein",
    "circular_wasserstein",
    "correlation",
    "deviation",
    "histogram",
    "mean",
    "ratio",
    "resample",
    "resolution",
    "separation_power",
    "spread",
    "wasserstein",
    "weighted_mean",
]

Array = NDArray[Any]
SIGMA_LIMIT = 999.0  # JSON knows no infinity: a difference without any error is quoted as this
_CHUNK = 2_000_000  # elements of the largest temporary array: 16 MB


@dataclass(frozen=True)
class Estimate:
    """A number and its statistical error of one standard deviation, both in the same unit."""

    value: float
    error: float

    @classmethod
    def of(cls, value: float, replicas: Array) -> Estimate:
        """Take the error of `value` from its replicas (B,): their standard deviation."""
        return cls(float(value), float(np.std(replicas, ddof=1)) if len(replicas) > 1 else 0.0)


def resample(n: int, replicas: int, rng: np.random.Generator) -> Array:
    """Draw bootstrap weights (B, n), u1: how often each of n showers is in each of B replicas.

    Every row sums to n; the same state of `rng` gives the same weights.
    """
    rows = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(replicas)]
    return np.asarray(rows, dtype=np.uint8).reshape(replicas, n)


def separation_power(first: ArrayLike, second: ArrayLike) -> Array:
    """Separation power (...) of histograms (..., n_bins): 0 for equal shapes, 1 for disjoint ones.

    Half the sum over bins of (h1 - h2)^2/(h1 + h2), both normalised to one, bins empty in both
    left out: the definition of the CaloChallenge, arXiv:2410.21611. Dimensionless. A histogram
    without entries is disjoint from any other, but equal to another empty one.
    """
    h1, h2 = (_normalised(np.asarray(h, dtype=float)) for h in (first, second))
    total = h1 + h2
    terms = np.divide((h1 - h2) ** 2, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(0.5 * terms.sum(axis=-1))


def _normalised(h: Array) -> Array:
    total = h.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(h, total, out=np.zeros_like(h), where=total > 0))


def wasserstein(
    first: Array, second: Array, w_first: Array | None = None, w_second: Array | None = None
) -> Array:
    """First Wasserstein distance of two samples (n,) and (m,), in their common unit.

    The area between the two cumulative distributions (S. S. Vallender, Theory Probab. Appl. 18
    (1974) 784, doi:10.1137/1118101). With the weights (B, n) and (B, m) of replicas it returns
    (B,), each row of weights normalised to one; without, one number ().
    """
    values = np.concatenate([first, second]).astype(float)
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    if w_first is None or w_second is None:
        ones = np.ones((1, len(first))), np.ones((1, len(second)))
        return np.asarray(_area(*ones, order, steps)[0])
    rows = max(1, _CHUNK // max(1, len(values)))
    parts = [
        _area(w_first[i : i + rows], w_second[i : i + rows], order, steps)
        for i in range(0, len(w_first), rows)
    ]
    return np.concatenate(parts)


def _area(w_first: Array, w_second: Array, order: Array, steps: Array) -> Array:
    """Area between two weighted cumulative distributions: (b, n), (b, m) -> (b,)."""
    signed = np.concatenate([_normalised(w_first * 1.0), -_normalised(w_second * 1.0)], axis=1)
    difference = np.cumsum(signed[:, order], axis=1)[:, :-1]
    return np.asarray(np.abs(difference, out=difference) @ steps)


def circular_wasserstein(first: Array, second: Array, width: float) -> Array:
    """First Wasserstein distance (...) of histograms (..., n_bins) on a circle, in rad.

    `width` is that of a bin in rad. On a circle the cumulative difference is known up to a
    constant, and its median is the cheapest (J. Rabin, J. Delon, Y. Gousseau, J. Math. Imaging
    Vis. 41 (2011) 147, doi:10.1007/s10851-011-0284-0).
    """
    gap = np.cumsum(_normalised(first * 1.0) - _normalised(second * 1.0), axis=-1)
    gap = gap - np.median(gap, axis=-1, keepdims=True)
    return np.asarray(np.abs(gap).sum(axis=-1) * width)


def binned_wasserstein(first: Array, second: Array, width: float) -> Array:
    """First Wasserstein distance (...) of histograms (..., n_bins) in equal bins.

    In the unit of `width`, the width of a bin: mm for a profile, decades for a spectrum.
    """
    gap = np.cumsum(_normalised(first * 1.0) - _normalised(second * 1.0), axis=-1)
    return np.asarray(np.abs(gap).sum(axis=-1) * width)


def bin_edges(values: Array, bins: int = 30, *, log: bool = False) -> Array:
    """Edges (bins + 1,) of equal bins over the central 99 % of a sample (n,), in its unit.

    With `log` the bins are equal in log10 and values at or below 0 are left out. `histogram` puts
    what lies outside into the first and the last bin, so nothing is lost.
    """
    kept = values[values > 0] if log else values
    if len(kept) == 0:
        return np.linspace(1.0, 2.0, bins + 1) if log else np.linspace(-0.5, 0.5, bins + 1)
    low, high = np.quantile(np.log10(kept) if log else kept, [0.005, 0.995])
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = max(0.01 * abs(low), 1e-6)
        low, high = low - pad, high + pad
    edges = np.linspace(low, high, bins + 1)
    return np.asarray(10.0**edges if log else edges)


def histogram(values: Array, edges: Array, weights: Array | None = None) -> Array:
    """Count a sample (n,) in bins of `edges` (n_bins + 1,), both in one unit.

    What lies outside goes to the first and the last bin. Returns (n_bins,), or (B, n_bins) with
    the weights (B, n) of replicas.
    """
    bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    if weights is None:
        return np.bincount(index, minlength=bins).astype(float)
    return np.stack([np.bincount(index, weights=row, minlength=bins) for row in weights])


def mean(values: Array) -> Estimate:
    """Mean of a sample (n,), n >= 2, with its standard error, in the unit of the sample."""
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def spread(values: Array) -> Estimate:
    """Return the standard deviation of a sample (n,), n >= 4, in the unit of the sample.

    The error takes the fourth moment m4, so that tails are paid for: var(s^2) = (m4 -
    s^4 (n - 3)/(n - 1))/n (H. Cramer, Mathematical Methods of Statistics, 1946, section 27.4).
    """
    n, width = len(values), float(np.std(values, ddof=1))
    if width == 0.0:
        return Estimate(0.0, 0.0)
    fourth = float(np.mean((values - np.mean(values)) ** 4))
    variance = max(0.0, fourth - width**4 * (n - 3) / (n - 1)) / n
    return Estimate(width, float(np.sqrt(variance) / (2.0 * width)))


def resolution(values: Array) -> Estimate:
    """Return standard deviation over mean of a sample (n,), n >= 4, no unit; 0 if the mean is 0."""
    centre, width = float(np.mean(values)), spread(values)
    if centre == 0.0:
        return Estimate(0.0, 0.0)
    return Estimate(width.value / abs(centre), width.error / abs(centre))


def correlation(rows: Array, weights: Array) -> Array:
    """Correlation coefficients (F, F) of a sample (n, F) with weights (n,), no unit.

    0 with a column that does not vary.
    """
    share = weights / weights.sum()
    centred = rows - share @ rows
    covariance = (centred * share[:, None]).T @ centred
    width = np.sqrt(np.diag(covariance))
    product = np.outer(width, width)
    out = np.zeros_like(product)
    return np.asarray(np.divide(covariance, product, out=out, where=product > 0))


def ratio(numerator: Estimate, denominator: Estimate) -> Estimate:
    """Ratio of two independent estimates in one unit, errors propagated to first order.

    Where either is 0 there is no ratio to speak of: 1 if both are, else 0, without error.
    """
    if denominator.value == 0.0 or numerator.value == 0.0:
        return Estimate(float(denominator.value == numerator.value), 0.0)
    value = numerator.value / denominator.value
    relative = np.hypot(
        numerator.error / numerator.value,
        denominator.error / denominator.value,
    )
    return Estimate(value, float(abs(value) * relative))


def weighted_mean(parts: list[Estimate]) -> Estimate:
    """Combine independent estimates of one number, in one unit, by inverse variance.

    Those without an error are left out if another has one. Raises `ValueError` for an empty list.
    """
    if not parts:
        raise ValueError("weighted_mean of nothing: give at least one estimate")
    known = [p for p in parts if p.error > 0]
    if not known:
        return Estimate(float(np.mean([p.value for p in parts])), 0.0)
    weights = np.array([p.error**-2 for p in known])
    values = np.array([p.value for p in known])
    return Estimate(float(weights @ values / weights.sum()), float(weights.sum() ** -0.5))


def deviation(difference: float, error: float) -> float:
    """Difference over error, in one unit, as standard deviations within +-999; 0 for none."""
    if difference == 0.0:
        return 0.0
    if error == 0.0:
        return float(np.copysign(SIGMA_LIMIT, difference))
    return float(np.clip(difference / error, -SIGMA_LIMIT, SIGMA_LIMIT))
