"""Fast against full: the total visible energy of the same events, and the time they took.

Both runs shoot the same primaries. Events in which the model had no part are the same bit for bit
(their seeds are, and Geant4 alone makes them), so agreement is measured over those in which it had:
everything else would flatter it. Errors are of the bootstrap over events (Efron, doi:10.1214/aos/
1176344552), both samples drawn together because the energies of the primaries are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.metrics import Estimate, resample
from caloforge.showers.native import ShowerSource, blocks
from caloforge.showers.showers import Showers

__all__ = ["Totals", "agreement", "ratio", "totals"]

Floats = NDArray[np.float64]

REPLICAS = 1000
FEWEST = 10  # events for a ratio


@dataclass(frozen=True, eq=False)
class Totals:
    """N events of both runs: incident energy, visible energy in the mesh and outside it, MeV.

    incident (N,), pdg (N,), fast (N,), full (N,), fast_leakage (N,), full_leakage (N,); `differ`
    (N,): whether the two showers of an event differ in any deposit.
    """

    incident: Floats
    pdg: NDArray[np.int32]
    fast: Floats
    full: Floats
    fast_leakage: Floats
    full_leakage: Floats
    differ: NDArray[np.bool_]


def totals(fast: ShowerSource, full: ShowerSource) -> Totals:
    """Read two runs of the same N events, energies in MeV.

    Raises `ValueError` if they are not of the same events.
    """
    columns = [_columns(a, b) for a, b in zip(blocks(fast), blocks(full), strict=True)]
    return Totals(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def _columns(fast: Showers, full: Showers) -> tuple[NDArray[Any], ...]:
    if not np.array_equal(fast.seed, full.seed):
        raise ValueError("the two runs are not of the same events")
    return (
        full.energy.astype(np.float64), full.pdg, fast.visible(), full.visible(),
        fast.leakage.astype(np.float64), full.leakage.astype(np.float64), _differ(fast, full),
    )  # fmt: skip


def _differ(fast: Showers, full: Showers) -> NDArray[np.bool_]:
    found = (np.diff(fast.offsets) != np.diff(full.offsets)) | (fast.leakage != full.leakage)
    for i in np.flatnonzero(~found):
        a, b = (slice(*s.offsets[i : i + 2]) for s in (fast, full))
        same = np.array_equal(fast.cell[a], full.cell[b])
        found[i] = not (same and np.array_equal(fast.deposit[a], full.deposit[b]))
    return np.asarray(found, dtype=np.bool_)


def agreement(found: Totals, seed: int = 0) -> dict[str, Any]:
    """Ratios fast over full of the N events that differ, as plain values with errors, no unit.

    ``mean``: of the visible energy per event; ``spread``: of its response, visible over incident,
    as standard deviations; ``with_leakage``: of the mean with what is outside the mesh. None where
    there are too few events. ``by_particle``: ``mean`` of each kind of primary, by PDG code.
    """
    chosen = found.differ
    kinds = {
        str(code): _mean_of(found, chosen & (found.pdg == code), seed)
        for code in np.unique(found.pdg).tolist()
    }
    if chosen.sum() < FEWEST:
        return {"mean": None, "spread": None, "with_leakage": None, "by_particle": kinds}
    energy, fast, full = (a[chosen] for a in (found.incident, found.fast, found.full))
    all_fast, all_full = fast + found.fast_leakage[chosen], full + found.full_leakage[chosen]
    weights = resample(len(energy), REPLICAS, np.random.default_rng(seed)).astype(np.float64)
    return {
        "mean": _plain(weights, _mean_ratio, fast, full),
        "spread": _plain(weights, _spread_ratio, fast / energy, full / energy),
        "with_leakage": _plain(weights, _mean_ratio, all_fast, all_full),
        "by_particle": kinds,
    }


def _mean_of(found: Totals, chosen: NDArray[np.bool_], seed: int) -> dict[str, float] | None:
    n = int(chosen.sum())
    if n < FEWEST:
        return None
    weights = resample(n, REPLICAS, np.random.default_rng(seed)).astype(np.float64)
    return {"events": n, **_plain(weights, _mean_ratio, found.fast[chosen], found.full[chosen])}


def _plain(
    weights: Floats, ratios: Callable[[Floats, Floats, Floats], Floats], a: Floats, b: Floats
) -> dict[str, float]:
    best = ratios(np.ones((1, len(a))), a, b)[0]
    found = Estimate.of(float(best), ratios(weights, a, b))
    return {"value": found.value, "error": found.error}


def _mean_ratio(weights: Floats, fast: Floats, full: Floats) -> Floats:
    return np.asarray(weights @ fast / (weights @ full))


def _spread_ratio(weights: Floats, fast: Floats, full: Floats) -> Floats:
    def spread(values: Floats) -> Floats:
        total = weights.sum(1)
        mean = weights @ values / total
        return np.asarray(np.sqrt(weights @ values**2 / total - mean**2))

    return np.asarray(spread(fast) / spread(full))


def ratio(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """First over second, each a ``value`` with its ``error`` in one unit, errors independent."""
    value = first["value"] / second["value"]
    relative = np.hypot(first["error"] / first["value"], second["error"] / second["value"])
    return {"value": value, "error": float(value * relative)}
