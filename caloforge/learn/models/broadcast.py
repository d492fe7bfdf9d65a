r"""A variational autoencoder with a transformer for an encoder and a spatial-broadcast decoder.

The dense layers of `caloforge.learn.models.vae` do not know which voxels are neighbours, and each
voxel has weights of its own. Here the shower is cut into patches (`caloforge.learn.tokens`):

- the *encoder* is a transformer over the patches, modulated by the conditions; the mean of its
  tokens says what z may be;
- the *spatial-broadcast decoder* (Watters et al., arXiv:1901.07017) hands the same z to every
  place, adds where that place is and what it is made of, and lets one function, the same
  everywhere, say what is expected there. A patch sees those beside it through a convolution of
  seven points in each layer, and in the larger sizes a voxel those beside it; in phi both, like the
  positions, close on themselves. z says what, the place says where: turn the places and the
  material around the axis by whole patches, and the shower turns with them, exactly.

Either may be replaced by its dense counterpart, which makes the steps from one model to the other.

A second task is the incident energy: its logarithm is a linear function of the mean of z, and the
encoder is not told it. The voxels it sees are divided by the incident energy as ever, so what is
learned is how much of the energy the form of a shower tells, not the resolution of a calorimeter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from caloforge.learn.blocks import Block, Neighbours, modulate
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.losses import Loss, unit
from caloforge.learn.models.dense import DenseDecoder, DenseEncoder
from caloforge.learn.models.family import Family
from caloforge.learn.models.latent import (
    Even,
    Posterior,
    checked,
    draw,
    losses,
    scale,
)
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import BroadcastSettings, VoxelSettings
from caloforge.learn.standard import Standard
from caloforge.learn.tokens import Patches, positions
from caloforge.learn.voxelscale import divisors

__all__ = ["FAMILY", "SIZES", "Broadcast", "BroadcastConfig", "BroadcastDecoder"]

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": dict(patch=(9, 4, 3), width=64, depth=2, heads=4, hidden=0,
                     layers=(100, 50, 20, 14), latent=10),
        "small": dict(patch=(3, 4, 3), width=128, depth=4, heads=4, hidden=16,
                      layers=(400, 200, 100), latent=20),
        "base": dict(patch=(3, 2, 3), width=256, depth=6, heads=8, hidden=32,
                     layers=(1600, 800, 400), latent=40),
    }
)  # fmt: skip
POSITION = 8
_ENERGIES = [FEATURE_NAMES.index(name) for name in ("log_energy", "log_energy_over_critical")]


@dataclass(frozen=True)
class BroadcastConfig:
    """Shape of the network.

    shape, patch: the mesh and a token in cells (r, phi, z); width, heads: of a token; depth: blocks
    of the encoder and layers of the decoder; hidden: channels of the neighbourhood of a voxel,
    0 for none; layers: nodes of a dense encoder; latent: length of z; encoder, decoder, loss, kl,
    kl_warmup, energy: see `BroadcastSettings`; voxels: how they are scaled.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    hidden: int
    layers: tuple[int, ...]
    latent: int
    encoder: str
    decoder: str
    loss: Loss
    kl: float
    kl_warmup: float
    energy: float
    voxels: VoxelSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `config.json`."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BroadcastConfig:
        """Build it from plain values, as they stand in `config.json`."""
        return cls(**tupled(values) | {"voxels": VoxelSettings(**values["voxels"])})


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> BroadcastConfig:
    """Return the configuration that a recipe asks for; the patch is the largest one that divides
    the mesh and is at most that of the size. Raises `RequestError` for a size that there is not.
    """
    checked(recipe, tuple(SIZES))
    asked, size = recipe.broadcast or BroadcastSettings(), dict(SIZES[recipe.size])
    patch = Patches.dividing(shape, size.pop("patch")).size
    values = size | {k: v for k, v in asked.model_dump().items() if v is not None}
    voxels = recipe.voxels or VoxelSettings()
    return BroadcastConfig(shape=shape, patch=patch, voxels=voxels, **values)


