"""What training, checkpoints and generation have to know of a kind of model.

Each kind is one module, read from top to bottom, that ends in its `FAMILY`. Modules are imported
when a model of their kind is met: some of them need a library that others do not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from caloforge.errors import RequestError
from caloforge.learn.condition import Conditions
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe

__all__ = [
    "FAMILIES", "Aim", "Family", "Manner", "Tuning", "check_size", "family", "only",
    "refuse_unread",
]  # fmt: skip

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "diffusion": "caloforge.learn.models.denoiser",
        "vit": "caloforge.learn.models.masked",
        "vae": "caloforge.learn.models.vae",
        "broadcast": "caloforge.learn.models.broadcast",
        "graph": "caloforge.learn.models.graph",
        "vqvae": "caloforge.learn.models.vqvae",
        "prior": "caloforge.learn.models.prior",
    }
)


@dataclass(frozen=True)
class Aim:
    """What of a training run shapes its loss beside the network; the default is validation.

    masked, untold: see `Recipe`; done: share of the run that is done, 0 to 1 (for warm-up);
    adapting: everything that may learn of a new detector does, also what was trained before.
    """

    masked: float = 0.0
    untold: float = 0.0
    done: float = 1.0
    adapting: bool = False


@dataclass(frozen=True)
class Manner:
    """How showers are drawn; None is what suits the model.

    steps, sampler: of a diffusion model; steps also of voxels that are drawn in parts; guidance:
    exaggeration of the conditions; temperature, top_k: of tokens that are drawn one after the
    other.
    """

    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class Tuning:
    """What of a model may be made to fit one more detector (`caloforge.learn.adapt`).

    energies: draws whitened energies (B, K) of showers from a network, conditions and noise, to
    which the whitening is corrected, or None for a network that draws none; heads: how the names of
    weights begin that say what is believed of voxels and energies; learns: of all that may learn;
    first, last: fit in seconds, with every method, what is fitted before the first step and after
    the last one: to voxels (N, R, PHI, Z) in MeV and their conditions, given before them the
    network and its preprocessing, or the preprocessing and what draws showers of one detector, and
    after them how many to draw at most.
    """

    energies: Callable[[Any, Conditions, Noise], Tensor] | None
    heads: tuple[str, ...]
    learns: tuple[str, ...] = ("",)
    first: Callable[[Any, Any, Tensor, Conditions], None] | None = None
    last: Callable[[Any, Any, Tensor, Conditions, int], None] | None = None


def _untuned(model: Any, name: str, shape: tuple[int, int, int]) -> Tuning:
    raise RequestError(
        f"'{name}' is of kind '{model.family}', which cannot be adapted; take a diffusion model, "
        "or a prior with layers"
    )


@dataclass(frozen=True)
class Family:
    """How a kind of model is planned, built, taught and drawn from.

    plan: configuration from a recipe, a mesh and a number of detectors; config: the same from plain
    values; network: a network of a configuration, with ``fit(features (N, F), clean)``;
    scale: its preprocessing, unfitted (`ShowerScale` or `VoxelScale`); begin: what a new network
    takes over from trained ones; losses: named parts of the loss of a batch, each ();
    settle: checks the manner of a `Model`, in `RequestError`s that name it, and fills it; draw:
    voxels (B, R, PHI, Z) in MeV, or None for a kind that does not generate, and why; measure: what
    is reported beside the loss, from the batches of the validation split; tuning: how a `Model` is
    adapted to a mesh (cells in r, phi, z), in `RequestError`s that name it if it cannot be.
    """

    plan: Callable[[Recipe, tuple[int, int, int], int], Any]
    config: Callable[[Mapping[str, Any]], Any]
    network: Callable[[Any], nn.Module]
    scale: Callable[[Any], nn.Module]
    losses: Callable[[Any, Scaled, Conditions, torch.Generator, Aim], dict[str, Tensor]]
    begin: Callable[[Recipe, Any, Any], None] = lambda recipe, network, scale: None
    settle: Callable[[Any, Manner, str], Manner] = lambda model, asked, name: only(asked, name)
    draw: Callable[[Any, Any, Conditions, Noise, Manner], Tensor] | None = None
    why: str = ""
    measure: Callable[[Any, Iterable[tuple[Scaled, Conditions]]], dict[str, float]] = (
        lambda network, showers: {}
    )
    tuning: Callable[[Any, str, tuple[int, int, int]], Tuning] = _untuned


def family(name: str) -> Family:
    """Return a kind of model by its name; raises `RequestError` if its library is missing."""
    try:
        module = importlib.import_module(FAMILIES[name])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("caloforge"):
            raise
        raise RequestError(
            f"models of kind '{name}' need '{error.name}': pip install 'caloforge[models]'"
        ) from None
    return cast(Family, module.FAMILY)


def only(asked: Manner, name: str, *known: str) -> Manner:
    """Return `asked` if it says nothing but what is `known`; else raise `RequestError`."""
    for field in fields(asked):
        if field.name not in known and getattr(asked, field.name) is not None:
            option = field.name.replace("_", "-")
            raise RequestError(f"'{name}' is drawn without --{option}; leave it out")
    return asked


def check_size(recipe: Recipe, sizes: Collection[str]) -> None:
    """Refuse, with `RequestError`, a size that the kind of a recipe does not have."""
    if recipe.size not in sizes:
        raise RequestError(f"{recipe.model} has no size '{recipe.size}'; choose {', '.join(sizes)}")


def refuse_unread(recipe: Recipe, *names: str) -> None:
    """Refuse, with `RequestError`, keys that were set although the kind does not read them."""
    for name in names:
        if getattr(recipe, name) != Recipe.model_fields[name].default:
            raise RequestError(f"'{name}' is not read by model = '{recipe.model}'; leave it out")
