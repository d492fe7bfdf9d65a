r"""How good answers are: resolution and linearity of values, ROC curves of classes, with errors.

Errors are those of a bootstrap over the showers that judge (doi:10.1214/aos/1176344552). Two
methods are compared on the same showers, and the error of their ratio keeps that they are (paired
replicas), which is what makes a difference of one per cent visible.

*Energy*: mean and relative standard deviation of :math:`E_{reco}/E` in bins of the true energy, the
fit :math:`a/\sqrt E \oplus b`, and one number, the *scaled resolution*: standard deviation of
:math:`(E_{reco}/E - 1) \sqrt{E/\mathrm{GeV}}`. *Theta*: standard deviation of the difference and
its mean, in rad, and the share of the variance that is explained. *Classes*: accuracy; and for
every pair the area under the ROC curve, and the rejection (one over the share of the other class
that passes) at 90 % efficiency.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.metrics import Estimate, resample
from caloforge.evaluate.resolution import (
    ResponseBin,
    energy_edges,
    fit_resolution,
    in_bins,
)
from caloforge.tasks.question import Question

__all__ = ["Roc", "compared", "energy_rows", "roc_of", "score", "summary"]

Array = NDArray[Any]
REPLICAS = 200
EFFICIENCY = 0.9


def score(question: Question, out: Array, target: Array, energy: Array, seed: int = 0
          ) -> dict[str, Any]:  # fmt: skip
    """Everything that is said of outputs (N, K) for targets (N,) of showers of energy (N,) in MeV.

    Plain values for JSON; a number with an error is {"value", "error"}.
    """
    if question.classes:
        return _score_classes(question, out, target, seed)
    value = out[:, 0]
    if question.name == "energy":
        return _score_energy(np.exp(value), energy, seed)
    return _score_angle(value, target, energy, seed)


def summary(question: Question, out: Array, target: Array, energy: Array) -> Array:
    """What replicas of one number are made of, (N,): see `headline`; no unit, or rad."""
    if question.classes:
        return np.asarray((out.argmax(axis=1) == target).astype(float))
    if question.name == "energy":
        return np.asarray((np.exp(out[:, 0]) / energy - 1) * np.sqrt(energy / 1e3))
    return np.asarray(out[:, 0] - target)


def headline(question: Question, parts: Array, weight: Array) -> Array:
    """The one number (B,) from `summary` (N,) and weights (B, N): accuracy, else a spread."""
    share = weight / weight.sum(axis=1, keepdims=True)
    mean = share @ parts
    return np.asarray(mean if question.classes else np.sqrt(share @ parts**2 - mean**2))


def compared(question: Question, one: Array, other: Array, seed: int = 0) -> Estimate:
    """Ratio of the headlines of two methods from their `summary` (N,) of the same showers."""
    weight = resample(len(one), REPLICAS, np.random.default_rng(seed)).astype(float)
    whole = np.ones((1, len(one)))
    ratio, replicas = (
        headline(question, one, w) / headline(question, other, w) for w in (whole, weight)
    )
    return Estimate.of(float(ratio[0]), replicas)


def _headline(question: Question, parts: Array, seed: int) -> dict[str, float]:
    weight = resample(len(parts), REPLICAS, np.random.default_rng(seed)).astype(float)
    value = float(headline(question, parts, np.ones((1, len(parts))))[0])
    return asdict(Estimate.of(value, headline(question, parts, weight)))


# --- values -------------------------------------------------------------------------------------


def energy_rows(found: Array, energy: Array) -> list[ResponseBin]:
    """Linearity and resolution of found energies (N,) in bins of the true ones (N,), all in MeV."""
    edges = energy_edges(float(energy.min()), float(energy.max()), len(energy))
    return in_bins(energy, found / energy, edges)


def _score_energy(found: Array, energy: Array, seed: int) -> dict[str, Any]:
    bins = energy_rows(found, energy)
    fit = fit_resolution(bins)
    parts = (found / energy - 1) * np.sqrt(energy / 1e3)
    used = [b for b in bins if b.n >= 10 and b.response.error > 0]
    worst = max(used, key=lambda b: abs(b.response.value - 1), default=None)
    return {
        "scaled_resolution": _headline(Question("energy"), parts, seed),
        "fit": None if fit is None else asdict(fit),
        "worst_linearity": None if worst is None else asdict(worst.response),
        "bins": [asdict(b) for b in bins],
    }


def _score_angle(found: Array, theta: Array, energy: Array, seed: int) -> dict[str, Any]:
    away = found - theta
    edges = energy_edges(float(energy.min()), float(energy.max()), len(energy))
    bins = []
    for row, low, high in _within(energy, edges):
        if len(row) >= 4:
            spread = _headline(Question("theta"), away[row], seed)
            bias = Estimate(float(away[row].mean()), spread["value"] / len(row) ** 0.5)
            bins.append({"low": low, "high": high, "n": len(row), "spread": spread,
                         "bias": asdict(bias)})  # fmt: skip
    total = float(np.var(theta))
    return {
        "resolution_rad": _headline(Question("theta"), away, seed),
        "bias_rad": float(away.mean()),
        "explained": 1 - float(np.mean(away**2)) / total if total > 0 else 0.0,
        "bins": bins,
    }


def _within(energy: Array, edges: Array) -> list[tuple[Array, float, float]]:
    place = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, len(edges) - 2)
    return [
        (np.flatnonzero(place == k), float(low), float(high))
        for k, (low, high) in enumerate(itertools.pairwise(edges))
    ]


# --- classes ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Roc:
    """How one class is told from another: efficiency and false-positive share (M,), both growing,
    the area under the curve, and the share of the other that passes at 90 % efficiency.
    """

    signal: str
    background: str
    efficiency: Array
    passing: Array
    area: Estimate
    passed: Estimate
    showers: int

    @property
    def rejection(self) -> Estimate | None:
        """One over the share that passes; none if none passed."""
        if self.passed.value <= 0:
            return None
        return Estimate(1 / self.passed.value, self.passed.error / self.passed.value**2)


def roc_of(signal: Array, background: Array, names: tuple[str, str], seed: int = 0) -> Roc:
    """ROC curve of scores (n,) and (m,) that are higher for the signal; no unit."""
    rng = np.random.default_rng(seed)
    s, b = np.sort(signal), np.sort(background)
    replicas = []
    for _ in range(REPLICAS):
        one, other = (rng.choice(x, len(x)) for x in (s, b))
        replicas.append((_area(one, other), _passed(one, other)))
    areas, passed = np.array(replicas).T
    # No shower passed: the error is what would have let one pass.
    error = max(float(passed.std(ddof=1)), 1 / len(b))
    cuts = np.quantile(s, np.linspace(0, 1, 201))[::-1]
    return Roc(
        *names,
        efficiency=np.array([(s >= c).mean() for c in cuts]),
        passing=np.array([(b >= c).mean() for c in cuts]),
        area=Estimate.of(_area(s, b), areas), passed=Estimate(_passed(s, b), error),
        showers=len(b),
    )  # fmt: skip


def _area(signal: Array, background: Array) -> float:
    """Share of pairs in which the signal scores higher, ties by half."""
    order = np.sort(background)
    below = np.searchsorted(order, signal, side="left")
    equal = np.searchsorted(order, signal, side="right") - below
    return float((below + equal / 2).mean() / len(order))


def _passed(signal: Array, background: Array) -> float:
    cut = np.quantile(signal, 1 - EFFICIENCY)
    return float((background >= cut).mean())


def _score_classes(question: Question, out: Array, target: Array, seed: int) -> dict[str, Any]:
    names = question.classes
    table = [
        [float((out[target == i].argmax(axis=1) == j).mean()) for j in range(len(names))]
        for i in range(len(names))
    ]
    right = (out.argmax(axis=1) == target).astype(float)
    return {
        "accuracy": _headline(question, right, seed),
        "table": table,
        "pairs": [_plain(roc) for roc in pairs(question, out, target, seed)],
    }


def pairs(question: Question, out: Array, target: Array, seed: int = 0) -> list[Roc]:
    """A ROC curve of every pair of classes, from outputs (N, K) and targets (N,); no unit."""
    names = question.classes
    found = []
    for i, j in itertools.combinations(range(len(names)), 2):
        score = out[:, i] - out[:, j]
        found.append(roc_of(score[target == i], score[target == j], (names[i], names[j]), seed))
    return found


def _plain(roc: Roc) -> dict[str, Any]:
    rejection = roc.rejection
    return {
        "signal": roc.signal, "background": roc.background, "auc": asdict(roc.area),
        "passed_at_90": asdict(roc.passed),
        "rejection_at_90": None if rejection is None else asdict(rejection),
        "showers": roc.showers,
    }  # fmt: skip
