"""Generated showers against Geant4's, in the numbers of the tables of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from caloforge.evaluate.compare import compare
from caloforge.evaluate.observables import measure
from caloforge.generate import generate_file
from caloforge.learn.models.family import Manner
from caloforge.showers.formats import read_showers

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "AUC": "classifier.auc", "response": "response.ratio", "resolution": "resolution.ratio",
        "hits": "hits.ratio", "depth [mm]": "z_mean.shift", "radius [mm]": "r_mean.shift",
        "depth spread": "z_mean.spread", "cell spectrum": "cell_spectrum.separation",
    }
)  # fmt: skip


def generated(
    model: str | Path, test: Path, floor: Path | None, made: Path, n: int,
    manner: Manner | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Generate the first n primaries of a file and compare; `made` is written and removed.

    Returns value, error, floor and its error of each of `COLUMNS`, and seconds a shower.
    """
    done = generate_file(model, made, like=test, n=n, seed=7, extrapolate=True, manner=manner)
    found = compared(test, made, floor)
    made.unlink()
    return found | {"generate_s": round(done["seconds"] / n, 4)}


def compared(test: Path, made: Path, floor: Path | None) -> dict[str, Any]:
    """Compare showers in the file `made` with those in `test` (and `floor`)."""
    samples = [measure(read_showers(path)) for path in (test, made, *([floor] if floor else []))]
    result = compare(*samples)
    found = {metric.name: metric for metric in result.metrics}
    values: dict[str, Any] = {
        key: [found[key].value, found[key].error, found[key].floor, found[key].floor_error]
        for key in COLUMNS.values()
    }
    return values | {"sample": result.size}


def cells(row: Mapping[str, Any], columns: Sequence[str], floor: bool = False) -> list[str]:
    """Return columns of a row as text: value and error, or those of the floor."""
    return [pair(*row[COLUMNS[c]][2 * floor :][:2], COLUMNS[c]) for c in columns]


def pair(value: float, error: float, key: str) -> str:
    """Return a value with its error, in the digits of its kind."""
    digits = 4 if key.startswith("cell") else 3 if key.startswith(("resp", "hits")) else 2
    return f"{value:.{digits}f} ± {error:.{digits}f}"
