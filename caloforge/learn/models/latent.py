r"""What every variational autoencoder of the package shares: a latent vector and its losses.

A shower x under conditions c is explained by a few numbers z that are standard normal before it is
seen (Kingma and Welling, arXiv:1312.6114; with conditions: Sohn et al., NeurIPS 2015). The encoder
says what z may be, :math:`q(z|x, c) = N(\mu, \sigma^2)`, the decoder what x is expected given z.
Both learn from one bound,

.. math:: -\ln p(x|c) \le E_q[-\ln p(x|z, c)] + \beta KL(q(z|x, c) | N(0, 1)),

and :math:`z = \mu + \sigma \epsilon` lets the gradient through the draw. :math:`\beta` other than 1
(`kl`; Higgins et al., ICLR 2017) trades how well one shower is told against how well the draws of z
fill the space that the decoder knows; it grows from 0 in the first part of a run (`kl_warmup`;
Bowman et al., arXiv:1511.06349), or the decoder learns to do without z before z says anything.

The first term is the loss of the voxels summed over the cells of a shower. A cross-entropy is the
likelihood of a fraction (of the incident energy, or of the largest voxel), counted from what a
perfect decoder would be left with; the mean square is that of a Gaussian of spread
:math:`1/\sqrt 2`, the mean absolute that of a Laplace law of width 1.

What is drawn is the decoder's expectation: it fluctuates with z, voxels do not fluctuate by
themselves. That is what these models do badly.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from caloforge.learn.condition import Conditions
from caloforge.learn.losses import Loss, read, unit, voxel_loss
from caloforge.learn.models.family import Aim, Manner, check_size, refuse_unread
from caloforge.learn.noise import Noise, normal
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.voxelscale import VoxelScale, divisors

__all__ = [
    "Autoencoder", "Even", "LatentConfig", "Posterior", "checked", "divergence", "draw", "losses",
    "scale",
]  # fmt: skip

SHARP = 0.1  # Spread of the likelihood of a whitened divisor, which fluctuates by 1.
FARTHEST = 5.0  # Spreads of a voxel, as an encoder sees it.


class Posterior(NamedTuple):
    """What z may be: means (B, L) and logarithms of the variances (B, L), no unit."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, draw: torch.Generator) -> Tensor:
        """One z (B, L) of each shower."""
        fresh = normal(draw, self.mean.shape, self.mean.device)
        return self.mean + (self.log_variance / 2).exp() * fresh


def divergence(posterior: Posterior) -> Tensor:
    """Kullback-Leibler divergence (B,) of a posterior from the standard normal; natural units."""
    mean, log_variance = posterior
    terms: Tensor = mean.square() + log_variance.exp() - 1 - log_variance
    return terms.sum(dim=1) / 2


class LatentConfig(Protocol):
    """What the losses have to know of a configuration."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells of the mesh (r, phi, z)."""

    @property
    def latent(self) -> int:
        """Length L of z."""

    @property
    def loss(self) -> Loss:
        """Kind of the loss of the voxels."""

    @property
    def kl(self) -> float:
        """Weight of the divergence."""

    @property
    def kl_warmup(self) -> float:
        """Share of a run in which that weight grows."""

    @property
    def voxels(self) -> VoxelSettings:
        """How voxels are scaled."""


class Autoencoder(Protocol):
    """A network that encodes showers and decodes latent vectors."""

    @property
    def config(self) -> LatentConfig:
        """Its configuration."""

    def encode(self, clean: Scaled, given: Conditions) -> Posterior:
        """What z (B, L) may be, from showers (B, ...)."""

    def decode(self, z: Tensor, given: Conditions) -> Scaled:
        """Voxels (B, R, PHI, Z), as `caloforge.learn.losses.read` takes them, and divisors (B, K)
        from z (B, L).
        """

    def tasks(self, posterior: Posterior, given: Conditions) -> dict[str, Tensor]:
        """Losses () of what else the latent vectors (B, L) of the showers have to tell."""


def losses(
    network: Autoencoder, clean: Scaled, given: Conditions, draw: torch.Generator, aim: Aim
) -> dict[str, Tensor]:
    """Parts of the bound, each () and in natural units a shower, of B showers."""
    config = network.config
    posterior = network.encode(clean, given)
    found = network.decode(posterior.draw(draw), given)
    risen = min(1.0, aim.done / config.kl_warmup) if config.kl_warmup else 1.0
    misses = voxel_loss(config.loss, found.voxels, clean.voxels, given.pitch)
    if config.loss == "bce":  # what a perfect decoder would be left with teaches nothing
        misses = misses - torch.special.entr(clean.voxels) - torch.special.entr(1 - clean.voxels)
    parts = {
        "voxels": misses.flatten(1).sum(dim=1).mean(),
        "divergence": config.kl * risen * divergence(posterior).mean(),
    }
    if divisors(config.voxels):
        far = (found.energies - clean.energies) / SHARP
        parts["divisor"] = far.square().sum(dim=1).mean() / 2
    return parts | network.tasks(posterior, given)


def draw(
    network: Autoencoder, scale: VoxelScale, given: Conditions, noise: Noise, manner: Manner
) -> Tensor:
    """Voxels (B, R, PHI, Z) in MeV of showers under conditions, from one z each."""
    found = network.decode(noise.rows(network.config.latent), given)
    expected = found._replace(voxels=read(network.config.loss, found.voxels))
    return scale.inverse(expected, given)


def scale(config: LatentConfig) -> VoxelScale:
    """Return the preprocessing that belongs to a network, not fitted yet."""
    return VoxelScale(config.voxels, unit(config.loss))


def checked(recipe: Recipe, sizes: tuple[str, ...]) -> None:
    """Refuse sizes that a kind does not have and keys that it does not read: `RequestError`."""
    check_size(recipe, sizes)
    refuse_unread(recipe, "masked", "untold", "start", "calls")


class Even(nn.Module):
    """Voxels as an encoder sees them: each about its own mean, in its own spread.

    A voxel far from the axis is filled in one shower of a hundred and may be thousands of spreads
    away then; it is cut at `FARTHEST`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))

    def fit(self, voxels: Tensor) -> None:
        """Fit to voxels (N, R, PHI, Z); one that is always empty is no reason to divide by 0."""
        spread = voxels.std(0)
        self.mean.copy_(voxels.mean(0))
        self.spread.copy_(spread.clamp(min=1e-3 * float(spread.max()) + 1e-12))

    def forward(self, voxels: Tensor) -> Tensor:
        """Bring voxels (B, R, PHI, Z) to mean 0 and spread 1, one by one."""
        far: Tensor = (voxels - self.mean) / self.spread
        return far.clamp(-FARTHEST, FARTHEST)