class Places(nn.Module):
    """Where the patches are and what they are made of, as tokens (B, T, D)."""

    def __init__(self, patches: Patches, width: int) -> None:
        super().__init__()
        self.patches = patches
        self.where = nn.Linear(6 * POSITION, width)
        self.what = nn.Linear(2 * patches.cells, width, bias=False)

    def forward(self, given: Conditions) -> Tensor:
        """Tokens (B, T, D) of the detectors of B showers."""
        maps = [self.patches.cut(part) for part in given.maps.unbind(1)]
        where = positions(self.patches, given.pitch, POSITION)
        found: Tensor = self.where(where) + self.what(torch.cat(maps, dim=-1))
        return found


class TransformerEncoder(nn.Module):
    """From patches of voxels, divisors and conditions to what z may be."""

    def __init__(self, config: BroadcastConfig) -> None:
        super().__init__()
        d = config.width
        self.patches = Patches(config.shape, config.patch)
        self.even = Even(config.shape)
        self.embed = nn.Linear(self.patches.cells, d)
        self.places = Places(self.patches, d)
        self.condition = nn.Sequential(nn.Linear(len(FEATURE_NAMES), d), nn.SiLU())
        self.modulation = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.head = nn.Linear(2 * d + divisors(config.voxels), 2 * config.latent)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def fit(self, clean: Scaled) -> None:
        """Fit the scale of what is seen to showers (N, ...)."""
        self.even.fit(clean.voxels)

    def forward(self, clean: Scaled, told: Tensor, given: Conditions) -> Posterior:
        """What z (B, L) may be, from showers (B, ...) and standardised features `told` (B, F)."""
        tokens = self.embed(self.patches.cut(self.even(clean.voxels))) + self.places(given)
        c = self.condition(told)  # (B, D)
        modulation = self.modulation(c).reshape(-1, 6, tokens.shape[-1])  # (B, 6, D)
        for block in self.blocks:
            tokens = block(tokens, modulation)  # (B, T, D)
        pooled = torch.cat([self.norm(tokens).mean(dim=1), c, clean.energies], dim=1)
        mean, log_variance = self.head(pooled).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-12.0, 6.0))


