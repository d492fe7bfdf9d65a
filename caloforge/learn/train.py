"""The training loop: one for every model, on CPU and GPU, in slices that stop and resume anywhere.

Everything random at a step is a function of (seed, step): the batch, the mirror, the noise. A run
that is stopped and resumed therefore follows the curve of one that was not. The loop stands on
Lightning Fabric for devices and precision. The learning rate rises, stays, and falls to zero over
the last part of the run (warmup-stable-decay, arXiv:2404.06395); the weights that are kept are
their exponential moving average.
"""

from __future__ import annotations

import copy
import json
import signal
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from caloforge import __version__
from caloforge.detector.descriptors import descriptors
from caloforge.errors import RequestError, WorkError
from caloforge.files import atomic_path, claimed_folder, locked
from caloforge.learn.checkpoint import Model, ValidRange, descriptor_range, load_model
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.diffusion import DiffusionConfig, DiffusionTransformer, config_of
from caloforge.learn.models.process import denoising_loss
from caloforge.learn.muon import Muon
from caloforge.learn.preprocess import ShowerScale
from caloforge.learn.recipe import Recipe
from caloforge.learn.run import STATE, Run, check_folder, restore, save, trim_log
from caloforge.learn.throughput import flop_per_shower, peak_flops
from caloforge.progress import progress
from caloforge.showers.dataset import Sample, ShowerStream

__all__ = ["Summary", "learning_rate", "train"]

FIT_SHOWERS = 20_000  # Enough to fit the preprocessing; more would only take memory.


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


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, minutes: float | None = None
) -> Summary:
    """Train as the recipe says, into the checkpoint folder `out`.

    `minutes` ends this slice early, ready to be resumed. Raises `RequestError` if `out` holds
    another run, cannot be written, or the data do not serve; `WorkError` if the loss diverges.
    """
    keep_freed_memory()
    files = recipe.files()
    stream = ShowerStream(files, batch=recipe.batch, seed=recipe.seed)
    validation = ShowerStream(files, split="validation", batch=1, seed=recipe.seed)
    with claimed_folder(out):
        check_folder(recipe, out, resume)
        run = _begin(recipe, out, stream, validation)
    (out / STATE.parent).mkdir(exist_ok=True)
    with locked(out / STATE.parent), _stopped_gently():
        with atomic_path(out / "recipe.json") as path:
            path.write_text(recipe.model_dump_json(indent=1) + "\n", "utf-8")
        if (out / STATE).is_file():
            restore(run)
        trim_log(out, run.step)
        return _loop(run, minutes)


@contextmanager
def _stopped_gently() -> Iterator[None]:
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


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate at a step: linear warm-up, constant, linear decay to zero at the end."""
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    falling = recipe.decay * recipe.steps
    cool = min(1.0, (recipe.steps - step) / falling) if falling else 1.0
    return recipe.learning_rate * warm * cool


def _begin(recipe: Recipe, out: Path, stream: ShowerStream, validation: ShowerStream) -> Run:
    torch.manual_seed(recipe.seed)
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision(recipe))
    network = DiffusionTransformer(_config(recipe, stream))
    # The state is written last: without it, what else is there is of a run killed before its
    # first checkpoint was whole, and the run begins anew. `restore` brings the network back.
    if (out / STATE).is_file():
        begun = load_model(out)
        scale, valid = begun.scale, begun.valid
    else:
        scale, valid = _fit(recipe, stream, network)
    averaged = copy.deepcopy(network).requires_grad_(False)
    notes = {"caloforge": __version__, "recipe": recipe.model_dump(mode="json")}
    averaged.to(fabric.device)
    model = Model(averaged, scale.to(fabric.device), valid, notes)
    optimiser = Muon(network, recipe.learning_rate, recipe.weight_decay)
    wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
    return Run(recipe, out, stream, validation, fabric, wrapped, wrapped_optimiser, model)


def _config(recipe: Recipe, stream: ShowerStream) -> DiffusionConfig:
    names = {detector.name for detector in stream.detectors}
    return config_of(
        recipe.size, stream.detectors[0].mesh.shape, process=recipe.process, head=recipe.head,
        plain=recipe.plain, positions=recipe.positions, calls=recipe.calls,
        detectors=len(names) if recipe.geometry == "onehot" else 0,
    )  # fmt: skip


def _precision(recipe: Recipe) -> Any:
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16-mixed" if torch.cuda.is_available() else "32-true"


def _fit(
    recipe: Recipe, stream: ShowerStream, network: DiffusionTransformer
) -> tuple[ShowerScale, ValidRange]:
    """Fit the preprocessing and the features' scale on (a part of) the training split."""
    thin = np.random.default_rng(recipe.seed)
    keep = min(1.0, FIT_SHOWERS / len(stream))
    parts = [part[np.flatnonzero(thin.random(len(part)) < keep)] for part in stream.all()]
    given = [_conditions(stream, part) for part in parts]
    joined = Conditions(*(torch.cat(tensors) for tensors in zip(*given, strict=True)))
    voxels = torch.cat([torch.from_numpy(part.voxels) for part in parts])
    scale = ShowerScale(network.sketch, network.config.counted)
    scale.fit(voxels, joined, recipe.scale_steps, recipe.seed)
    network.fit(joined.features, scale(voxels, joined, _noise_at(recipe.seed, 0)))
    if recipe.start:
        _start_from(load_model(recipe.start), network, scale)
    return scale, _valid_range(stream, parts)


