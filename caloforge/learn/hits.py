"""The hits of showers: cells that are filled, as a list without the many that are not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caloforge.learn.neighbours import Graph, nearest, places

__all__ = ["Hits", "hits_of"]


class Hits(NamedTuple):
    """N hits of B showers, shower by shower: number of the shower, r, phi and z (N,), their
    neighbours, and how many each shower has (B,).
    """

    shower: Tensor
    r: Tensor
    phi: Tensor
    z: Tensor
    graph: Graph
    sizes: Tensor

    def of(self, cells: Tensor) -> Tensor:
        """Values (N, ...) at the hits of values (B, R, PHI, Z, ...) of cells."""
        return cells[self.shower, self.r, self.phi, self.z]

    def to_cells(self, values: Tensor, like: Tensor) -> Tensor:
        """Undo `of`: (B, R, PHI, Z) with values (N,) at the hits, and `like` elsewhere."""
        return like.index_put((self.shower, self.r, self.phi, self.z), values)

    def mean(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean (B, D) over the hits of each shower of values (N, D), weighed with (N,)."""
        weight = torch.ones_like(values[:, 0]) if weight is None else weight
        zeros = values.new_zeros(len(self.sizes), values.shape[1])
        total = zeros.index_add(0, self.shower, values * weight[:, None])
        share = zeros[:, 0].index_add(0, self.shower, weight)
        return total / share.clamp(min=1e-6)[:, None]


def hits_of(filled: Tensor, pitch: Tensor, rank: Tensor, most: int, k: int) -> Hits:
    """Hits, with k neighbours each, of filled cells (B, R, PHI, Z) of the size `pitch` (B, 2).

    Of more than `most` in a shower those of the highest `rank` (B, R, PHI, Z) are kept.
    """
    flat = filled.flatten(1)
    if int(flat.sum(1).max()) > most:
        order = rank.flatten(1).masked_fill(~flat, -torch.inf).argsort(1, descending=True)
        flat = flat & torch.zeros_like(flat).scatter(1, order[:, :most], True)
    shower, r, phi, z = flat.reshape(filled.shape).nonzero(as_tuple=True)
    graph = nearest(places(r, phi, z, pitch[shower], filled.shape[2]), flat.sum(1), k)
    return Hits(shower, r, phi, z, graph, flat.sum(1))
