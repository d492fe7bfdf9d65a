"""Reptile against plain pretraining at equal budget: which start learns a detector faster?

    python recipes/reptile.py --data 'data/*.h5' --new NEW.h5 [--out runs/reptile] [--plain RUN]
                              [--steps 300] [-n 100] [--after 10 40]

Trains a `tiny` network with Reptile and, unless `--plain` names one that is there, one without, by
the same recipe; adapts both to the first n showers of a detector that neither has seen, in a few
and in more steps, and prints the losses on showers of it that are not trained on. What is done
already is not done again.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

from caloforge.learn.adapt import adapt
from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train
from caloforge.showers.formats import open_showers, write_showers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--new", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/reptile"))
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--after", type=int, nargs="+", default=[10, 40])
    asked = parser.parse_args()
    recipe = Recipe(
        size="tiny", data=asked.data, batch=64, learning_rate=4e-3, warmup=40, decay=0.5, ema=0.99,
        scale_steps=4000, validate_every=100, steps=asked.steps,
    )  # fmt: skip
    starts = {"plain": asked.plain or asked.out / "plain", "reptile": asked.out / "reptile"}
    for name, run in starts.items():
        if run != asked.plain:
            inner = 5 if name == "reptile" else 0
            train(recipe.model_copy(update={"inner": inner}), run, resume=True)
    print("| start | detector | steps | loss before | after |\n|---|---|---|---|---|")
    for path in asked.new:
        few = asked.out / f"{path.stem}-{asked.n}.h5"
        with closing(open_showers(path)) as source:
            write_showers(source.read(0, asked.n), few)
        for steps in asked.after:
            for name, run in starts.items():
                before, after = losses(run, few, steps, asked.out / f"{name}-{few.stem}-{steps}")
                print(
                    f"| {name} | {path.stem} | {steps} | {before:.4f} | {after:.4f} |", flush=True
                )


def losses(start: Path, few: Path, steps: int, out: Path) -> tuple[float, float]:
    """Loss before and after an adaptation, or what was found before."""
    done = out / "adaptation.json"
    if not done.is_file():
        adapt(start, [few], out, steps=steps, learning_rate=1e-3, guards=[],
              resume=(out / "recipe.json").is_file())  # fmt: skip
    found = json.loads(done.read_text())
    return found["before"], found["after"]


if __name__ == "__main__":
    main()
