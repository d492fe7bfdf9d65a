r"""Adapters of low rank: a linear layer that is kept, plus a thin product that is learned.

:math:`y = W x + b + B A x` with A (r, in) and B (out, r), B = 0 to begin with, so that an adapted
network starts as the network (LoRA, Hu et al., arXiv:2106.09685). Afterwards :math:`W + B A` is a
weight like any other: the merged network costs and is stored as if nothing had happened.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["LowRank", "merged", "with_adapters"]

Layer = TypeVar("Layer", bound=nn.Module)


class LowRank(nn.Module):
    """A kept linear layer and its adapter of rank `rank`."""

    def __init__(self, kept: nn.Linear, rank: int) -> None:
        super().__init__()
        self.kept = kept.requires_grad_(False)
        bound = kept.in_features**-0.5
        self.down = nn.Parameter(torch.empty(rank, kept.in_features).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(kept.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (..., in) to (..., out)."""
        kept: Tensor = self.kept(x)
        return kept + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the one linear layer that does the same."""
        layer = copy.deepcopy(self.kept)
        layer.weight += self.up @ self.down
        return layer


def with_adapters(network: nn.Module, rank: int, learns: tuple[str, ...] = ("",)) -> None:
    """Give every linear layer that is much larger than `rank`, and whose name begins as one of
    `learns`, an adapter; freeze all the rest.
    """
    network.requires_grad_(False)
    for parent, name, layer in _layers(network, nn.Linear, learns):
        if min(layer.in_features, layer.out_features) >= 2 * rank:
            setattr(parent, name, LowRank(layer, rank))


def merged(network: nn.Module) -> None:
    """Put the adapters into the weights they belong to."""
    for parent, name, layer in _layers(network, LowRank):
        setattr(parent, name, layer.merge())


def _layers(
    network: nn.Module, kind: type[Layer], within: tuple[str, ...] = ("",)
) -> list[tuple[nn.Module, str, Layer]]:
    """Layers of a kind with their parents and names, listed before any is replaced."""
    return [
        (parent, name, child)
        for path, parent in network.named_modules()
        if not isinstance(parent, LowRank)
        for name, child in parent.named_children()
        if isinstance(child, kind) and f"{path}.{name}.".lstrip(".").startswith(within)
    ]
