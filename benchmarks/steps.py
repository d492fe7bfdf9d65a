"""What the steps of the sampler buy: quality and time per shower against their number, in one run.

    python benchmarks/steps.py MODEL GEANT4.h5 [-n SHOWERS] [--steps 4 8 16] [--sampler heun]

Every row generates the same primaries from the same noise; times are relative to the first row.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

from caloforge.evaluate.validation import validate
from caloforge.generate import generate_file
from caloforge.learn.models.family import Manner
from caloforge.showers.formats import read_showers

SHOWN = (
    "classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio", "phi_link.shift",
    "cell_spectrum.separation",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("geant4", type=Path)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--sampler", default=None)
    asked = parser.parse_args()
    print("steps  time  " + "  ".join(f"{name:>26}" for name in SHOWN))
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for steps in asked.steps:
            made = Path(folder) / f"{steps}.h5"
            manner = Manner(steps, asked.sampler)
            done = generate_file(asked.model, made, like=asked.geant4, n=asked.n, manner=manner)
            first = first or done["seconds"]
            reference, generated = read_showers(asked.geant4), read_showers(made)
            with closing(reference), closing(generated):
                record = validate(reference, generated, Path(folder) / "report")
            found = {metric["name"]: metric for metric in record["models"][0]["metrics"]}
            cells = [f"{found[k]['value']:.4f} +- {found[k]['error']:.4f}" for k in SHOWN]
            row = "  ".join(f"{cell:>26}" for cell in cells)
            print(f"{steps:5d}  {done['seconds'] / first:4.2f}  {row}", flush=True)


if __name__ == "__main__":
    main()
