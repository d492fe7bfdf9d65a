"""The three samples of a comparison: reference, generated and floor, drawn once for all numbers.

The *floor* is a second Geant4 sample, from its own file, or the reference is cut in two disjoint
halves and generated against one half stands beside one half against the other. Distances take all
three at one size; bootstrap weights (energies in MeV do not enter) are shared by all observables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.evaluate.metrics import resample
from caloforge.evaluate.observables import Observables

__all__ = ["MIN_SHOWERS", "Setting", "Trio", "choose", "draw"]

Array = NDArray[Any]
MIN_SHOWERS = 20


@dataclass(frozen=True, eq=False)
class Trio:
    """Reference, generated and floor samples: of indices, of weights or of values."""

    reference: Array
    generated: Array
    floor: Array

    def pairs(self, weights: Trio) -> Iterator[tuple[Array, Array]]:
        """Yield each sample with its weights, the reference first."""
        yield self.reference, weights.reference
        yield self.generated, weights.generated
        yield self.floor, weights.floor


@dataclass(frozen=True, eq=False)
class Setting:
    """The samples with the indices (n,) drawn for distances and bootstrap weights (B, n).

    `pool` is where the floor comes from: the reference itself, or a file of its own.
    """

    reference: Observables
    generated: Observables
    pool: Observables
    chosen: Trio
    weights: Trio

    @property
    def from_file(self) -> bool:
        """Whether the floor has a file of its own."""
        return self.pool is not self.reference

    @property
    def size(self) -> int:
        """Showers of each sample in a distance."""
        return len(self.chosen.reference)

    def values(self, of: Callable[[Observables], Array]) -> Trio:
        """Values of the chosen showers: `of` gives (N, ...) of each sample's N showers."""
        first = of(self.reference)
        second = of(self.pool) if self.from_file else first
        index = self.chosen
        return Trio(
            first[index.reference], of(self.generated)[index.generated], second[index.floor]
        )

    def floor_pair(self, of: Callable[[Observables], Array]) -> tuple[Array, Array]:
        """Values of the floor and of what it is compared with: all showers if it has a file."""
        if self.from_file:
            return of(self.pool), of(self.reference)
        whole = of(self.reference)
        return whole[self.chosen.floor], whole[self.chosen.reference]


def choose(
    reference: Observables,
    generated: Observables,
    floor: Observables | None,
    seed: int,
    replicas: int,
) -> Setting:
    """Draw the samples by the seed.

    Raises `RequestError` if a sample is too small: 20 showers, the reference 40 to be halved.
    """
    _require(reference, "reference", MIN_SHOWERS if floor is not None else 2 * MIN_SHOWERS)
    _require(generated, "generated", MIN_SHOWERS)
    if floor is not None:
        _require(floor, "floor", MIN_SHOWERS)
    rng = np.random.default_rng(seed)
    chosen = draw(rng, len(reference), len(generated), None if floor is None else len(floor))
    weights = Trio(*(resample(len(chosen.reference), replicas, rng) for _ in range(3)))
    return Setting(reference, generated, reference if floor is None else floor, chosen, weights)


def draw(rng: np.random.Generator, reference: int, generated: int, floor: int | None) -> Trio:
    """Draw indices (n,) of samples of one size from so many showers; halves without a floor."""
    if floor is None:
        order = rng.permutation(reference)
        n = min(reference // 2, generated)
        first, second = order[:n], order[n : 2 * n]
    else:
        n = min(reference, generated, floor)
        first, second = rng.permutation(reference)[:n], rng.permutation(floor)[:n]
    return Trio(first, rng.permutation(generated)[:n], second)


def _require(sample: Observables, name: str, least: int) -> None:
    if len(sample) < least:
        raise RequestError(
            f"the {name} file has {len(sample)} showers, too few to compare; "
            f"give at least {least} (hundreds to see per-cent effects)"
        )