@torch.no_grad()
def _start_from(other: Model, network: DiffusionTransformer, scale: ShowerScale) -> None:
    """Take over the weights of another model of this shape, and its units of voxels and features.

    The whitening of the energies stays the one that was fitted to the new showers.
    """
    if other.network.config != network.config:
        raise RequestError(
            f"'start' is a model of another kind ({other.network.config}); keep to its kind"
        )
    network.load_state_dict(other.network.state_dict())
    scale.voxel_mean.copy_(other.scale.voxel_mean)
    scale.voxel_spread.copy_(other.scale.voxel_spread)


def _valid_range(stream: ShowerStream, parts: list[Sample]) -> ValidRange:
    energy = np.concatenate([part.energy for part in parts])
    theta = np.concatenate([part.theta for part in parts])
    table = torch.stack([torch.from_numpy(descriptors(d)) for d in stream.detectors])
    return ValidRange(
        energy_mev=_outward(energy.min(), energy.max(), 2),
        theta=_outward(theta.min(), theta.max(), 3),
        pdg=tuple(sorted({int(p) for part in parts for p in part.pdg})),
        detectors=tuple(sorted({d.name for d in stream.detectors})),
        descriptors=descriptor_range(table),
    )


def _outward(low: float, high: float, digits: int) -> tuple[float, float]:
    """Widen a range to so many significant digits: drawn from 1-100 GeV, valid in 1-100 GeV."""
    unit = 10.0 ** (np.floor(np.log10([low, high])) - digits + 1)
    return float(np.floor(low / unit[0]) * unit[0]), float(np.ceil(high / unit[1]) * unit[1])


def _conditions(stream: ShowerStream, sample: Sample) -> Conditions:
    return conditions(stream.detectors, sample.detector, sample.energy, sample.theta, sample.pdg)


def _loop(run: Run, minutes: float | None) -> Summary:
    recipe = run.recipe
    began = saved = time.monotonic()
    first, spent = run.step, run.seconds
    deadline = began + 60 * minutes if minutes else float("inf")
    with progress("train", recipe.steps, "steps", run.step) as advance:
        batches = _prefetched(run)
        try:
            while run.step < recipe.steps and time.monotonic() < deadline:
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
    sample = next(run.stream.batches())
    given = _conditions(run.stream, sample).to(run.fabric.device)
    clean = run.model.scale(torch.from_numpy(sample.voxels).to(run.fabric.device), given)
    dtype = torch.bfloat16 if "bf16" in str(_precision(run.recipe)) else torch.float32
    needed = flop_per_shower(run.model.network, clean, given)
    return round(rate * needed / peak_flops(run.fabric.device, dtype), 4)


def _prefetched(run: Run) -> Generator[tuple[Tensor, Conditions]]:
    """Yield the batches from the run's step on, each prepared while the one before is learned."""
    source = enumerate(run.stream.batches(run.step), run.step)

    def prepare() -> tuple[Tensor, Conditions]:
        step, sample = next(source)
        flipped = np.random.default_rng([run.recipe.seed, step]).random(len(sample)) < 0.5
        voxels = np.where(flipped[:, None, None, None], sample.voxels[:, :, ::-1], sample.voxels)
        return torch.from_numpy(voxels), _conditions(run.stream, sample)

    with ThreadPoolExecutor(1) as worker:
        ahead = worker.submit(prepare)
        while True:
            batch, ahead = ahead.result(), worker.submit(prepare)
            yield batch


def _step(run: Run, voxels: Tensor, given: Conditions) -> None:
    recipe, fabric, device = run.recipe, run.fabric, run.fabric.device
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, run.step)
    given = given.to(device)
    draw = _noise_at(recipe.seed, run.step)
    clean = run.model.scale(voxels.to(device), given, draw)
    energies, filled = denoising_loss(run.network, clean, given, draw, recipe.masked, recipe.untold)
    loss = energies + filled
    run.loss = float(loss.detach())
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
    losses = {
        "loss": run.loss,
        "energies": float(energies.detach()),
        "voxels": float(filled.detach()),
    }
    _record(run, losses)


def _noise_at(seed: int, step: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@torch.no_grad()
def _average(run: Run) -> None:
    """Move the averaged weights; early on they follow faster, or they would remember the start."""
    decay = min(run.recipe.ema, (1 + run.step) / (10 + run.step))
    trained, averaged = run.network.module.parameters(), run.model.network.parameters()
    torch._foreach_lerp_(list(averaged), list(trained), 1 - decay)


def _record(run: Run, losses: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, with the validation loss where it is due."""
    line: dict[str, Any] = {"step": run.step, **losses, "seconds": round(run.seconds, 2)}
    if run.step % run.recipe.validate_every == 0 or run.step == run.recipe.steps:
        energies, filled = _validate(run)
        run.validation_loss = line["validation"] = energies + filled
        line |= {"validation_energies": energies, "validation_voxels": filled}
    with (run.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


@torch.no_grad()
def _validate(run: Run) -> tuple[float, float]:
    """Losses of energies and voxels on the validation split, averaged weights, always one noise."""
    draw, device = _noise_at(run.recipe.seed, 2**31), run.fabric.device
    total, count = torch.zeros(2, device=device), 0
    for sample in run.validation.all():
        given = _conditions(run.validation, sample).to(device)
        clean = run.model.scale(torch.from_numpy(sample.voxels).to(device), given, draw)
        # A block too small to be shared out has no loss of one stage: the mean of nothing is NaN.
        losses = torch.stack(denoising_loss(run.model.network, clean, given, draw)).nan_to_num()
        total, count = total + losses * len(sample), count + len(sample)
    energies, voxels = (total / count).tolist()
    return energies, voxels
