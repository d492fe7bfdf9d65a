"""Put a trained run into the package: weights in half precision, and a card with its validation.

    python recipes/ship.py RUN NAME [--steps K] DETECTOR=GEANT4.h5[,FLOOR.h5] ...

For every detector the model generates showers for the primaries of a file of Geant4 showers that it
has not seen, and the validation's numbers go into the card. A second file, after a comma, is the
floor of the validation.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from caloforge.evaluate.validation import validate
from caloforge.generate import generate_file
from caloforge.learn.card import model_card
from caloforge.learn.checkpoint import load_model, save_model
from caloforge.learn.models.family import Manner
from caloforge.showers.formats import open_showers

WEIGHTS = Path(__file__).parents[1] / "caloforge" / "weights"


def judge(
    model: Path, name: str, geant4: list[Path], steps: int | None, out: Path
) -> tuple[dict[str, Any], float]:
    """Validate a model against Geant4 showers (and a floor); returns the record, ms per shower."""
    made = out / f"{name}.h5"
    summary = generate_file(model, made, like=geant4[0], seed=99, manner=Manner(steps))
    with ExitStack() as stack:
        reference, generated, *floor = (
            stack.enter_context(closing(open_showers(path)))
            for path in (geant4[0], made, *geant4[1:])
        )
        record = validate(reference, generated, out / name, *floor)
    return record, 1000 / summary["showers_per_second"]


def main() -> None:
    """Validate a run, write its card, and put both into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--remark", action="append", default=[])
    parser.add_argument("reference", nargs="+", help="DETECTOR=GEANT4.h5[,FLOOR.h5]")
    asked = parser.parse_args()
    target = WEIGHTS / asked.name
    model = load_model(asked.run)
    save_model(model, target, half=True)
    records, speeds = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for pair in asked.reference:
            detector, path = pair.split("=", 1)
            record, speed = judge(
                target, detector, [Path(p) for p in path.split(",")], asked.steps, Path(folder)
            )
            title = f"{detector}, {record['files'][0]['showers']} showers"
            if asked.steps:
                title += f", {asked.steps} steps"
            records[title] = record
            speeds.append(f"{speed:.0f} ms a shower in {detector}")
    model.notes["speed"] = f"{', '.join(speeds)} ({platform.machine()}, batches of 64)"
    card = model_card(asked.name, model, records, asked.remark)
    save_model(model, target, half=True, card=card)


if __name__ == "__main__":
    main()
