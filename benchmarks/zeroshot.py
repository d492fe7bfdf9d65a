"""Detectors that a model has never seen: how far it is off, against borrowing the nearest it knows.

    python benchmarks/zeroshot.py MODEL unseen/*.h5 --known data/*.h5 [--out table.md]

For each file of Geant4 showers the model generates the same primaries from the detector's text
alone. The baseline is what one does without a model: take Geant4 showers of the nearest trained
detector (smallest distance in descriptors, each in units of its spread over the trained ones), of
the same particle and the nearest energies, cell by cell. Mean response and first moments (in mm)
relative to Geant4's; the error is the statistical one of Geant4's own mean.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from caloforge.detector.descriptors import descriptors
from caloforge.errors import RequestError
from caloforge.evaluate.observables import measure
from caloforge.generate import check_range, generate_file
from caloforge.learn.checkpoint import load_model
from caloforge.learn.models.family import Manner
from caloforge.showers.formats import open_showers, read_showers
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import Primaries

NAMES = ("response", "depth", "radius")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("unseen", type=Path, nargs="+")
    parser.add_argument("--known", type=Path, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("zeroshot.md"))
    asked = parser.parse_args()
    known = {path: described(path) for path in asked.known}
    spread = np.std(list(known.values()), axis=0) + 1e-6
    rows = []
    for path in asked.unseen:
        geant4 = read_showers(path)
        made = asked.out.with_name(f".{path.name}")
        generate_file(asked.model, made, like=path, manner=Manner(asked.steps), extrapolate=True)
        generated = read_showers(made)
        made.unlink()
        here = described(path)
        nearest = min(known, key=lambda k: float(np.abs((known[k] - here) / spread).sum()))
        borrowed = like_energies(read_showers(nearest), geant4)
        truth, error = moments(geant4)
        row = {
            "detector": path.stem + beyond(asked.model, geant4),
            "nearest": nearest.stem,
            "floor": (error / truth).tolist(),
        }
        for name, showers in (("model", generated), ("borrowed", borrowed)):
            value, _ = moments(showers)
            row[name] = (value / truth - 1).tolist()
        rows.append(row)
        print(json.dumps(row), flush=True)
    asked.out.write_text(table(rows), "utf-8")
    print(table(rows))


def described(path: Path) -> np.ndarray:
    source = open_showers(path)
    detector = source.detector
    source.close()
    assert detector is not None
    return descriptors(detector)


def beyond(model: str, geant4: Showers) -> str:
    """Mark a detector that the model refuses without --extrapolate."""
    assert geant4.detector is not None
    try:
        check_range(load_model(model).valid, geant4.detector, Primaries.like(geant4, 0))
    except RequestError:
        return " (outside)"
    return ""


def like_energies(showers: Showers, wanted: Showers) -> Showers:
    """Showers of the same particle whose incident energies are nearest to those of `wanted`."""
    showers = showers[np.flatnonzero(np.isin(showers.pdg, wanted.pdg))]
    order = np.argsort(showers.energy)
    place = np.searchsorted(showers.energy[order], wanted.energy).clip(0, len(order) - 1)
    return showers[order[place]]


def moments(showers: Showers) -> tuple[np.ndarray, np.ndarray]:
    """Mean response, depth and radius (mm), and their statistical errors."""
    seen = measure(showers)
    each = np.stack([seen.response, seen.z_mean, seen.r_mean])
    return each.mean(1), each.std(1) / len(showers) ** 0.5


def table(rows: list[dict]) -> str:
    lines = [
        "| detector | response | depth | radius | borrowed: response | depth | radius |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{100 * v:+.1f} ± {100 * e:.1f}"
            for v, e in zip(row["model"], row["floor"], strict=True)
        ]
        cells += [f"{100 * v:+.1f}" for v in row["borrowed"]]
        lines.append(f"| {row['detector']} | {' | '.join(cells)} |")
    inside = [row for row in rows if not row["detector"].endswith("(outside)")]
    for what, word in ((np.mean, "mean"), (np.median, "median"), (np.max, "largest")):
        both = [what(np.abs([row[k] for row in inside]), axis=0) for k in ("model", "borrowed")]
        cells = [f"{100 * v:.1f}" for v in np.concatenate(both)]
        lines.append(f"| **{word} of the absolute values, inside** | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
