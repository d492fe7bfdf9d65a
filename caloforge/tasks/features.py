"""What a pretrained model sees in a shower: its tokens after a block, pooled to one row.

*Pooling.* The mean over all tokens forgets where along the depth something was; ``front`` also has
the first tokens one by one, for where a shower begins tells a photon from an electron. ``odds`` is
for which particle each place speaks, and no more: only a prior says it (`likelihood`).

The shower is shown at a noise level of choice (1: as it is; features of noisy inputs are those of a
diffusion model in the sense of arXiv:2307.08702), under conditions that do not know the primary
(`blind`), and the tokens after a block are normalised and pooled. In front stand the logarithm of
the energy that the visible energy suggests, its square, and the root of that energy: the
preprocessing takes the total out of what the network sees, so it has to be given back.

A family of models takes part with one function in `TOKENS`, which gives its tokens, and one in
`CUTS`, which gives its first blocks. A prior reads showers as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.models.masked import MaskedTransformer
from caloforge.learn.models.prior import Prior
from caloforge.learn.preprocess import Scaled
from caloforge.progress import progress
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind
from caloforge.tasks.likelihood import ODDS, cut_prior, prior_tokens

__all__ = ["POOLS", "SCALARS", "TOKENS", "View", "cut", "features", "glances", "scalars", "seen"]

FRONT = 4  # Tokens along the depth.
SCALARS = 3  # Features that are not the network's, see the module.


@dataclass(frozen=True)
class View:
    """How a model looks at a shower: after which `block` (1 is the first), by which `pooling` of
    `POOLS`, at which noise `level` (1: clean), with the noise of which `seed`.
    """

    block: int = 1
    pooling: str = "mean+total"
    level: float = 1.0
    seed: int = 0

    def check(self, network: Any) -> View:
        """Return itself; raises `RequestError` for what the network or the module has not."""
        sentences = isinstance(network, Prior)
        if type(network) not in TOKENS or (sentences and not network.config.tokeniser.layers):
            raise RequestError("features come from a diffusion model, a masked transformer or a "
                               "prior with layers; name one with --model")  # fmt: skip
        blocks = len(network.blocks)
        if not 1 <= self.block <= blocks:
            raise RequestError(f"the model has blocks 1 to {blocks}; there is no {self.block}")
        if self.pooling not in POOLS:
            raise RequestError(f"unknown pooling '{self.pooling}'; known are {', '.join(POOLS)}")
        if not 0 < self.level <= 1:
            raise RequestError("the noise level must be above 0 (noise) and at most 1 (clean)")
        if self.pooling == "odds" and not sentences:
            raise RequestError("pooling 'odds' needs a likelihood; take a prior, such as 'codes'")
        if sentences and self.level != 1:
            raise RequestError("a prior reads showers as they are; leave the noise level at 1")
        return self


# --- families -----------------------------------------------------------------------------------


Network = TypeVar("Network", bound=nn.Module)


def diffusion_tokens(
    network: DiffusionTransformer, scale: Any, voxels: Tensor, given: Conditions, view: View
) -> Tensor:
    """Tokens (B, 1 + T, D) of a (cut) diffusion transformer, the total's first."""
    noisy = noised(scale(voxels, given), view, network.colour)
    level = torch.full((len(voxels), 1), view.level, device=voxels.device)
    return network.trunk(noisy, level, level[:, 0], given)[0]


def masked_tokens(
    network: MaskedTransformer, scale: Any, voxels: Tensor, given: Conditions, view: View
) -> Tensor:
    """Tokens (B, 1 + T, D) of a masked transformer, nothing hidden; the first is their mean."""
    tokens = network.tokens(noised(scale(voxels, given), view).voxels, given, view.block)
    tokens = F.layer_norm(tokens, tokens.shape[-1:])
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


def tokens_of_a_prior(
    network: Prior, scale: Any, voxels: Tensor, given: Conditions, view: View
) -> Tensor:
    """Tokens (B, 1 + N, `ODDS` + D) of a prior, by depth, see `prior_tokens`."""
    return prior_tokens(network, scale, voxels, given, view.block)


def noised(clean: Scaled, view: View, colour: Tensor | None = None) -> Scaled:
    """A shower at the noise level of a view, with voxels (B, R, PHI, Z); no unit.

    One and the same noise for all: features of a shower depend on nothing but the shower.
    """
    if view.level == 1:
        return clean
    draw = torch.Generator().manual_seed(view.seed)
    voxels, energies = (torch.randn(p.shape[1:], generator=draw).to(p) for p in clean)
    if colour is not None:
        energies = energies @ colour
    return Scaled(
        torch.lerp(voxels.expand_as(clean.voxels), clean.voxels, view.level),
        torch.lerp(energies.expand_as(clean.energies), clean.energies, view.level),
    )


def cut_diffusion(network: DiffusionTransformer, block: int) -> DiffusionTransformer:
    """Copy of the first blocks, without heads; the last modulation is none, a norm only."""
    part = copy.deepcopy(network)
    part.blocks = part.blocks[:block]
    for layer in (part.last_modulation.weight, part.last_modulation.bias):
        nn.init.zeros_(layer)
    return _headless(part)


