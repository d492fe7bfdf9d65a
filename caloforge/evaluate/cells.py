"""Every observable again, in ranges of incident energy and angle.

A fault that cancels in the whole, or that few showers have, shows in its range. The ranges are the
cells of the map of trust (energies in MeV, angles in rad); in each the showers of all samples are
compared as the whole samples were, with their own floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caloforge.evaluate.compare import MIN_SHOWERS, compare
from caloforge.evaluate.metric import Metric
from caloforge.evaluate.observables import Observables
from caloforge.evaluate.trust import Cell, in_range

__all__ = ["CellMetrics", "in_cells", "worst_by_observable"]

_REPLICAS = 60  # enough for an error of a tenth of itself


@dataclass(frozen=True)
class CellMetrics:
    """The numbers of one range of energy (MeV) and angle (rad); none where showers are too few."""

    energy: tuple[float, float]
    theta: tuple[float, float]
    metrics: list[Metric]


def in_cells(
    reference: Observables,
    generated: Observables,
    floor: Observables | None,
    cells: Sequence[Cell],
    seed: int,
) -> list[CellMetrics]:
    """Compare all samples in every cell (MeV, rad); `floor` as for `compare`."""
    found = []
    for cell in cells:
        parts = [_inside(o, cell) if o is not None else None for o in (reference, generated, floor)]
        first, second, third = parts
        assert first is not None and second is not None
        least = 2 * MIN_SHOWERS if third is None else MIN_SHOWERS
        small = len(first) < least or len(second) < MIN_SHOWERS
        if small or (third is not None and len(third) < MIN_SHOWERS):
            found.append(CellMetrics(cell.energy, cell.theta, []))
            continue
        comparison = compare(first, second, third, seed=seed, replicas=_REPLICAS, trees=False)
        found.append(CellMetrics(cell.energy, cell.theta, comparison.metrics))
    return found


def _inside(sample: Observables, cell: Cell) -> Observables:
    return sample.select(in_range(sample, cell.energy, cell.theta))


def worst_by_observable(cells: Sequence[CellMetrics]) -> dict[str, list[Metric | None]]:
    """For every observable its most significant number in each cell; None without numbers."""
    names = dict.fromkeys(m.observable for cell in cells for m in cell.metrics)
    table: dict[str, list[Metric | None]] = {}
    for name in names:
        rows = [[m for m in cell.metrics if m.observable == name] for cell in cells]
        table[name] = [max(row, key=lambda m: m.size) if row else None for row in rows]
    return table
