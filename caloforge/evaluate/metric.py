"""One number of a comparison, with all that a reader or a machine needs to judge it.

A distance between finite samples is never 0, so it is judged beside its floor, the same distance of
Geant4 to itself; a difference whose value is known for equal laws (a ratio of 1, a shift of 0) is
judged by its own error. How far a number lies beyond what Geant4 does to itself is given in
standard deviations. Each number carries its unit, MeV, mm, rad or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.metrics import Estimate, deviation

__all__ = ["Key", "Metric", "against_ideal", "beside_floor", "beside_replicas"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Key:
    """What a number is of: observable, title, kind and unit ("1" where there is none).

    `name` is ``observable.kind`` unless the last part is told by `suffix`.
    """

    observable: str
    title: str
    kind: str
    unit: str = "1"
    suffix: str = ""

    @property
    def name(self) -> str:
        """Name in ``metrics.json``."""
        return f"{self.observable}.{self.suffix or self.kind}"


@dataclass(frozen=True)
class Metric:
    """One number of the comparison.

    `value`, `error`, `floor`, `floor_error` are in `unit` ("1" where there is none); `kind` is
    separation, wasserstein, distance, score, classifier, difference, spread or tail; `sigmas` is
    how far the value lies beyond what Geant4 does to itself, in standard deviations (|sigmas| <=
    999): for a distance (value - floor) over both errors, where `ideal` is not None (value - ideal)
    over the error. `matched`: the value at the size of the floor's samples, where `value` is that
    of whole files; it is then `matched` that is judged.
    """

    name: str
    observable: str
    title: str
    kind: str
    unit: str
    value: float
    error: float
    floor: float
    floor_error: float
    ideal: float | None
    sigmas: float
    definition: str
    matched: float | None = None

    @property
    def size(self) -> float:
        """How far beyond the floor, in standard deviations: both ways for all but distances."""
        one_way = self.ideal is None and self.kind != "score"
        return self.sigmas if one_way else abs(self.sigmas)


def beside_floor(
    key: Key,
    value: Estimate,
    floor: Estimate,
    text: str,
    *,
    matched: Estimate | None = None,
) -> Metric:
    """Make the metric of a distance, in the unit of its key, judged by its excess over the floor.

    `matched`: the value at the floor's size.
    """
    judged = value if matched is None else matched
    excess = judged.value - floor.value
    sigmas = deviation(excess, float(np.hypot(judged.error, floor.error)))
    return Metric(
        key.name, key.observable, key.title, key.kind, key.unit, value.value, value.error,
        floor.value, floor.error, None, sigmas, text,
        None if matched is None else matched.value,
    )  # fmt: skip


def beside_replicas(key: Key, value: Array, floor: Array, text: str) -> Metric:
    """Make a distance's metric from arrays (1 + B,), in its unit: the value, then its replicas."""
    here, there = (Estimate.of(row[0], row[1:]) for row in (value, floor))
    return beside_floor(key, here, there, text)


def against_ideal(key: Key, value: Estimate, floor: Estimate, ideal: float, text: str) -> Metric:
    """Make the metric of a difference, in its unit, that equal laws would bring to `ideal`."""
    sigmas = deviation(value.value - ideal, value.error)
    return Metric(
        key.name, key.observable, key.title, key.kind, key.unit, value.value, value.error,
        floor.value, floor.error, ideal, sigmas, text,
    )  # fmt: skip
