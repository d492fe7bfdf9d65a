"""The map of trust: where in incident energy and angle a generated sample may be used.

The plane of log energy (MeV) and polar angle (rad) is cut into cells. In each, and in all
together, a few differences that a physicist would forgive up to a point are held against their
tolerance, at 95 % confidence both ways: *yes*, it agrees within the tolerance; *no*, it does not;
or *open*, there are too few showers to tell. That a difference was not seen is not enough for a
yes: it must have been shown to be small (D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987)
657, doi:10.1007/BF01068419).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.evaluate.differences import Trend
from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.observables import QUANTITIES, Observables
from caloforge.evaluate.resolution import energy_edges, in_bins, ratio_of_bins
from caloforge.evaluate.samples import Setting

__all__ = ["TOLERANCES", "Cell", "Check", "TrustMap", "chart", "in_range", "tolerances"]

Array = NDArray[Any]
# Largest relative difference to Geant4 that is forgiven, no unit.
TOLERANCES: Mapping[str, float] = MappingProxyType(
    {"response": 0.01, "resolution": 0.10, "hits": 0.03, "z_mean": 0.02, "r_mean": 0.02,
     "z_width": 0.03, "r_width": 0.03}
)  # fmt: skip
_TITLES = {"response": "mean response", "resolution": "energy resolution"}
_SURE = 1.645  # standard deviations of a one-sided 95 %
_LEAST = 30  # showers of each sample in a cell
_CELLS = (4, 3)  # in energy and in angle, where there are showers enough


@dataclass(frozen=True)
class Check:
    """One difference against its tolerance: relative to Geant4, no unit.

    `answer`: "yes" (within, at 95 %), "no" (beyond, at 95 %) or "open"; `floor`: the same
    difference between two Geant4 samples.
    """

    name: str
    title: str
    difference: float
    error: float
    floor: float
    floor_error: float
    tolerance: float
    answer: str


@dataclass(frozen=True)
class Cell:
    """A range of incident energy (MeV) and polar angle (rad) with its checks and their answer.

    `n`: showers of reference and generated; `answer`: the worst of the checks, or "open".
    """

    energy: tuple[float, float]
    theta: tuple[float, float]
    n: tuple[int, int]
    checks: list[Check]
    answer: str


@dataclass(frozen=True)
class TrustMap:
    """All cells, energy fastest, and one cell for everything together; energies in MeV."""

    cells: list[Cell]
    whole: Cell
    shape: tuple[int, int]


def tolerances(changes: Sequence[str] = ()) -> dict[str, float]:
    """Return the tolerances with changes such as ``response=0.005`` (relative, no unit).

    Raises `RequestError` for an unknown name or a value that is not above 0.
    """
    found = dict(TOLERANCES)
    for text in changes:
        name, _, value = text.partition("=")
        if name.strip() not in found:
            raise RequestError(f"no tolerance is called '{name}'; known: {', '.join(found)}")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = float("nan")
        if not found[name.strip()] > 0:
            raise RequestError(f"tolerance '{text}': give a relative difference above 0")
    return found


def chart(setting: Setting, allowed: Mapping[str, float] = TOLERANCES) -> TrustMap:
    """Draw the map of trust of a generated sample; `allowed` as `TOLERANCES` (no unit)."""
    trends = {
        name: Trend(setting.reference, QUANTITIES[name])
        for name in allowed
        if name in QUANTITIES and name not in _TITLES
    }
    judge = _Judge(setting, trends, allowed)
    energies, angles = _edges(setting.reference)
    cells = [
        judge.cell((e0, e1), (t0, t1))
        for t0, t1 in itertools.pairwise(angles)
        for e0, e1 in itertools.pairwise(energies)
    ]
    whole = judge.cell((energies[0], energies[-1]), (angles[0], angles[-1]))
    return TrustMap(cells, whole, (len(angles) - 1, len(energies) - 1))


def _edges(reference: Observables) -> tuple[list[float], list[float]]:
    """Edges in energy (MeV, equal in log) and theta (rad): cells of 40 showers at least."""
    energy, theta = reference.energy, reference.theta
    low, high = float(energy.min()), float(energy.max())
    first, last = float(theta.min()), float(theta.max())
    most = max(1, len(reference) // 40)
    n_energy = min(_CELLS[0], most) if high > low * 1.2 else 1
    n_theta = min(_CELLS[1], max(1, most // n_energy)) if last - first > 0.05 else 1
    energies = [float(e) for e in np.geomspace(low, high, n_energy + 1)]
    return energies, [float(t) for t in np.linspace(first, last, n_theta + 1)]


def in_range(sample: Observables, energy: tuple[float, float], theta: tuple[float, float]) -> Array:
    """Which of N showers lie in a range of energy (MeV) and angle (rad), ends included: (N,)."""
    e, t = sample.energy, sample.theta
    of_energy = (e >= energy[0] * (1 - 1e-6)) & (e <= energy[1] * (1 + 1e-6))
    return np.asarray(of_energy & (t >= theta[0] - 1e-6) & (t <= theta[1] + 1e-6))


class _Judge:
    """Residuals of all samples, ready to be looked at in any cell."""

    def __init__(
        self, setting: Setting, trends: Mapping[str, Trend], allowed: Mapping[str, float]
    ) -> None:
        self.setting, self.allowed, self.trends = setting, allowed, trends
        index = setting.chosen
        halves = {} if setting.from_file else {"reference": index.reference, "floor": index.floor}
        self.parts = {
            "generated": (setting.generated, slice(None)),
            "whole": (setting.reference, slice(None)),
            "reference": (setting.reference, halves.get("reference", slice(None))),
            "floor": (setting.pool, halves.get("floor", slice(None))),
        }
        self.residuals = {
            part: {name: trend.residual(obs)[rows] for name, trend in trends.items()}
            for part, (obs, rows) in self.parts.items()
        }

    def _inside(self, part: str, energy: tuple[float, float], theta: tuple[float, float]) -> Array:
        obs, rows = self.parts[part]
        return in_range(obs, energy, theta)[rows]

    def cell(self, energy: tuple[float, float], theta: tuple[float, float]) -> Cell:
        """Check everything in one range of energy (MeV) and angle (rad)."""
        inside = {part: self._inside(part, energy, theta) for part in self.parts}
        n = int(inside["whole"].sum()), int(inside["generated"].sum())
        if min(n) < _LEAST:
            return Cell(energy, theta, n, [], "open")
        checks = [self._check(name, limit, inside) for name, limit in self.allowed.items()]
        answers = {check.answer for check in checks}
        answer = next((a for a in ("no", "open") if a in answers), "yes")
        return Cell(energy, theta, n, checks, answer)

    def _check(self, name: str, limit: float, inside: Mapping[str, Array]) -> Check:
        value = self._relative(name, "generated", "whole", inside)
        enough = min(int(inside[part].sum()) for part in ("floor", "reference")) >= 4
        floor = self._relative(name, "floor", "reference", inside) if enough else Estimate(0.0, 0.0)
        title = _TITLES.get(name) or QUANTITIES[name].title.lower()
        return Check(
            name, title, value.value, value.error, floor.value, floor.error, limit,
            _answer(value, limit),
        )  # fmt: skip

    def _relative(
        self, name: str, first: str, second: str, inside: Mapping[str, Array]
    ) -> Estimate:
        """Relative difference of the mean (for the resolution: of the spread), no unit."""
        if name in _TITLES:
            return self._in_bins(name, first, second, inside)
        a, b = (self.residuals[part][name][inside[part]] for part in (first, second))
        trend = self.trends[name]
        if trend.relative:
            ratio = trend.difference(a, b)
            return Estimate(ratio.value - 1, ratio.error)
        shift = trend.difference(a, b)
        obs, rows = self.parts[second]
        scale = float(np.mean(trend.quantity.of(obs)[rows][inside[second]]))
        return Estimate(shift.value / scale, shift.error / abs(scale)) if scale else shift

    def _in_bins(self, name: str, first: str, second: str, inside: Mapping[str, Array]) -> Estimate:
        """Response or resolution as it is quoted elsewhere: the mean ratio in bins of energy."""
        samples = []
        for part in (second, first):
            obs, rows = self.parts[part]
            samples.append((obs.energy[rows][inside[part]], obs.response[rows][inside[part]]))
        energy = samples[0][0]
        edges = energy_edges(float(energy.min()), float(energy.max()), len(energy))
        both = (in_bins(*sample, edges) for sample in samples)
        ratio = ratio_of_bins(list(zip(*both, strict=True)), name)
        return Estimate(ratio.value - 1, ratio.error)


def _answer(value: Estimate, limit: float) -> str:
    """Yes if surely within the limit, no if surely beyond it, else open."""
    if value.error <= 0:
        return "open"  # nothing was measured
    size = abs(value.value)
    if size + _SURE * value.error <= limit:
        return "yes"
    return "no" if size - _SURE * value.error > limit else "open"
