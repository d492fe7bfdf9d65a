"""Encoder and decoder of dense layers, as in the variational autoencoder of Geant4's Par04.

Every layer is followed by a leaky rectifier and that by a batch normalisation (Ioffe and Szegedy,
arXiv:1502.03167); the decoder mirrors the encoder (D. Salamani, A. Zaborowska, W. Pokorski,
Phys. Lett. B 844 (2023) 138079, doi:10.1016/j.physletb.2023.138079).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caloforge.learn.models.latent import Even, Posterior
from caloforge.learn.preprocess import Scaled

__all__ = ["LEAK", "DenseDecoder", "DenseEncoder", "Normalisation"]

LEAK = 0.2  # Slope of the rectifier below zero: what Keras means by "leaky_relu".
MOMENTUM, EPSILON = 0.1, 1e-3


class Normalisation(nn.Module):
    """Brings numbers (B, D) to mean 0 and spread 1 over a batch, then to a learned size and place.

    Once trained it uses the moments that it has kept. They are the batches' own, as in Keras: torch
    keeps the variance that a batch's says of all, B/(B - 1) times as much, and through eight layers
    a trained network would be another one than was learned.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, D)."""
        x, mean, variance = x.float(), self.mean, self.variance
        if self.training:
            mean, variance = x.mean(0), x.var(0, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.variance.lerp_(variance, MOMENTUM)
        return (x - mean) * torch.rsqrt(variance + EPSILON) * self.gain + self.shift

    def line(self) -> tuple[Tensor, Tensor]:
        """Factor and summand (D,) that it is once trained."""
        factor = self.gain * torch.rsqrt(self.variance + EPSILON)
        return factor, self.shift - factor * self.mean


def stack(sizes: Sequence[int]) -> nn.Sequential:
    """Dense layers from sizes[0] numbers to sizes[-1], each rectified and normalised."""
    layers: list[nn.Module] = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(before, after), nn.LeakyReLU(LEAK), Normalisation(after)]
    return nn.Sequential(*layers)


class DenseEncoder(nn.Module):
    """From voxels, `divisors` K and `told` conditions C to what z (B, L) may be."""

    def __init__(
        self, shape: tuple[int, int, int], divisors: int, told: int, layers: Sequence[int],
        latent: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.even = Even(shape)
        self.hidden = stack([math.prod(shape) + divisors + told, *layers])
        self.head = nn.Linear(layers[-1], 2 * latent)

    def fit(self, clean: Scaled) -> None:
        """Fit the scale of what is seen to showers (N, ...)."""
        self.even.fit(clean.voxels)

    def forward(self, clean: Scaled, told: Tensor) -> Posterior:
        """What z (B, L) may be, from showers (B, ...) and conditions (B, C)."""
        seen = [self.even(clean.voxels).flatten(1), clean.energies, told]
        both: Tensor = self.head(self.hidden(torch.cat(seen, dim=1)))
        mean, log_variance = both.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-12.0, 6.0))


class DenseDecoder(nn.Module):
    """From z and conditions, in this order, to voxels and divisors; `layers` are the encoder's."""

    def __init__(
        self, shape: tuple[int, int, int], divisors: int, told: int, layers: Sequence[int],
        latent: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = shape
        self.hidden = stack([latent + told, *reversed(layers)])
        self.head = nn.Linear(layers[0], math.prod(shape) + divisors)

    @torch.no_grad()
    def fit(self, clean: Scaled, logits: bool) -> None:
        """Begin at the mean of showers (N, ...), in logits if voxels lie in [0, 1]."""
        mean = clean.voxels.mean(0).flatten()
        self.head.bias[: len(mean)] = mean.clamp(1e-9, 1 - 1e-6).logit() if logits else mean

    def forward(self, z: Tensor, told: Tensor) -> Scaled:
        """Voxels (B, R, PHI, Z) and divisors (B, K) from z (B, L) and conditions (B, C)."""
        found: Tensor = self.head(self.hidden(torch.cat([z, told], dim=1)))
        cells = math.prod(self.shape)
        return Scaled(found[:, :cells].reshape(-1, *self.shape), found[:, cells:])
