"""Noise that belongs to a shower: the same whatever the batch in which the shower is made."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.preprocess import Scaled, quantities

__all__ = ["Noise"]


class Noise:
    """Standard normal numbers for B showers, each from a stream of its own seed (B,)."""

    def __init__(self, seeds: NDArray[np.uint64], device: torch.device) -> None:
        self.device = device
        self.streams = [torch.Generator().manual_seed(int(s >> 1)) for s in seeds.astype(object)]

    def start(self, network: DiffusionTransformer) -> Scaled:
        """Noise in the place of voxels (B, R, PHI, Z) and energies (B, K), to draw showers from."""
        energies, shape = quantities(network.sketch, network.config.counted), network.config.shape
        noise = self._rows(energies + math.prod(shape))
        return Scaled(noise[:, energies:].reshape(-1, *shape), noise[:, :energies])

    def fresh(self, x: Tensor) -> Tensor:
        """More noise, in the shape of x (B, ...)."""
        return self._rows(x[0].numel()).reshape(x.shape)

    def _rows(self, count: int) -> Tensor:
        rows = [torch.randn(count, generator=stream) for stream in self.streams]
        return torch.stack(rows).to(self.device)
