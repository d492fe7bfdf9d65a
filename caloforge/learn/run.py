"""A training run on disk: its folder, the state that it resumes from, and its log.

The checkpoint folder holds the averaged weights as everybody reads them; `resume/state.pt` beside
them what only the run itself needs: the trained weights, the optimiser, the step.
"""

from __future__ import annotations

import copy
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.files import atomic_path, locked
from caloforge.learn.card import model_card
from caloforge.learn.checkpoint import Model, save_model
from caloforge.learn.feed import Feed
from caloforge.learn.recipe import Recipe

__all__ = ["STATE", "Best", "Run", "check_folder", "restore", "save", "trim_log", "working"]

STATE = Path("resume") / "state.pt"
MAY_CHANGE = {"steps", "learning_rate", "checkpoint_minutes", "validate_every", "precision", "data"}


@dataclass(frozen=True)
class Best:
    """The best averaged weights so far: their loss on the validation split, the step, the state."""

    loss: float
    step: int
    state: dict[str, Tensor]


@dataclass
class Run:
    """The state of a run between two steps.

    `finish` turns the model that is trained into the one that is written, for instance by merging
    its adapters. `first`: loss of the start on the validation split, where the best is kept;
    `still`: validations since the best one; `measured`: what the kind of the model reports of the
    weights to be kept.
    """

    recipe: Recipe
    out: Path
    feed: Feed
    validation: Feed
    fabric: Fabric
    network: Any  # the trained network, wrapped by Fabric
    optimiser: Any
    model: Model  # with the averaged weights
    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    validation_loss: float | None = None
    finish: Callable[[Model], Model] = lambda model: model
    first: float = float("nan")
    best: Best | None = None
    still: int = 0
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or it does not get better any more."""
        patience = self.recipe.patience
        if self.recipe.method == "energies":
            return True
        return self.step >= self.recipe.steps or 0 < patience <= self.still

    def kept(self) -> Model:
        """The model to write: the best one of those validated, or the latest."""
        if self.best is None:
            return self.finish(self.model)
        best = replace(self.model, network=copy.deepcopy(self.model.network))
        best.network.load_state_dict(self.best.state)
        return self.finish(best)


def check_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuse, with `RequestError`, another run than the one that `out` holds, if it holds one."""
    noted = out / "recipe.json"
    if not noted.is_file():
        return
    if not resume:
        raise RequestError(f"'{out}' holds a run; add --resume, or choose another folder")
    # A run begun by a version that did not know a key had its default.
    usual = {key: field.default for key, field in Recipe.model_fields.items()}
    before = usual | json.loads(noted.read_text("utf-8"))
    for key, value in recipe.model_dump(mode="json").items():
        if key not in MAY_CHANGE and before.get(key) != value:
            raise RequestError(f"'{out}' was begun with {key} = {before.get(key)!r}; keep it")


def save(run: Run) -> None:
    """Write the checkpoint, and beside it what resuming needs; the state last."""
    run.model.notes.update(
        step=run.step, seconds=round(run.seconds, 1), showers=len(run.feed),
        validation_loss=run.validation_loss, device=str(run.fabric.device), torch=torch.__version__,
        threads=torch.get_num_threads(), measured=run.measured,
    )  # fmt: skip
    if run.best is not None:
        run.model.notes.update(validation_loss=run.best.loss, best_step=run.best.step)
    kept = run.kept()
    save_model(kept, run.out, card=model_card(run.out.name, kept))
    state = {
        "step": run.step, "seconds": run.seconds, "validation_loss": run.validation_loss,
        "network": run.network.module.state_dict(), "optimiser": run.optimiser.state_dict(),
        "averaged": run.model.network.state_dict(), "still": run.still, "first": run.first,
        "best": None if run.best is None else vars(run.best), "measured": run.measured,
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
    run.validation_loss, run.still = state["validation_loss"], state.get("still", 0)
    run.best = Best(**state["best"]) if state.get("best") else None
    run.first = state.get("first", run.first)
    run.measured = state.get("measured", {})


def trim_log(out: Path, step: int) -> None:
    """Drop the lines of steps after the checkpoint: they will be done again."""
    path = out / "metrics.jsonl"
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with atomic_path(path) as sibling:
        sibling.write_text("".join(kept), "utf-8")


@contextmanager
def working(run: Run) -> Iterator[None]:
    """Hold the folder of a run, brought back to where it stopped; SIGTERM stops it gently.

    Raises `RequestError` if another process works in it, or its state is damaged.
    """
    (run.out / STATE.parent).mkdir(exist_ok=True)
    with locked(run.out / STATE.parent), stopped_gently():
        with atomic_path(run.out / "recipe.json") as path:
            path.write_text(run.recipe.model_dump_json(indent=1) + "\n", "utf-8")
        if (run.out / STATE).is_file():
            restore(run)
        trim_log(run.out, run.step)
        yield


@contextmanager
def stopped_gently() -> Iterator[None]:
    """Let a polite request to end (SIGTERM, as batch systems send it) save a checkpoint first."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
