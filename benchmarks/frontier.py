"""Accuracy against time on one core: every model, at every number of steps, in one plot.

    python benchmarks/frontier.py GEANT4.h5 --floor OTHER.h5 --models student:1 student:2 codes:1 \
        codes:4 [--out frontier.json] [--plot frontier.png]

MODEL[:STEPS] is exported to ONNX for the detector of the file and timed with ONNX Runtime on one
core, one shower at a time and in batches of ten (`benchmarks/latency.py`), beside Geant4 in the
same run; its AUC is that of the trees of the validation for showers of the primaries in the file.
Every point is kept in the JSON file as soon as it is measured, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from latency import apart

from caloforge.deploy.export import export
from caloforge.evaluate.validation import validate
from caloforge.files import atomic_path
from caloforge.generate import generate_file
from caloforge.learn.checkpoint import load_model
from caloforge.learn.models.family import Manner
from caloforge.showers.formats import open_showers


def point(
    model: str, steps: int | None, geant4: Path, floor: Path, detector: str
) -> dict[str, Any]:
    """AUC of a model at a number of steps, its own if None, and milliseconds a shower."""
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder) / "model.onnx", Path(folder) / "made.h5"
        written = export(model, file, detector=detector, steps=steps)
        how = argparse.Namespace(model=model, detector=detector, steps=steps, n=100)
        ms = apart(how, "onnx", 1, file)["ms"]
        generate_file(model, made, like=geant4, seed=3, manner=Manner(steps))
        files = [open_showers(path) for path in (geant4, made, floor)]
        record = validate(*files[:2], Path(folder) / "report", *files[2:])
        for source in files:
            source.close()
    auc = next(m for m in record["models"][0]["metrics"] if m["name"] == "classifier.auc")
    parameters = sum(p.numel() for p in load_model(model).network.parameters())
    return {
        "model": model, "asked": steps, "steps": written["steps"],
        "auc": auc["value"], "error": auc["error"],
        "floor": auc["floor"], "parameters": parameters,
        "ms": float(np.median(ms["1"])), "ms_of_ten": float(np.median(ms["10"])),
    }  # fmt: skip


def plot(found: dict[str, Any], out: Path) -> None:
    """Draw the points: time of one shower to the right, AUC upward, area as parameters."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for model in dict.fromkeys(p["model"] for p in found["points"]):
        points = [p for p in found["points"] if p["model"] == model]
        points.sort(key=lambda p: p["steps"])
        x, y = [p["ms"] for p in points], [p["auc"] for p in points]
        millions = points[0]["parameters"] / 1e6
        drawn = axes.errorbar(x, y, [p["error"] for p in points], fmt="-", lw=1, capsize=2)
        colour = drawn.lines[0].get_color()
        axes.scatter(x, y, 60 * millions, color=colour, label=f"{model}, {millions:.1f} M")
        for p in points:
            axes.annotate(str(p["steps"]), (p["ms"], p["auc"]), (6, 6), textcoords="offset points")
    axes.axvline(found["geant4_ms"], color="black", lw=1, label="Geant4, log-uniform in energy")
    axes.axhline(found["points"][0]["floor"], color="grey", ls=":", label="Geant4 against Geant4")
    axes.set(xscale="log", xlabel="ms a shower, one core, one at a time, ONNX Runtime",
             ylabel="AUC of the trees", title=found["title"])  # fmt: skip
    axes.legend(fontsize=8)
    with atomic_path(out) as sibling:
        figure.savefig(sibling, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("geant4", type=Path)
    parser.add_argument("--floor", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("frontier.json"))
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    with closing(open_showers(asked.geant4)) as source:
        assert source.detector is not None
        detector, n = source.detector.name, len(source)
    found: dict[str, Any] = {"points": []}
    if asked.out.is_file():
        found = json.loads(asked.out.read_text("utf-8"))
    if "geant4_ms" not in found:
        how = argparse.Namespace(model="-", detector=detector, steps=None, n=100)
        found["geant4_ms"] = float(np.mean(apart(how, "geant4", 1, Path())["ms"]))
        found["title"] = f"{n:,} electrons of 1-100 GeV in {detector}"
    for name in asked.models:
        model, _, text = name.partition(":")
        steps = int(text) if text else None
        if any((p["model"], p["asked"]) == (model, steps) for p in found["points"]):
            continue
        found["points"].append(point(model, steps, asked.geant4, asked.floor, detector))
        with atomic_path(asked.out) as sibling:
            sibling.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        print(json.dumps(found["points"][-1]), flush=True)
    if asked.plot:
        plot(found, asked.plot)


if __name__ == "__main__":
    main()
