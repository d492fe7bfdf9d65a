"""The loop of every training, on CPU and GPU, in slices that stop and resume anywhere.

Everything random at a step is a function of (seed, step): the batch, the mirror, the noise. A run
that is stopped and resumed therefore follows the curve of one that was not. The loop stands on
Lightning Fabric for devices and precision. The learning rate rises, stays, and falls to zero over
the last part of the run (warmup-stable-decay, arXiv:2404.06395); the weights that are kept are
their exponential moving average. With `patience` they are those of the best validation, and a run
that does not get better any more ends.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caloforge.errors import WorkError
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.feed import Feed
from caloforge.learn.models.family import Aim, family
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.run import Best, Run, save
from caloforge.learn.throughput import flop_per_shower, peak_flops
from caloforge.progress import progress

__all__ = ["Summary", "learning_rate", "mean_loss", "precision_of", "run_loop"]

VALIDATED = 128  # Showers of a validation, about; a small split is seen with several noises.


@dataclass(frozen=True)
class Summary:
    """How a run went: steps done, seconds, showers per second, last losses, the folder.

    `utilisation` is the share of the machine's arithmetic that this slice used (see `throughput`).
    """

    step: int
    steps: int
    seconds: float
    showers_per_second: float
    utilisation: float
    loss: float
    validation_loss: float | None
    out: Path


class _Diverged(Exception):  # noqa: N818
    """The loss is not finite any more."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate at a step: linear warm-up, constant, linear decay to zero at the end."""
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    falling = recipe.decay * recipe.steps
    cool = min(1.0, (recipe.steps - step) / falling) if falling else 1.0
    return recipe.learning_rate * warm * cool


