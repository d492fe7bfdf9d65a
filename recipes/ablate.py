"""The ablations of docs/foundation.md: one choice changed at a time, at equal data and steps.

    python recipes/ablate.py --out runs/ablation [--steps 300] [-n 300] [--only NAME ...]

Trains each variant of `BASE`, generates the primaries of the reference and of detectors that were
never trained on, and prints one row: how well the feature classifier tells it from Geant4, what
collective quantities do, how far the response is off in unseen detectors, and what it cost. What is
done already is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.evaluate.observables import measure
from caloforge.evaluate.validation import validate
from caloforge.generate import generate_file
from caloforge.learn.models import diffusion
from caloforge.learn.models.family import Manner
from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers

BASE: dict[str, Any] = dict(
    size="tiny", batch=64, learning_rate=4e-3, warmup=40, decay=0.5, ema=0.99, scale_steps=4000,
    validate_every=100,
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "plain voxels": dict(plain=True),
    "no sketch": {},
    "one-hot": dict(geometry="onehot"),
    "masked 25 %": dict(masked=0.25),
    "masked 50 %": dict(masked=0.5),
    "edm": dict(process="edm"),
    "ddpm-400": dict(process="ddpm"),
    "learned positions": dict(positions="learned"),
    "slides": dict(size="slides", process="ddpm", head="noise", plain=True, geometry="onehot",
                   learning_rate=1e-3),
}  # fmt: skip
METRICS = ("classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio", "phi_cos.spread",
           "hits.spread", "cell_spectrum.separation")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["data/*.h5"])
    parser.add_argument("--reference", type=Path, default=Path("caloforge/reference/par04-siw.h5"))
    parser.add_argument("--unseen", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    asked = parser.parse_args()
    rows = {}
    for name in asked.only:
        rows[name] = measured(name, asked)
        print(name, json.dumps(rows[name]), flush=True)
    print(table(rows))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows as a table in Markdown; `unseen`: mean errors of response, depth and radius in %."""
    lines = [
        "| variant | steps | seconds | AUC | response | resolution | hits | fluctuations of hits | "
        "of the dipole | cell spectrum | unseen: response, depth, radius [%] |",
        "|---" * 11 + "|",
    ]
    for name, row in rows.items():
        cells = [name, str(row["steps"]), str(row["train_s"])]
        for key in (*METRICS[:4], "hits.spread", "phi_cos.spread", METRICS[-1]):
            digits = 4 if key.startswith("cell") else 3 if key.startswith("response") else 2
            cells.append(f"{row[key][0]:.{digits}f} ± {row[key][1]:.{digits}f}")
        away = [row.get(f"unseen_{k}") for k in ("response", "depth", "radius")]
        cells.append(", ".join("-" if v is None else f"{100 * v:.1f}" for v in away))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train, generate and judge one variant, or read what was found before."""
    out = asked.out / name.replace(" ", "-").replace("%", "percent")
    if (out / "row.json").exists():
        return dict(json.loads((out / "row.json").read_text()))
    recipe = Recipe(data=asked.data, steps=asked.steps, **(BASE | VARIANTS[name]))
    with without_sketch(name == "no sketch"):
        summary = train(recipe, out, resume=True)
    made = out / "showers.h5"
    done = generate_file(out, made, like=asked.reference, n=asked.n)
    with closing(read_showers(asked.reference)) as ref, closing(read_showers(made)) as generated:
        record = validate(ref, generated, out / "report")
    found = {metric["name"]: metric for metric in record["models"][0]["metrics"]}
    row: dict[str, Any] = {k: [found[k]["value"], found[k]["error"]] for k in METRICS if k in found}
    row |= {"steps": summary.step, "train_s": round(summary.seconds), "loss": summary.loss,
            "generate_s": round(done["seconds"] / asked.n, 4)}  # fmt: skip
    row |= unseen(out, asked.unseen)
    (out / "row.json").write_text(json.dumps(row))
    return row


def unseen(model: Path, files: list[Path]) -> dict[str, float]:
    """Mean absolute errors of response, depth and radius, relative, in detectors never seen."""
    errors = []
    for path in files:
        made = model / f"unseen-{path.name}"
        generate_file(model, made, like=path, manner=Manner(8, "heun"), extrapolate=True)
        with closing(read_showers(path)) as ref, closing(read_showers(made)) as generated:
            ours, theirs = (_moments(s) for s in (generated, ref))
        errors.append(np.abs(ours / theirs - 1))
        made.unlink()
    if not errors:
        return {}
    mean = np.mean(errors, axis=0)
    return dict(
        zip(("unseen_response", "unseen_depth", "unseen_radius"), mean.tolist(), strict=True)
    )


def _moments(showers: Any) -> np.ndarray:
    seen = measure(showers)
    return np.array([seen.response.mean(), seen.z_mean.mean(), seen.r_mean.mean()])


@contextmanager
def without_sketch(wanted: bool) -> Iterator[None]:
    """Make the sketch a single coarse cell, which says no more than the total."""
    before = diffusion.SKETCH
    if wanted:
        diffusion.SKETCH = (10**6, 10**6, 10**6)
    try:
        yield
    finally:
        diffusion.SKETCH = before


if __name__ == "__main__":
    main()
