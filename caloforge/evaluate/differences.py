"""Differences that equal laws would make exactly 0, or a ratio of exactly 1.

Everything is compared *at equal incident energy*: the reference's trend with energy and angle is
fitted and taken out first, which makes a per-cent effect visible in quantities that span two
decades. The rest, a residual for each shower, has a mean, a spread and tails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.metrics import Estimate

if TYPE_CHECKING:
    from caloforge.evaluate.observables import Observables, Quantity

__all__ = ["TAILS", "Trend", "spread_ratio", "tail_share"]

Array = NDArray[Any]

TAILS = 0.02  # share of the reference outside the limits, half on either side


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


def spread_ratio(first: Array, second: Array) -> Estimate:
    """Ratio of the standard deviations of residuals (n,) and (m,), no unit: fluctuations."""
    return metrics.ratio(metrics.spread(first), metrics.spread(second))


def tail_share(first: Array, second: Array) -> Estimate:
    """Per cent of residuals (n,) outside the central 98 % of others (m,): 2 for equal laws.

    The error counts both samples: how many lie outside, and where the second one puts the limits.
    """
    low, high = np.quantile(second, [TAILS / 2, 1 - TAILS / 2])
    share = float(np.mean((first < low) | (first > high)))
    own = max(share, TAILS) / len(first)
    return Estimate(100 * share, 100 * float(np.sqrt(own + TAILS / len(second))))
