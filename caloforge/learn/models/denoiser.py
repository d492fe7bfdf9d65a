"""The foundation model's kind: how its transformer is planned, taught and drawn from.

The network is in `diffusion`, its loss in `process`, its solvers in `samplers`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import (
    SIZES,
    DiffusionConfig,
    DiffusionTransformer,
    config_of,
)
from caloforge.learn.models.family import (
    Aim,
    Family,
    Manner,
    Tuning,
    check_size,
    only,
)
from caloforge.learn.models.process import PROCESSES, denoising_loss
from caloforge.learn.models.samplers import SAMPLERS, draw_energies, sample
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Scaled, ShowerScale, quantities
from caloforge.learn.recipe import Recipe
from caloforge.learn.tokens import Patches

__all__ = ["FAMILY", "start"]


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> DiffusionConfig:
    """Return the configuration that a recipe asks for; `detectors` are told apart if it says so."""
    check_size(recipe, SIZES)
    return config_of(
        recipe.size, shape, process=recipe.process, head=recipe.head, plain=recipe.plain,
        positions=recipe.positions, calls=recipe.calls,
        detectors=detectors if recipe.geometry == "onehot" else 0,
    )  # fmt: skip


def scale(config: DiffusionConfig) -> ShowerScale:
    """Return the preprocessing that belongs to a network, not fitted yet."""
    return ShowerScale(Patches(config.shape, config.sketch), config.counted)


def begin(recipe: Recipe, network: DiffusionTransformer, scale: ShowerScale) -> None:
    """Take over the weights of the model that a recipe starts from, if it names one."""
    if recipe.start:
        _take_over(load_model(recipe.start), network, scale)


@torch.no_grad()
def _take_over(other: Model, network: DiffusionTransformer, scale: ShowerScale) -> None:
    """Take over the weights of another model, and its units of voxels and features.

    What only one of two processes has (its beliefs) begins anew. The whitening of the energies
    stays the one that was fitted to the new showers. Raises `RequestError` for another shape.
    """
    before, now = other.network.config, network.config
    if other.family != "diffusion":
        raise RequestError(f"'start' is a model of kind '{other.family}'; name a diffusion model")
    free: dict[str, Any] = {"calls": now.calls}
    if before.process != now.process:
        free |= {"process": now.process, "mixture": now.mixture}
    if replace(before, **free) != now:
        raise RequestError(f"'start' is a model of another kind ({before}); keep to its kind")
    state = network.state_dict()
    fitted = ("whiten", "colour") if before.process != now.process else ()
    taken = {
        name: value
        for name, value in other.network.state_dict().items()
        if name not in fitted and name in state and value.shape == state[name].shape
    }
    network.load_state_dict(state | taken)
    scale.voxel_mean.copy_(other.scale.voxel_mean)
    scale.voxel_spread.copy_(other.scale.voxel_spread)


def losses(
    network: DiffusionTransformer,
    clean: Scaled,
    given: Conditions,
    draw: torch.Generator,
    aim: Aim,
) -> dict[str, Tensor]:
    """Losses of the energies and of the voxels, both (), of B showers."""
    energies, voxels = denoising_loss(network, clean, given, draw, aim.masked, aim.untold)
    return {"energies": energies, "voxels": voxels}


def settle(model: Model, asked: Manner, name: str) -> Manner:
    """Fill in what suits a model; raises `RequestError` for what it cannot do."""
    process = PROCESSES[model.network.config.process]
    own = model.network.config.calls or process.steps
    only(asked, name, "steps", "sampler", "guidance")
    manner = replace(
        asked,
        steps=own if asked.steps is None else asked.steps,
        sampler=asked.sampler or process.sampler,
        guidance=1.0 if asked.guidance is None else asked.guidance,
    )
    if manner.steps is not None and manner.steps < 1:
        raise RequestError(f"the number of steps must be at least 1, not {manner.steps}")
    if manner.sampler not in SAMPLERS:
        raise RequestError(f"unknown sampler '{manner.sampler}'; known are {', '.join(SAMPLERS)}")
    if manner.guidance != 1 and not model.notes.get("recipe", {}).get("untold"):
        raise RequestError(
            f"'{name}' was always told its conditions and cannot be guided; leave guidance at 1, "
            "or train with untold = 0.1"
        )
    return manner


def start(network: DiffusionTransformer, noise: Noise) -> Scaled:
    """Noise in the place of voxels (B, R, PHI, Z) and energies (B, K), to draw showers from."""
    energies, shape = quantities(network.sketch, network.config.counted), network.config.shape
    rows = noise.rows(energies + math.prod(shape))
    return Scaled(rows[:, energies:].reshape(-1, *shape), rows[:, :energies])


def draw(
    network: DiffusionTransformer, scale: ShowerScale, given: Conditions, noise: Noise,
    manner: Manner,
) -> Tensor:  # fmt: skip
    """Voxels (B, R, PHI, Z) in MeV of showers under conditions."""
    assert manner.steps and manner.sampler and manner.guidance is not None
    drawn = sample(
        network, start(network, noise), given, manner.steps, manner.sampler,
        fresh=noise.fresh, guidance=manner.guidance,
        hits=lambda energies: scale.hits(energies, given),
    )  # fmt: skip
    return scale.inverse(drawn, given, network.config.plain)


def energies(network: DiffusionTransformer, given: Conditions, noise: Noise) -> Tensor:
    """Draw whitened energies (B, K) of showers under conditions."""
    return draw_energies(network, start(network, noise), given, noise.fresh)


def tuning(model: Model, name: str, shape: tuple[int, int, int]) -> Tuning:
    """Say how a model is adapted, on any mesh; raises `RequestError` if it is told an index."""
    config = model.network.config
    if config.detectors:
        raise RequestError(f"'{name}' knows detectors by an index; take one of descriptors")
    return Tuning(None if config.plain else energies, heads=("head_", "neighbours.", "residual."))


FAMILY = Family(
    plan=plan,
    config=DiffusionConfig.from_dict,
    network=DiffusionTransformer,
    scale=scale,
    losses=losses,
    begin=begin,
    settle=settle,
    draw=draw,
    tuning=tuning,
)
