"""Training for so many seconds of processor time, whatever else the machine does."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train


def trained(recipe: Recipe, run: Path, seconds: float) -> dict[str, Any]:
    """Train for about so many CPU seconds; returns steps, CPU seconds spent and losses.

    A run that was stopped goes on.
    """
    noted = run.with_name(f"{run.name}-pace.json")
    if not noted.is_file():
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(json.dumps(pace(recipe)))
    steps = max(20, round(seconds / json.loads(noted.read_text())))
    recipe = recipe.model_copy(
        update={"steps": steps, "warmup": min(recipe.warmup, steps // 10),
                "validate_every": max(1, steps // 4)}
    )  # fmt: skip
    began = time.process_time()
    found = train(recipe, run, resume=(run / "recipe.json").is_file())
    first = json.loads((run / "metrics.jsonl").read_text().partition("\n")[0])
    return {
        "steps": steps, "cpu_s": round(time.process_time() - began), "first_loss": first["loss"],
        "loss": found.validation_loss,
    }  # fmt: skip


def pace(recipe: Recipe) -> float:
    """Seconds of processor time a step: what 40 more of them add to a resumed run."""
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in (5, 10, 55):
            short = recipe.model_copy(update={"steps": steps, "validate_every": 10**6})
            began = time.process_time()
            train(short, Path(folder) / "run", resume=True)
            spent.append(time.process_time() - began)
    return max(1e-3, (spent[2] - spent[1]) / 40)