def precision_of(recipe: Recipe) -> Any:
    """Return the precision that Fabric is asked for."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16-mixed" if torch.cuda.is_available() else "32-true"


def run_loop(run: Run, minutes: float | None) -> Summary:
    """Train `run` to its end, or for so many `minutes`; its folder holds what was reached.

    Raises `WorkError` if the loss diverges.
    """
    recipe = run.recipe
    began = saved = time.monotonic()
    first, spent = run.step, run.seconds
    deadline = began + 60 * minutes if minutes else float("inf")
    with progress("train", recipe.steps, "steps", run.step) as advance:
        batches = run.feed.batches(run.step)
        try:
            if recipe.patience and run.best is None:
                _judge(run)  # the start is a candidate too
            while not run.finished and time.monotonic() < deadline:
                _step(run, *next(batches))
                run.seconds = spent + time.monotonic() - began
                advance(1)
                if time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                    save(run)
                    saved = time.monotonic()
        except _Diverged:
            first = run.step  # nothing of this is worth keeping
            raise WorkError(
                f"the loss diverged after step {run.step}; the last checkpoint is kept: lower "
                "learning_rate and --resume"
            ) from None
        finally:
            batches.close()
            if run.step > first:
                save(run)
    rate = (run.step - first) * recipe.batch / max(time.monotonic() - began, 1e-9)
    return Summary(
        run.step, recipe.steps, round(run.seconds, 1), round(rate, 2), _utilisation(run, rate),
        run.loss, run.validation_loss, run.out,
    )  # fmt: skip


def _utilisation(run: Run, rate: float) -> float:
    """Share of the arithmetic of this machine that `rate` showers per second take."""
    if not rate:
        return 0.0
    voxels, given = next(run.feed.batches())
    clean = run.model.scale(voxels, given)
    dtype = torch.bfloat16 if "bf16" in str(precision_of(run.recipe)) else torch.float32
    needed = flop_per_shower(run.model, clean, given)
    return round(rate * needed / peak_flops(run.fabric.device, dtype), 4)


def _step(run: Run, voxels: Tensor, given: Conditions) -> None:
    recipe, fabric = run.recipe, run.fabric
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, run.step)
    draw = noise_at(recipe.seed, run.step, fabric.device)
    clean = run.model.scale(voxels, given, draw)
    aim = Aim(recipe.masked, recipe.untold, run.step / recipe.steps, bool(recipe.method))
    parts = family(run.model.family).losses(run.network, clean, given, draw, aim)
    each = torch.stack(list(parts.values()))
    loss = each.sum()
    values = each.detach().tolist()  # the only moment at which the device is waited for
    run.loss = math.fsum(values)
    if not np.isfinite(run.loss):
        raise _Diverged
    fabric.backward(loss)
    norm = fabric.clip_gradients(
        run.network, run.optimiser, max_norm=recipe.clip, error_if_nonfinite=False
    )
    if norm is not None and not torch.isfinite(norm):
        raise _Diverged
    run.optimiser.step()
    run.optimiser.zero_grad()
    run.step += 1
    _average(run)
    _record(run, {"loss": run.loss} | dict(zip(parts, values, strict=True)))


def noise_at(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return the source of all noise of a step, on the device that takes it."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


@torch.no_grad()
def _average(run: Run) -> None:
    """Move the averaged weights; early on they follow faster, or they would remember the start.

    With `inner` they are those of Reptile (Nichol et al., arXiv:1803.02999): the trained ones learn
    one detector for so many steps, the averaged ones go part of the way after them, and the next
    detector is begun from there.
    """
    recipe = run.recipe
    trained: list[Tensor] = list(run.network.module.parameters())
    averaged: list[Tensor] = list(run.model.network.parameters())
    if not recipe.inner:
        decay = min(recipe.ema, (1 + run.step) / (10 + run.step))
        torch._foreach_lerp_(averaged, trained, 1 - decay)
    elif run.step % recipe.inner == 0:
        torch._foreach_lerp_(averaged, trained, recipe.outer)
        torch._foreach_copy_(trained, averaged)
    # What a network counts beside its gradients, such as a codebook, is taken as it stands.
    for mine, theirs in zip(run.model.network.buffers(), run.network.module.buffers(), strict=True):
        mine.copy_(theirs)


def _record(run: Run, losses: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, with the validation loss where it is due."""
    line: dict[str, Any] = {"step": run.step, **losses, "seconds": round(run.seconds, 2)}
    if run.step % run.recipe.validate_every == 0 or run.step == run.recipe.steps:
        _judge(run)
        line |= {"validation": run.validation_loss, **run.measured}
    with (run.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _judge(run: Run) -> None:
    """Validate the averaged weights; with `patience` keep them if none were better."""
    run.validation_loss = loss = _validate(run)
    if run.recipe.patience and run.best is not None and loss >= run.best.loss:
        run.still += 1
        return
    run.measured = _measured(run.model, run.validation, run.recipe.seed)
    if not run.recipe.patience:
        return
    if run.best is None:
        run.first = loss
    state = {k: v.detach().clone() for k, v in run.model.network.state_dict().items()}
    run.best, run.still = Best(loss, run.step, state), 0


def _validate(run: Run) -> float:
    """Loss of the averaged weights on the validation split, always with the same noise."""
    return mean_loss(run.model, run.validation, run.recipe.seed, bool(run.recipe.method))


@torch.no_grad()
def _measured(model: Model, feed: Feed, seed: int) -> dict[str, float]:
    """What the kind of a model reports of the showers of a split."""

    def showers() -> Iterator[tuple[Scaled, Conditions]]:
        for voxels, given in feed.all():
            yield model.scale(voxels, given, noise_at(seed, 2**31, voxels.device)), given

    return family(model.family).measure(model.network, showers())


@torch.no_grad()
def mean_loss(model: Model, feed: Feed, seed: int = 0, adapting: bool = False) -> float:
    """Mean loss of a model on the showers of a split, with noise that depends on `seed` alone;
    that of training, or of `adapting` it (see `Aim`).
    """
    device = next(model.network.parameters()).device
    draw = noise_at(seed, 2**31, device)
    rounds = max(1, round(VALIDATED / len(feed)))
    total = count = 0.0
    for voxels, given in feed.all():
        clean, n = model.scale(voxels, given, draw), len(voxels)
        for k in range(rounds):  # the first of a batch train one stage, the rest the other
            turn = torch.arange(n, device=device).roll(k * n // rounds)
            turned = Scaled(*(part[turn] for part in clean))
            told = given.at(turn)
            aim = Aim(adapting=adapting)
            losses = family(model.family).losses(model.network, turned, told, draw, aim)
            # A block too small to be shared out has no loss of one stage: the mean of nothing.
            total += float(torch.stack(list(losses.values())).nan_to_num().sum()) * n
            count += n
    return total / count