def cut_masked(network: MaskedTransformer, block: int) -> MaskedTransformer:
    """Copy of the first blocks, without decoder and heads."""
    part = copy.deepcopy(network)
    part.blocks, part.decoder = part.blocks[:block], part.decoder[:0]
    return _headless(part)


def _headless(part: Network) -> Network:
    for name, _ in list(part.named_children()):
        if name.startswith(("head_", "neighbours")):
            delattr(part, name)
    return part


# From a (cut) network, its preprocessing, voxels in MeV, conditions and a view.
Tokens = Callable[[Any, Any, Tensor, Conditions, View], Tensor]
TOKENS: Mapping[type[nn.Module], Tokens] = MappingProxyType(
    {
        DiffusionTransformer: diffusion_tokens,
        MaskedTransformer: masked_tokens,
        Prior: tokens_of_a_prior,
    }
)
CUTS: Mapping[type[nn.Module], Callable[[Any, int], Any]] = MappingProxyType(
    {DiffusionTransformer: cut_diffusion, MaskedTransformer: cut_masked, Prior: cut_prior}
)


def cut(network: Any, block: int) -> Any:
    """Copy of a network up to a block (1 is the first), which is all that features need."""
    return CUTS[type(network)](network, block)


# --- pooling ------------------------------------------------------------------------------------


def _mean(tokens: Tensor, _: tuple[int, int, int]) -> Tensor:
    return tokens[:, 1:].mean(dim=1)


def _mean_and_total(tokens: Tensor, _: tuple[int, int, int]) -> Tensor:
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def _front(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The total's token, the mean of all, and the means of the first few steps in depth."""
    b, _, d = tokens.shape
    layers = tokens[:, 1:].reshape(b, -1, grid[2], d).mean(dim=1)  # (B, Gz, D)
    return torch.cat([_mean_and_total(tokens, grid), layers[:, :FRONT].flatten(1)], dim=1)


def _odds(tokens: Tensor, _: tuple[int, int, int]) -> Tensor:
    return tokens[..., :ODDS].flatten(1)


POOLS: Mapping[str, Callable[[Tensor, tuple[int, int, int]], Tensor]] = MappingProxyType(
    {"mean": _mean, "mean+total": _mean_and_total, "front": _front, "odds": _odds}
)


# --- rows ---------------------------------------------------------------------------------------


def seen(network: Any, scale: Any, given: Conditions, voxels: Tensor, view: View
         ) -> Tensor:  # fmt: skip
    """Features (B, SCALARS + F) of voxels (B, R, PHI, Z) in MeV, under conditions of `Blind`.

    `network` is cut already. Gradients flow to its weights.
    """
    tokens = TOKENS[type(network)](network, scale, voxels, given, view)
    pooled = POOLS[view.pooling](tokens, _grid(network))
    return torch.cat([scalars(given), pooled], dim=1)


def _grid(network: Any) -> tuple[int, int, int]:
    """Tokens in r, phi and z."""
    if isinstance(network, Prior):
        return 1, 1, network.config.tokeniser.tokens
    grid: tuple[int, int, int] = network.patches.grid
    return grid


def scalars(given: Conditions) -> Tensor:
    """ln(E/GeV) of the assumed energy, its square, and the root of E/GeV (B, SCALARS)."""
    x = (given.energy / 1e3).log()
    return torch.stack([x, x.square(), (x / 2).exp()], dim=1)


def glances(showers: Showers, device: torch.device, batch: int = 64) -> Iterator[Tensor]:
    """Voxels (B, R, PHI, Z) in MeV of all showers, batch by batch."""
    for start in range(0, len(showers), batch):
        yield torch.from_numpy(showers[start : start + batch].dense()).to(device)


@torch.inference_mode()
def features(model: Model, showers: Showers, view: View) -> NDArray[np.float32]:
    """Features (N, SCALARS + F) of N showers, energies in them as ln(E/GeV), in batches.

    The network of `model` may be whole or cut. Raises `RequestError` if the showers do not say
    their detector or their mesh does not fit the model.
    """
    check_showers(model, showers)
    assert showers.detector is not None
    network = cut(model.network, view.block).eval()
    device = next(network.parameters()).device
    blind, rows = Blind(model.scale, showers.detector, device), []
    with progress("features", len(showers), "showers") as advance:
        for voxels in glances(showers, device):
            rows.append(seen(network, model.scale, blind(voxels), voxels, view).cpu().numpy())
            advance(len(voxels))
    return np.concatenate(rows).astype(np.float32)


def check_showers(model: Model, showers: Showers) -> None:
    """Refuse, with `RequestError`, showers without a detector or on a mesh of other cells."""
    if showers.detector is None:
        raise RequestError("the showers do not say their detector; convert them with --detector")
    shape = model.network.config.shape
    if showers.mesh.shape != shape:
        raise RequestError(f"the showers are on a mesh of {showers.mesh.shape} cells, the model "
                           f"knows {shape}; take showers on such a mesh")  # fmt: skip
    if len(showers) == 0:
        raise RequestError("there are no showers in the file; give another")
