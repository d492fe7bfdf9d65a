"""Training as a recipe says: the network is built, its preprocessing fitted, and the loop run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from caloforge import __version__
from caloforge.detector.descriptors import descriptors
from caloforge.errors import RequestError
from caloforge.files import claimed_folder
from caloforge.learn.checkpoint import Model, ValidRange, descriptor_range, load_model
from caloforge.learn.condition import Conditions
from caloforge.learn.feed import conditions_of, feed
from caloforge.learn.loop import Summary, noise_at, precision_of, run_loop
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.family import family
from caloforge.learn.muon import Muon
from caloforge.learn.recipe import Recipe
from caloforge.learn.run import STATE, Run, check_folder, working
from caloforge.showers.dataset import Sample, ShowerStream

__all__ = ["new_run", "to_fit", "train", "valid_range"]

FIT_SHOWERS = 20_000  # Enough to fit the preprocessing; more would only take memory.


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, minutes: float | None = None
) -> Summary:
    """Train as the recipe says, into the checkpoint folder `out`.

    `minutes` ends this slice early, ready to be resumed. Raises `RequestError` if `out` holds
    another run, cannot be written, or the data do not serve; `WorkError` if the loss diverges.
    """
    if recipe.method:
        raise RequestError("'method' is of an adaptation: use caloforge adapt, or leave it out")
    keep_freed_memory()
    files = recipe.files()
    stream = ShowerStream(files, batch=recipe.batch, seed=recipe.seed, together=recipe.inner)
    validation = ShowerStream(files, split="validation", batch=1, seed=recipe.seed)
    with claimed_folder(out):
        check_folder(recipe, out, resume)
        run = _begin(recipe, out, stream, validation)
    with working(run):
        return run_loop(run, minutes)


def _begin(recipe: Recipe, out: Path, stream: ShowerStream, validation: ShowerStream) -> Run:
    torch.manual_seed(recipe.seed)
    kind, names = family(recipe.model), {detector.name for detector in stream.detectors}
    network: Any = kind.network(kind.plan(recipe, stream.detectors[0].mesh.shape, len(names)))
    # The state is written last: without it, what else is there is of a run killed before its
    # first checkpoint was whole, and the run begins anew. `restore` brings the network back.
    if (out / STATE).is_file():
        begun = load_model(out)
        scale, valid = begun.scale, begun.valid
    else:
        scale, valid = _fit(recipe, stream, network)
    return new_run(recipe, out, (stream, validation), network, scale, valid)


def new_run(
    recipe: Recipe,
    out: Path,
    streams: tuple[ShowerStream, ShowerStream],
    network: Any,
    scale: Any,
    valid: ValidRange,
) -> Run:
    """Return a run before its first step; `streams`: of the training and the validation split."""
    torch.set_float32_matmul_precision("high")  # on a GPU, what is not in half precision either
    fabric = Fabric(accelerator="auto", devices=1, precision=precision_of(recipe))
    averaged = copy.deepcopy(network).requires_grad_(False).eval().to(fabric.device)
    notes = {"caloforge": __version__, "recipe": recipe.model_dump(mode="json")}
    model = Model(averaged, scale.to(fabric.device), valid, notes, recipe.model)
    optimiser = Muon(network, recipe.learning_rate, recipe.weight_decay)
    wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
    train, validation = (feed(stream, fabric.device) for stream in streams)
    return Run(recipe, out, train, validation, fabric, wrapped, wrapped_optimiser, model)


def _fit(recipe: Recipe, stream: ShowerStream, network: Any) -> tuple[Any, ValidRange]:
    """Fit the preprocessing and the features' scale on (a part of) the training split."""
    kind = family(recipe.model)
    parts, voxels, joined = to_fit(stream, recipe.seed)
    scale: Any = kind.scale(network.config)
    scale.fit(voxels, joined, recipe.scale_steps, recipe.seed)
    with torch.no_grad():
        network.fit(joined.features, scale(voxels, joined, noise_at(recipe.seed, 0, voxels.device)))
    kind.begin(recipe, network, scale)
    return scale, valid_range(stream, parts)


def to_fit(stream: ShowerStream, seed: int) -> tuple[list[Sample], Tensor, Conditions]:
    """Return showers of a split to fit a preprocessing to, at most about `FIT_SHOWERS`.

    As samples, and together: voxels (N, R, PHI, Z) in MeV and conditions.
    """
    thin = np.random.default_rng(seed)
    keep = min(1.0, FIT_SHOWERS / len(stream))
    parts = [part[np.flatnonzero(thin.random(len(part)) < keep)] for part in stream.all()]
    given = [conditions_of(stream, part) for part in parts]
    joined = Conditions(*(torch.cat(tensors) for tensors in zip(*given, strict=True)))
    return parts, torch.cat([torch.from_numpy(part.voxels) for part in parts]), joined


def valid_range(stream: ShowerStream, parts: list[Sample]) -> ValidRange:
    """Return where a model that was trained on `parts` of a stream is valid (MeV, rad)."""
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
