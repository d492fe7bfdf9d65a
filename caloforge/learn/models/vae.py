r"""The variational autoencoder of dense layers of Geant4's example Par04.

The encoder has 100, 50, 20 and 14 nodes, the decoder the same in reverse, z ten numbers: the
smallest network of the field, one multiplication of matrices a shower (`caloforge.learn.models
.dense`; the bound it learns from is in `latent`). What it is told is either

- ``physics``: the features of the primary and of the detector that all kinds are told, or
- ``par04``: the four numbers that Par04 hands to a model of its type ``VAE``, energy over 1,024
  GeV, theta over 90 degrees, and which of two detectors it is. Only such a decoder is made of dense
  layers from beginning to end and can be written for LWTNN (`caloforge.deploy.lwtnn`).

With voxels divided by the incident energy, not transformed, and a cross-entropy, it is Par04's
network. A fraction that small is hardly worth a natural unit: the weight `kl` has to be small as
well, about the energy of a typical voxel over that of the primary, or z says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.errors import RequestError
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.losses import Loss, unit
from caloforge.learn.models.dense import DenseDecoder, DenseEncoder
from caloforge.learn.models.family import Family
from caloforge.learn.models.latent import Posterior, checked, draw, losses, scale
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import VaeSettings, VoxelSettings
from caloforge.learn.standard import Standard
from caloforge.learn.voxelscale import divisors

__all__ = ["FAMILY", "SIZES", "FourNumbers", "Vae", "VaeConfig"]

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": dict(layers=(100, 50, 20, 14), latent=10),  # Par04's
        "small": dict(layers=(400, 200, 100), latent=20),
        "base": dict(layers=(1600, 800, 400), latent=40),
    }
)
MOST_GEV = 1024.0  # Par04 hands over the energy as a share of it.
PAIR = 2  # Detectors in Par04's one-hot.
_D = len(DESCRIPTOR_NAMES)
_COSINE, _SINE = FEATURE_NAMES.index("cos_theta"), FEATURE_NAMES.index("sin_theta")


@dataclass(frozen=True)
class VaeConfig:
    """Shape of the network.

    shape: the mesh in cells (r, phi, z); layers: nodes of the encoder; latent: length of z; loss,
    kl, kl_warmup, conditions: see `VaeSettings`; voxels: how they are scaled.
    """

    shape: tuple[int, int, int]
    layers: tuple[int, ...]
    latent: int
    loss: Loss
    kl: float
    kl_warmup: float
    conditions: str
    voxels: VoxelSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `config.json`."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VaeConfig:
        """Build it from plain values, as they stand in `config.json`."""
        return cls(**tupled(values) | {"voxels": VoxelSettings(**values["voxels"])})


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> VaeConfig:
    """Return the configuration that a recipe asks for.

    Raises `RequestError` for a size that there is not, and for a third detector under ``par04``.
    """
    checked(recipe, tuple(SIZES))
    asked = recipe.vae or VaeSettings()
    if asked.conditions == "par04" and detectors > PAIR:
        raise RequestError(
            f"conditions = 'par04' tells two detectors apart, not {detectors}; give fewer, or use "
            "conditions = 'physics'"
        )
    size = dict(SIZES[recipe.size]) | ({"latent": asked.latent} if asked.latent else {})
    return VaeConfig(
        shape=shape, loss=asked.loss, kl=asked.kl, kl_warmup=asked.kl_warmup,
        conditions=asked.conditions, voxels=recipe.voxels or VoxelSettings(), **size,
    )  # fmt: skip


class FourNumbers(nn.Module):
    """The conditions of Par04's type ``VAE``, brought linearly to mean 0 and spread 1.

    A single detector stands second, where Par04 always points; of two the order is that of their
    descriptors. One that was not trained on is neither.
    """

    known: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("known", torch.zeros(PAIR, _D))
        self.register_buffer("mean", torch.zeros(2 + PAIR))
        self.register_buffer("spread", torch.ones(2 + PAIR))

    def fit(self, features: Tensor) -> None:
        """Fit to features (N, F) of at most two detectors."""
        rows = torch.unique(features[:, -_D:], dim=0)
        self.known[PAIR - len(rows) :] = rows
        energy = features[:, 0].exp() / MOST_GEV
        both = torch.stack([energy, _right_angles(features)], dim=1)
        spread = both.std(0)
        self.mean[:2] = both.mean(0)
        self.spread[:2] = torch.where(spread > 1e-4, spread, torch.ones_like(spread))

    def which(self, features: Tensor) -> Tensor:
        """One-hot (B, 2) of the detectors of features (B, F)."""
        apart = (features[:, None, -_D:] - self.known).abs().amax(dim=2)
        return (apart < 1e-4).to(features.dtype)

    def forward(self, given: Conditions) -> Tensor:
        """The four numbers (B, 4)."""
        energy = given.energy / (1e3 * MOST_GEV)
        both = torch.stack([energy, _right_angles(given.features)], dim=1)
        return (torch.cat([both, self.which(given.features)], dim=1) - self.mean) / self.spread


def _right_angles(features: Tensor) -> Tensor:
    """Theta in units of 90 degrees (B,) of features (B, F)."""
    return torch.atan2(features[:, _SINE], features[:, _COSINE]) / (math.pi / 2)


class Vae(nn.Module):
    """Encodes and decodes showers by dense layers."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        physics = config.conditions == "physics"
        self.told: Standard | FourNumbers = Standard() if physics else FourNumbers()
        told = len(FEATURE_NAMES) if physics else 2 + PAIR
        sizes = config.shape, divisors(config.voxels), told, config.layers, config.latent
        self.encoder, self.decoder = DenseEncoder(*sizes), DenseDecoder(*sizes)

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the scales of conditions (N, F) and voxels, and begin at the mean of showers."""
        self.told.fit(features)
        self.encoder.fit(clean)
        self.decoder.fit(clean, unit(self.config.loss))

    def encode(self, clean: Scaled, given: Conditions) -> Posterior:
        """What z (B, L) may be, from showers (B, ...)."""
        found: Posterior = self.encoder(clean, self.told(given))
        return found

    def decode(self, z: Tensor, given: Conditions) -> Scaled:
        """Voxels (B, R, PHI, Z), see `Autoencoder`, and divisors (B, K) from z (B, L)."""
        found: Scaled = self.decoder(z, self.told(given))
        return found

    def tasks(self, posterior: Posterior, given: Conditions) -> dict[str, Tensor]:
        """No other losses () than those of the bound, of B showers."""
        return {}


FAMILY = Family(
    plan=plan, config=VaeConfig.from_dict, network=Vae, scale=scale, losses=losses, draw=draw
)
