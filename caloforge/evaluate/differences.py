"""Differences of means: what equal laws would make exactly 0, or a ratio of exactly 1.

Means are compared *at equal incident energy*: the reference's trend with energy and angle is fitted
and taken out first, which makes a per-cent effect visible in quantities that span two decades.
Response and resolution, which depend on the energy by themselves, are compared in bins of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.metrics import Estimate

if TYPE_CHECKING:
    from caloforge.evaluate.observables import Observables, Quantity

__all__ = ["EnergyBin", "Trend", "energy_bins", "in_bins", "ratio_of_bins"]

Array = NDArray[Any]

_MIN_IN_BIN = 10


@dataclass(frozen=True)
class EnergyBin:
    """Response and resolution in a bin of incident energy, from `low` to `high` (MeV).

    `n`: showers in the bin; `response`: mean of visible over incident energy; `resolution`: its
    standard deviation over its mean. Both dimensionless, with errors.
    """

    low: float
    high: float
    n: int
    response: Estimate
    resolution: Estimate


class Trend:
    """The reference's mean of a quantity as a function of energy and angle, fitted once.

    A cubic in log energy with terms in cos^2(theta), least squares, on the logarithm of quantities
    that are compared as ratios.
    """

    def __init__(self, reference: Observables, quantity: Quantity) -> None:
        self.quantity = quantity
        self.relative = quantity.relative
        log_energy = np.log(reference.energy)
        self.centre, self.scale = log_energy.mean(), log_energy.std()
        self.limit = np.abs(log_energy - self.centre).max()
        y = quantity.of(reference)
        used = y > 0 if self.relative else np.ones(len(y), bool)
        target = np.log(y[used]) if self.relative else y[used]
        # Columns that do not vary (one energy, one angle) must not be fitted to rounding noise.
        design = self._design(reference)[used]
        self.fit = np.linalg.lstsq(design, target, rcond=1e-6)[0] if used.any() else np.zeros(6)

    def _design(self, obs: Observables) -> Array:
        x = np.clip(np.log(obs.energy) - self.centre, -self.limit, self.limit)
        x = x / self.scale if self.scale > 1e-6 else np.zeros_like(x)
        c = np.cos(obs.theta.astype(float)) ** 2
        return np.stack([np.ones_like(x), x, x**2, x**3, c, x * c], axis=1)

    def residual(self, obs: Observables) -> Array:
        """Quantity of N showers over the trend, dimensionless, or minus it, in its unit: (N,)."""
        trend, y = self._design(obs) @ self.fit, self.quantity.of(obs)
        return np.asarray(y / np.exp(trend) if self.relative else y - trend)

    def difference(self, first: Array, second: Array) -> Estimate:
        """Ratio or difference of the means of residuals (n,) and (m,), in their unit."""
        a, b = metrics.mean(first), metrics.mean(second)
        if self.relative:
            return metrics.ratio(a, b)
        return Estimate(a.value - b.value, float(np.hypot(a.error, b.error)))


def ratio_of_bins(pairs: list[tuple[EnergyBin, EnergyBin]], kind: str) -> Estimate:
    """Average the ratio of "response" or "resolution", generated over reference, over the bins.

    Bins with under 10 showers of a sample are left out; 1 without error if none is left.
    """
    ratios = [
        metrics.ratio(getattr(generated, kind), getattr(reference, kind))
        for reference, generated in pairs
        if min(reference.n, generated.n) >= _MIN_IN_BIN
    ]
    return metrics.weighted_mean(ratios) if ratios else Estimate(1.0, 0.0)


def energy_bins(
    reference: Observables, generated: Observables
) -> list[tuple[EnergyBin, EnergyBin]]:
    """Response and resolution of both samples in bins of incident energy (MeV), equal in log10.

    About four bins a decade of the reference's range, fewer if they would hold under 20 showers;
    one bin for a single energy. A bin with under 4 showers of a sample has estimates 0 without
    error: look at its `n`.
    """
    low, high = float(reference.energy.min()), float(reference.energy.max())
    wanted = round(4 * np.log10(high / low)) if high > low else 1
    count = int(np.clip(min(wanted, len(reference) // 20), 1, 16))
    edges = np.geomspace(low, high, count + 1) if high > low else np.array([low, low])
    both = (in_bins(o.energy, o.response, edges) for o in (reference, generated))
    return list(zip(*both, strict=True))


def in_bins(energy: Array, response: Array, edges: Array) -> list[EnergyBin]:
    """Response (N,) of showers of incident energy (N,) in bins of `edges` (n_bins + 1,), in MeV."""
    index = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, len(edges) - 2)
    inside = (energy >= edges[0] * (1 - 1e-6)) & (energy <= edges[-1] * (1 + 1e-6))
    found = []
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        here = response[inside & (index == k)]
        nothing = Estimate(0.0, 0.0)
        pair = (
            (metrics.mean(here), metrics.resolution(here)) if len(here) >= 4 else (nothing, nothing)
        )
        found.append(EnergyBin(float(low), float(high), len(here), *pair))
    return found