class Stencil(nn.Module):
    """A convolution of tokens (B, T, D) over the patch and its six neighbours, number by number."""

    def __init__(self, grid: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.weight = nn.Parameter(torch.zeros(7, width))
        nn.init.ones_(self.weight[0])

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (B, T, D) with their neighbours; beyond the mesh in r and z there is none."""
        x = tokens.reshape(-1, *self.grid, tokens.shape[-1])  # (B, Gr, Gphi, Gz, D)
        r, z = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)), F.pad(x, (0, 0, 1, 1))
        sides = (
            x, x.roll(1, dims=2), x.roll(-1, dims=2),
            r[:, :-2], r[:, 2:], z[..., :-2, :], z[..., 2:, :],
        )  # fmt: skip
        mixed = torch.stack([w * side for w, side in zip(self.weight, sides, strict=True)]).sum(0)
        return mixed.flatten(1, 3)


class BroadcastDecoder(nn.Module):
    """One function of z, the conditions and the place, for every patch; see the module."""

    def __init__(self, config: BroadcastConfig) -> None:
        super().__init__()
        d = config.width
        self.patches = Patches(config.shape, config.patch)
        self.places = Places(self.patches, d)
        self.broadcast = nn.Sequential(
            nn.Linear(config.latent + len(FEATURE_NAMES), d), nn.SiLU(), nn.Linear(d, d)
        )
        self.gains = nn.Linear(d, 2 * d)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(d, eps=1e-6),
                Stencil(self.patches.grid, d),
                nn.Linear(d, 2 * d),
                nn.SiLU(),
                nn.Linear(2 * d, d),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.head = nn.Linear(d, self.patches.cells)
        self.neighbours = Neighbours(3, config.hidden, 1, d) if config.hidden else None
        self.divisor = nn.Linear(d, 1) if divisors(config.voxels) else None
        for layer in (self.gains, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit(self, clean: Scaled, logits: bool) -> None:
        """Begin at the mean of showers (N, ...), the same in every patch."""
        mean = self.patches.cut(clean.voxels.mean(0)[None])[0].mean(0)
        self.head.bias.copy_(mean.clamp(1e-9, 1 - 1e-6).logit() if logits else mean)

    def forward(self, z: Tensor, told: Tensor, given: Conditions) -> Scaled:
        """Voxels (B, R, PHI, Z) and divisors (B, K) from z (B, L) and features `told` (B, F)."""
        return self.at(z, told, self.places(given), given.maps)

    def at(self, z: Tensor, told: Tensor, places: Tensor, maps: Tensor) -> Scaled:
        """The same at `places` (B, T, D) of which the material is `maps` (B, 2, R, PHI, Z)."""
        what = self.broadcast(torch.cat([z, told], dim=1))  # (B, D)
        shift, gain = self.gains(what)[:, None].chunk(2, dim=-1)  # (B, 1, D)
        tokens = what[:, None] + modulate(places, shift, gain)  # (B, T, D)
        for layer in self.layers:
            tokens = tokens + layer(tokens)
        voxels = self.patches.join(self.head(F.silu(self.norm(tokens))))  # (B, R, PHI, Z)
        if self.neighbours is not None:
            around = torch.cat([voxels[:, None], maps], dim=1)  # (B, 3, R, PHI, Z)
            voxels = voxels + self.neighbours(around, what)[:, 0]
        return Scaled(voxels, what[:, :0] if self.divisor is None else self.divisor(what))


class Broadcast(nn.Module):
    """Encodes and decodes showers patch by patch, or by dense layers where it is told to."""

    encoder: Any
    decoder: Any

    def __init__(self, config: BroadcastConfig) -> None:
        super().__init__()
        self.config = config
        self.told = Standard()
        dense = (
            config.shape,
            divisors(config.voxels),
            len(FEATURE_NAMES),
            config.layers,
            config.latent,
        )
        self.whole = {"encoder": config.encoder == "dense", "decoder": config.decoder == "dense"}
        self.encoder = DenseEncoder(*dense) if self.whole["encoder"] else TransformerEncoder(config)
        self.decoder = DenseDecoder(*dense) if self.whole["decoder"] else BroadcastDecoder(config)
        if config.energy:
            self.energy = nn.Linear(config.latent, 1)

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the scales of conditions (N, F) and voxels, and begin at the mean of showers."""
        self.told.fit(features)
        self.encoder.fit(clean)
        self.decoder.fit(clean, unit(self.config.loss))

    def encode(self, clean: Scaled, given: Conditions) -> Posterior:
        """What z (B, L) may be, from showers (B, ...)."""
        if self.config.energy:
            hidden = torch.zeros_like(given.features)
            hidden[:, _ENERGIES] = torch.nan
            given = given._replace(features=given.features + hidden)
        told, more = self.told(given), () if self.whole["encoder"] else (given,)
        found: Posterior = self.encoder(clean, told, *more)
        return found

    def decode(self, z: Tensor, given: Conditions) -> Scaled:
        """Voxels (B, R, PHI, Z), see `Autoencoder`, and divisors (B, K) from z (B, L)."""
        more = () if self.whole["decoder"] else (given,)
        found: Scaled = self.decoder(z, self.told(given), *more)
        return found

    def tasks(self, posterior: Posterior, given: Conditions) -> dict[str, Tensor]:
        """Loss () of the incident energies of B showers, if it is a task: the mean square of the
        logarithm in units of its spread.
        """
        if not self.config.energy:
            return {}
        wanted = self.told(given)[:, _ENERGIES[0]]
        found = self.energy(posterior.mean)[:, 0]
        return {"energy": self.config.energy * (found - wanted).square().mean()}

    def regress(self, clean: Scaled, given: Conditions) -> Tensor:
        """Incident energies (B,) in MeV as the means of z tell them; of a model with that task."""
        log = self.energy(self.encode(clean, given).mean)[:, 0]
        spread, mean = self.told.spread[_ENERGIES[0]], self.told.mean[_ENERGIES[0]]
        gev: Tensor = (log * spread + mean).exp()
        return 1e3 * gev


FAMILY = Family(
    plan=plan, config=BroadcastConfig.from_dict, network=Broadcast, scale=scale, losses=losses,
    draw=draw,
)  # fmt: skip
