"""Random numbers: of a training step, and of a shower in whatever batch it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Dealt", "Noise", "Numbers", "normal", "uniform"]


def normal(draw: torch.Generator, shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal numbers (B, ...), drawn where `draw` lives and brought to `device`."""
    drawn = torch.randn(tuple(shape), generator=draw, device=draw.device)
    return drawn.to(device, non_blocking=True)


def uniform(draw: torch.Generator, shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform numbers (B, ...) from 0 to 1, drawn where `draw` lives and brought to `device`."""
    drawn = torch.rand(tuple(shape), generator=draw, device=draw.device)
    return drawn.to(device, non_blocking=True)


class Numbers(Protocol):
    """Standard normal numbers for B showers, so many of each at a time."""

    def rows(self, count: int) -> Tensor:
        """Return the next `count` numbers of every shower: (B, count)."""


class Noise:
    """Standard normal numbers for B showers, each from a stream of its own seed (B,)."""

    def __init__(self, seeds: NDArray[np.uint64], device: torch.device) -> None:
        self.device = device
        self.streams = [torch.Generator().manual_seed(int(s >> 1)) for s in seeds.astype(object)]

    def fresh(self, x: Tensor) -> Tensor:
        """More noise, in the shape of x (B, ...)."""
        return self.rows(x[0].numel()).reshape(x.shape)

    def rows(self, count: int) -> Tensor:
        """Return the next `count` numbers of every shower: (B, count)."""
        rows = [torch.randn(count, generator=stream) for stream in self.streams]
        return torch.stack(rows).to(self.device)


class Dealt:
    """Standard normal numbers (B, M) that were drawn before, dealt from left to right."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.place = numbers, 0

    def fresh(self, x: Tensor) -> Tensor:
        """More of them, in the shape of x (B, ...)."""
        return self.rows(math.prod(x.shape[1:])).reshape(-1, *x.shape[1:])

    def rows(self, count: int) -> Tensor:
        """Return the next `count` numbers of every shower: (B, count)."""
        self.place += count
        return self.numbers[:, self.place - count : self.place]
