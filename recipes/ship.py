"""Put a trained run into the package: weights in half precision, and a card with its validation.

    python recipes/ship.py RUN NAME [--steps K] DETECTOR=GEANT4.h5 ...

For every detector the model generates showers for the primaries of a file of Geant4 showers that it
has not seen, and the validation's numbers go into the card.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from caloforge.evaluate.report import validate
from caloforge.generate import STEPS, generate_file
from caloforge.learn.card import model_card
from caloforge.learn.checkpoint import load_model, save_model
from caloforge.showers.formats import open_showers

WEIGHTS = Path(__file__).parents[1] / "caloforge" / "weights"


def judge(
    model: Path, name: str, geant4: Path, steps: int, out: Path
) -> tuple[dict[str, Any], float]:
    """Validate a model against a file of Geant4 showers; returns the record and ms per shower."""
    made = out / f"{name}.h5"
    summary = generate_file(model, made, like=geant4, seed=99, steps=steps)
    with closing(open_showers(geant4)) as reference, closing(open_showers(made)) as generated:
        record = validate(reference, generated, out / name)
    return record, 1000 / summary["showers_per_second"]


def main() -> None:
    """Validate a run, write its card, and put both into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--remark", action="append", default=[])
    parser.add_argument("reference", nargs="+", help="DETECTOR=GEANT4.h5")
    asked = parser.parse_args()
    target = WEIGHTS / asked.name
    model = load_model(asked.run)
    save_model(model, target, half=True)
    records, speeds = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for pair in asked.reference:
            detector, path = pair.split("=", 1)
            record, speed = judge(target, detector, Path(path), asked.steps, Path(folder))
            title = f"{detector}, {record['files'][0]['showers']} showers, {asked.steps} steps"
            records[title] = record
            speeds.append(f"{speed:.0f} ms a shower in {detector}")
    model.notes["speed"] = f"{', '.join(speeds)} ({platform.machine()}, batches of 64)"
    card = model_card(asked.name, model, records, asked.remark)
    save_model(model, target, half=True, card=card)


if __name__ == "__main__":
    main()
