"""A trained model made to fit one more detector, in minutes, with some hundred showers of it.

Three things are adapted. The *whitening* of the energies, which decides mean response and
resolution, gets a correction of the detector's own in closed form (`calibration`); a prior's law of
whole showers, the shares of its rings and the spectrum of its cells are fitted likewise
(`models.totals`, `rings`, `cells`). The *network* is trained on, from where it stands, by one of
five methods:

- ``full``: all weights;
- ``bias``: the biases alone (BitFit, Zaken et al., arXiv:2106.10199);
- ``lora``: adapters of low rank beside every large linear layer, merged into it afterwards
  (`lowrank`);
- ``energies``: nothing; all that is fitted is what takes seconds;
- ``head``: the layers that say what is believed of voxels and energies, and in a diffusion model a
  residual of the detector's own that is added to the condition (`residual`).

Each kind of model says which of its weights may learn at all (`Tuning`): of a diffusion model all,
of a prior those that have no say in what a code is (`caloforge.learn.models.prior_tuning`).

The *valid range* grows by the new showers. How long and how fast follows from the number of showers
(`schedule`), a tenth of which is kept to validate with; the best state of those validated is kept,
the start among them, so that the loss on showers that are not trained on never grows. What it costs
on the detectors of the old model is measured: their loss before and after is in the card. A mesh of
other cells is taken too (`remesh`).
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.errors import RequestError
from caloforge.files import atomic_path, claimed_folder
from caloforge.learn.calibration import Draw, calibrate, spread_out
from caloforge.learn.checkpoint import Model, ValidRange, load_model
from caloforge.learn.condition import Conditions
from caloforge.learn.feed import feed
from caloforge.learn.loop import mean_loss, run_loop
from caloforge.learn.lowrank import merged, with_adapters
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.family import Manner, Tuning, family
from caloforge.learn.recipe import Recipe
from caloforge.learn.remesh import RESHAPED, remeshed
from caloforge.learn.run import Run, check_folder, save, working
from caloforge.learn.train import new_run, to_fit, valid_range
from caloforge.showers.dataset import ShowerStream
from caloforge.showers.formats import open_showers

__all__ = [
    "LEAST",
    "METHODS",
    "Adaptation",
    "Guarded",
    "adapt",
    "described",
    "drawing",
    "schedule",
    "shipped_guards",
]

LEAST = 20  # Showers; fewer say nothing about a detector.
SHARES: Mapping[str, float] = MappingProxyType({"train": 0.9, "validation": 0.1})
GUARDED = 128  # Showers of an old detector that are looked at.
# Showers of a detector that draws are compared with once all is learned; draws, and where nothing
# is learned in steps and draws are what takes time.
EXAMPLES, DRAWS, DRAWS_ALONE = 2000, 1000, 400

# Learning rate of each method, in those of the optimiser (`muon`), and where a kind needs another.
METHODS: Mapping[str, float] = MappingProxyType(
    {"full": 5e-4, "bias": 4e-3, "lora": 1.5e-3, "head": 2.5e-3, "energies": 1e-3}
)
OWN_RATES: Mapping[tuple[str, str], float] = MappingProxyType({("prior", "head"): 6e-4})
# Steps for each thousand showers, up to how many thousands, and showers of a step.
STEPS: Mapping[str, int] = MappingProxyType({"diffusion": 200, "prior": 300})
UP_TO: Mapping[str, int] = MappingProxyType({"diffusion": 1, "prior": 3})
BATCH: Mapping[str, int] = MappingProxyType({"diffusion": 64, "prior": 32})


@dataclass(frozen=True)
class Guarded:
    """Loss on showers of an old detector (a file), before the adaptation and after it."""

    detector: str
    showers: int
    before: float
    after: float


@dataclass(frozen=True)
class Adaptation:
    """How an adaptation went.

    `step` of `steps` done; `seconds`: of the steps and of all that is fitted; `best_step`: where
    the weights that are kept were; `calibrated`: by how much the correction of the whitening moves
    a quantity, in spreads; `before`, `after`: loss on the showers kept for validation, of the
    network before its first step and as it is kept; `guarded`: loss of the old and the new model on
    old detectors. `after` and `guarded` are empty until it is done.
    """

    model: str
    method: str
    detectors: tuple[str, ...]
    showers: int
    step: int
    steps: int
    best_step: int
    seconds: float
    calibrated: float
    before: float
    after: float | None
    guarded: tuple[Guarded, ...]
    out: Path


def adapt(
    model: str | Path,
    data: Sequence[Path],
    out: Path,
    *,
    method: str = "full",
    steps: int | None = None,
    learning_rate: float | None = None,
    rank: int | None = None,
    guards: Sequence[Path] | None = None,
    seed: int = 0,
    resume: bool = False,
    minutes: float | None = None,
) -> Adaptation:
    """Adapt a shipped model or a checkpoint folder to the showers of `data`, into folder `out`.

    `steps`, `learning_rate`: instead of what `schedule` finds; `rank` of the adapters; `guards`:
    files of showers of old detectors, by default those that ship with the package. `minutes` ends
    this slice early, ready to be resumed. Raises `RequestError` if `out` holds another run, cannot
    be written, or the model or the data do not serve; `WorkError` if the loss diverges.
    """
    keep_freed_memory()
    began = time.monotonic()
    base = load_model(model)
    recipe = schedule(str(model), base, data, method, seed)
    asked = dict(steps=steps, learning_rate=learning_rate, rank=rank)
    recipe = _changed(recipe, {k: v for k, v in asked.items() if v is not None})
    streams = _streams(data, recipe)
    shape = streams[0].detectors[0].mesh.shape
    tuning = family(base.family).tuning(base, str(model), shape)
    chosen = shipped_guards(base.valid, shape) if guards is None else list(guards)
    old = [_guard(path, shape) for path in chosen]
    with claimed_folder(out):
        check_folder(recipe, out, resume)
        run, calibrated, examples = _begin(recipe, out, base, tuning, streams)
    with working(run):
        earlier = run.seconds
        run_loop(run, minutes)
        if tuning.last and run.finished:
            draw = drawing(run.kept(), str(model))
            most = DRAWS if run.step else DRAWS_ALONE
            for voxels, given in examples:
                tuning.last(run.model.scale, draw, voxels, given.to(run.fabric.device), most)
        found = Adaptation(
            str(model), method, tuple(sorted({d.name for d in streams[0].detectors})),
            sum(map(len, streams)), run.step, recipe.steps,
            run.best.step if run.best else run.step,
            round(earlier + time.monotonic() - began, 1), round(calibrated, 4), run.first, None,
            (), out,
        )  # fmt: skip
        return _closed(run, found, base, old) if run.finished else found


def described(found: Adaptation) -> dict[str, Any]:
    """Return an adaptation as plain values for JSON."""
    return {**asdict(found), "out": str(found.out)}


def schedule(name: str, base: Model, data: Sequence[Path], method: str, seed: int = 0) -> Recipe:
    """Return how to adapt the model `base`, opened as `name`, to the showers in the files `data`.

    Steps grow with the number of showers up to some thousands, then with its root: few showers that
    are seen often are learned by heart, and the few of them that validate cannot tell.
    Raises `RequestError` for an unknown method, no or too few showers.
    """
    if method not in METHODS:
        raise RequestError(f"unknown method '{method}'; known are {', '.join(METHODS)}")
    if not data:
        raise RequestError("name at least one file of showers of the new detector")
    n = sum(_seen(path)[0] for path in data)
    if n < LEAST:
        raise RequestError(f"{n} showers are too few to adapt to; simulate at least {LEAST}")
    thousands = n / 1000
    most = UP_TO.get(base.family, 1)
    steps = round(STEPS.get(base.family, 200) * min(thousands, (most * thousands) ** 0.5))
    learned = base.notes.get("recipe", {})
    return Recipe(
        model=base.family, size=learned.get("size", "tiny"), data=[str(path) for path in data],
        start=name, method=method, steps=steps,
        batch=min(BATCH.get(base.family, 64), int(n * SHARES["train"]) // 2),
        learning_rate=OWN_RATES.get((base.family, method), METHODS[method]),
        warmup=max(1, steps // 20), decay=0.9, ema=0.98,
        weight_decay=0.0, masked=learned.get("masked", 0.0), untold=learned.get("untold", 0.0),
        validate_every=max(1, steps // 6), patience=4, seed=seed,
    )  # fmt: skip


def shipped_guards(valid: ValidRange, shape: tuple[int, int, int]) -> list[Path]:
    """Geant4 showers that ship with the package, of the detectors of a model, on its mesh."""
    folder = Path(str(resources.files("caloforge") / "reference"))
    found = [path for path in sorted(folder.glob("*.h5")) if path.stem in valid.detectors]
    return [path for path in found if _seen(path)[1] == shape]


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    if changes.get("steps", 1) < 1 or changes.get("rank", 1) < 1:
        raise RequestError("the number of steps and the rank must be at least 1")
    if not 0 < changes.get("learning_rate", 1) <= 10:
        raise RequestError("the learning rate must be above 0 and at most 10")
    if "steps" in changes:
        few = changes["steps"]
        changes = {**changes, "warmup": max(1, few // 20), "validate_every": max(1, few // 6)}
    return recipe.model_copy(update=dict(changes))


def _seen(path: Path) -> tuple[int, tuple[int, int, int]]:
    """Number of showers in a file, and the cells of their mesh."""
    source = open_showers(path)
    try:
        return len(source), source.mesh.shape
    finally:
        source.close()


def _streams(data: Sequence[Path], recipe: Recipe) -> tuple[ShowerStream, ShowerStream]:
    return (
        ShowerStream(data, batch=recipe.batch, seed=recipe.seed, shares=SHARES),
        ShowerStream(data, split="validation", batch=1, seed=recipe.seed, shares=SHARES),
    )


def _guard(path: Path, shape: tuple[int, int, int]) -> ShowerStream:
    """Open showers of an old detector; raises `RequestError` if they are on another mesh."""
    share = min(1.0, GUARDED / max(_seen(path)[0], 1))
    stream = ShowerStream([path], split="seen", batch=1, shares={"seen": share, "rest": 1 - share})
    if stream.detectors[0].mesh.shape != shape:
        raise RequestError(
            f"'{path}' is on a mesh of {stream.detectors[0].mesh.shape} cells, the new showers on "
            f"{shape}: the adapted model knows that mesh alone; leave it out"
        )
    return stream


def _begin(
    recipe: Recipe, out: Path, base: Model, tuning: Tuning,
    streams: tuple[ShowerStream, ShowerStream],
) -> tuple[Run, float, list[tuple[Tensor, Conditions]]]:  # fmt: skip
    """Prepare network and whitening, all of which follows from the base and the data; also by how
    much the whitening was moved, and some showers of each detector.
    """
    torch.manual_seed(recipe.seed)
    parts, voxels, given = to_fit(streams[0], recipe.seed)
    network, scale = copy.deepcopy(base.network).train(), copy.deepcopy(base.scale)
    fresh = voxels.shape[1:] != network.config.shape
    if fresh:
        network, scale = remeshed(base, voxels, given)
    gains, examples = [], []
    for some, own in _each(voxels, given):
        if tuning.last:
            rows = spread_out(len(some), EXAMPLES)
            examples.append((some[rows], own.at(rows)))
        if tuning.energies:
            draw = partial(tuning.energies, network)
            gains.append(calibrate(scale, draw, some, own))
        if recipe.method == "head" and "residual." in tuning.heads:
            network.residual.anchor(own.features[0], network.feature_spread)
    if tuning.first:
        tuning.first(network, scale, voxels, given)
    _choose(network, recipe, tuning, fresh)
    valid = _union(base.valid, valid_range(streams[0], parts))
    run = new_run(recipe, out, streams, network, scale, valid)
    known = {"name": recipe.start, "detectors": list(base.valid.detectors)}
    run.model.notes["start"] = {**base.notes, **known}
    if recipe.method == "lora":
        run.finish = _merged
    return run, sum(gains) / max(len(gains), 1), examples


def drawing(model: Model, name: str) -> Draw:
    """Return what draws voxels (B, R, PHI, Z) in MeV with a model, opened as `name`."""
    kind = family(model.family)
    drawn, manner = kind.draw, kind.settle(model, Manner(), name)
    assert drawn is not None
    return lambda given, noise: drawn(model.network, model.scale, given, noise, manner)


def _each(voxels: Tensor, given: Conditions) -> Iterator[tuple[Tensor, Conditions]]:
    """Yield voxels and conditions of the showers of one detector after the other."""
    table = given.features[:, -len(DESCRIPTOR_NAMES) :]
    _, number = torch.unique(table, dim=0, return_inverse=True)
    for which in range(int(number.max()) + 1):
        rows = number == which
        yield voxels[rows], given.at(rows)


def _choose(network: nn.Module, recipe: Recipe, tuning: Tuning, fresh: bool) -> None:
    """Let only those weights learn that the method asks for, and new layers in any case."""
    network.requires_grad_(False)
    if recipe.method == "lora":
        with_adapters(network, recipe.rank, tuning.learns)
    for name, weight in network.named_parameters():
        asked = (
            recipe.method in ("full", "energies")  # of which the latter does no step
            or (recipe.method == "bias" and name.endswith("bias"))
            or (recipe.method == "head" and name.startswith(tuning.heads))
            or (fresh and name.startswith(RESHAPED))
        )
        if asked and name.startswith(tuning.learns):
            weight.requires_grad_(True)


def _merged(model: Model) -> Model:
    network = copy.deepcopy(model.network)
    merged(network)
    return replace(model, network=network)


def _union(old: ValidRange, new: ValidRange) -> ValidRange:
    """Where either is valid."""
    return ValidRange(
        energy_mev=_hull(old.energy_mev, new.energy_mev),
        theta=_hull(old.theta, new.theta),
        pdg=tuple(sorted({*old.pdg, *new.pdg})),
        detectors=tuple(sorted({*old.detectors, *new.detectors})),
        descriptors=tuple(map(_hull, old.descriptors, new.descriptors)),
    )


def _hull(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _closed(run: Run, found: Adaptation, base: Model, old: Sequence[ShowerStream]) -> Adaptation:
    """Judge what was kept, on new and old showers, and write it down."""
    kept = run.kept()
    device = run.fabric.device
    base.network.to(device)
    base.scale.to(device)
    guards = [(stream.detectors[0].name, feed(stream, device)) for stream in old]
    found = replace(
        found,
        after=run.best.loss if run.best else None,
        guarded=tuple(
            Guarded(name, len(seen), *(mean_loss(m, seen, adapting=True) for m in (base, kept)))
            for name, seen in guards
        ),
    )  # fmt: skip
    record = described(found)
    run.model.notes["adaptation"] = {k: v for k, v in record.items() if k != "out"}
    save(run)
    with atomic_path(run.out / "adaptation.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return found
