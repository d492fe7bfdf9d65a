"""Response and resolution of a calorimeter, in bins of incident energy and of angle, and their fit.

Response is visible over incident energy; resolution its standard deviation over its mean in a bin.
The resolution of an electromagnetic calorimeter follows sigma/E = a/sqrt(E) (+) b, a stochastic and
a constant term added in quadrature, E in GeV (R. Wigmans, Calorimetry, Oxford 2017).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.metrics import Estimate

if TYPE_CHECKING:
    from caloforge.evaluate.observables import Observables

__all__ = ["ResolutionFit", "ResponseBin", "angle_bins", "energy_bins", "energy_edges",
           "fit_resolution", "in_bins", "ratio_of_bins"]  # fmt: skip

Array = NDArray[Any]
Bins = list[tuple["ResponseBin", "ResponseBin"]]
MIN_IN_BIN = 10


@dataclass(frozen=True)
class ResponseBin:
    """Response and resolution in a bin of incident energy (MeV) or angle (rad), low to high.

    `n`: showers in the bin; `response`: mean of visible over incident energy; `resolution`: its
    standard deviation over its mean. Both dimensionless, with errors.
    """

    low: float
    high: float
    n: int
    response: Estimate
    resolution: Estimate


@dataclass(frozen=True)
class ResolutionFit:
    """The usual fit: stochastic term (sqrt(GeV)) and constant term (no unit), chi2 and its ndf."""

    stochastic: Estimate
    constant: Estimate
    chi2: float
    ndf: int


class Responding(Protocol):
    """Showers with incident energies (N,) in MeV and responses (N,) without unit."""

    @property
    def energy(self) -> Array:
        """Incident energies (N,) in MeV."""

    @property
    def response(self) -> Array:
        """Visible over incident energy (N,)."""


def energy_bins(reference: Responding, generated: Responding) -> Bins:
    """Response and resolution of both samples in bins of incident energy (MeV), equal in log10.

    About four bins a decade of the reference's range, fewer if they would hold under 20 showers;
    one bin for a single energy. A bin with under 4 showers of a sample has estimates 0 without
    error: look at its `n`.
    """
    ends = float(reference.energy.min()), float(reference.energy.max())
    edges = energy_edges(*ends, len(reference.energy))
    both = (in_bins(o.energy, o.response, edges) for o in (reference, generated))
    return list(zip(*both, strict=True))


def energy_edges(low: float, high: float, n: int) -> Array:
    """Edges (n_bins + 1,) in MeV, equal in log10, for n showers from low to high."""
    wanted = round(4 * np.log10(high / low)) if high > low else 1
    count = int(np.clip(min(wanted, n // 20), 1, 16))
    return np.geomspace(low, high, count + 1) if high > low else np.array([low, low])


def angle_bins(reference: Observables, generated: Observables) -> Bins:
    """Response and resolution of both samples in up to eight equal bins of theta (rad).

    One bin for a single angle. A spectrum of energies widens the resolution here, in both alike.
    """
    low, high = float(reference.theta.min()), float(reference.theta.max())
    count = int(np.clip(len(reference) // 40, 1, 8)) if high - low > 1e-3 else 1
    edges = np.linspace(low, high, count + 1)
    both = (in_bins(o.theta, o.response, edges) for o in (reference, generated))
    return list(zip(*both, strict=True))


def in_bins(position: Array, response: Array, edges: Array) -> list[ResponseBin]:
    """Response (N,) of showers at energies (MeV) or angles (rad) (N,) in bins of edges (n + 1,)."""
    index = np.clip(np.searchsorted(edges, position, side="right") - 1, 0, len(edges) - 2)
    margin = 1e-6 * np.abs(edges[[0, -1]])
    inside = (position >= edges[0] - margin[0]) & (position <= edges[-1] + margin[1])
    found = []
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        here = response[inside & (index == k)]
        nothing = Estimate(0.0, 0.0)
        pair = (
            (metrics.mean(here), metrics.resolution(here)) if len(here) >= 4 else (nothing, nothing)
        )
        found.append(ResponseBin(float(low), float(high), len(here), *pair))
    return found


def ratio_of_bins(pairs: Bins, kind: str) -> Estimate:
    """Average the ratio of "response" or "resolution", generated over reference, over the bins.

    Bins with under 10 showers of a sample are left out; 1 without error if none is left.
    """
    ratios = [
        metrics.ratio(getattr(generated, kind), getattr(reference, kind))
        for reference, generated in pairs
        if min(reference.n, generated.n) >= MIN_IN_BIN
    ]
    return metrics.weighted_mean(ratios) if ratios else Estimate(1.0, 0.0)


def fit_resolution(bins: Sequence[ResponseBin]) -> ResolutionFit | None:
    """Fit a/sqrt(E) (+) b to bins of incident energy (MeV); None with under three usable bins.

    Least squares in the squares, where the model is a straight line in 1/E (E in GeV, at the
    bin's geometric centre). A term whose square comes out negative is 0, its error what it may be.
    """
    used = [b for b in bins if b.n >= MIN_IN_BIN and b.resolution.error > 0]
    if len(used) < 3:
        return None
    energy = np.array([np.sqrt(b.low * b.high) / 1e3 for b in used])
    value = np.array([b.resolution.value for b in used])
    weight = 1 / (2 * value * np.array([b.resolution.error for b in used]))
    design = np.stack([1 / energy, np.ones_like(energy)], axis=1) * weight[:, None]
    covariance = np.linalg.inv(design.T @ design)
    squares = covariance @ design.T @ (value**2 * weight)
    if squares.min() < 0:  # fit the other term alone
        keep = int(np.argmax(squares))
        column = design[:, keep]
        squares = np.zeros(2)
        squares[keep] = column @ (value**2 * weight) / (column @ column)
    rest = design @ squares - value**2 * weight
    terms = [_root(s, float(np.sqrt(v))) for s, v in zip(squares, np.diag(covariance), strict=True)]
    return ResolutionFit(terms[0], terms[1], float(rest @ rest), len(used) - 2)


def _root(square: float, error: float) -> Estimate:
    """Root of a square with its error; at 0 the error is the root of the square's."""
    root = float(np.sqrt(max(square, 0.0)))
    return Estimate(root, min(error / (2 * root), error**0.5) if root > 0 else error**0.5)
