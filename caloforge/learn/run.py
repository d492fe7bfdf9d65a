"""A training run on disk: its folder, the state that it resumes from, and its log.

The checkpoint folder holds the averaged weights as everybody reads them; `resume/state.pt` beside
them what only the run itself needs: the trained weights, the optimiser, the step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.learn.card import model_card
from caloforge.learn.checkpoint import Model, save_model
from caloforge.learn.recipe import Recipe
from caloforge.showers.dataset import ShowerStream

__all__ = ["STATE", "Run", "check_folder", "restore", "save", "trim_log"]

STATE = Path("resume") / "state.pt"
MAY_CHANGE = {"steps", "learning_rate", "checkpoint_minutes", "validate_every", "precision", "data"}


@dataclass
class Run:
    """The state of a run between two steps."""

    recipe: Recipe
    out: Path
    stream: ShowerStream
    validation: ShowerStream
    fabric: Fabric
    network: Any  # the trained network, wrapped by Fabric
    optimiser: Any
    model: Model  # with the averaged weights
    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    validation_loss: float | None = None


def check_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuse, with `RequestError`, another run than the one that `out` holds, if it holds one."""
    noted = out / "recipe.json"
    if not noted.is_file():
        return
    if not resume:
        raise RequestError(f"'{out}' holds a run; add --resume, or choose another folder")
    before = json.loads(noted.read_text("utf-8"))
    for key, value in recipe.model_dump(mode="json").items():
        if key not in MAY_CHANGE and before.get(key) != value:
            raise RequestError(f"'{out}' was begun with {key} = {before.get(key)!r}; keep it")


def save(run: Run) -> None:
    """Write the checkpoint, and beside it what resuming needs; the state last."""
    run.model.notes.update(
        step=run.step, seconds=round(run.seconds, 1), showers=len(run.stream),
        validation_loss=run.validation_loss, device=str(run.fabric.device), torch=torch.__version__,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    save_model(run.model, run.out, card=model_card(run.out.name, run.model))
    state = {
        "step": run.step, "seconds": run.seconds, "validation_loss": run.validation_loss,
        "network": run.network.module.state_dict(), "optimiser": run.optimiser.state_dict(),
        "averaged": run.model.network.state_dict(),
    }  # fmt: skip
    with atomic_path(run.out / STATE) as path:
        torch.save(state, path)


def restore(run: Run) -> None:
    """Bring a run back to where it stopped; raises `RequestError` if its state is damaged."""
    try:
        state = torch.load(run.out / STATE, map_location=run.fabric.device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise RequestError(f"'{run.out / STATE}' is damaged ({error}); begin anew") from None
    run.network.module.load_state_dict(state["network"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.model.network.load_state_dict(state["averaged"])
    run.step, run.seconds = state["step"], state["seconds"]
    run.validation_loss = state["validation_loss"]


def trim_log(out: Path, step: int) -> None:
    """Drop the lines of steps after the checkpoint: they will be done again."""
    path = out / "metrics.jsonl"
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with atomic_path(path) as sibling:
        sibling.write_text("".join(kept), "utf-8")
