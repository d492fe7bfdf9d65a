r"""Messages between the hits of a shower.

A hit of state h is sent :math:`\mathrm{silu}(A h + B g + C w)` by its neighbour of state g at the
relative place w (edge convolutions, Wang et al., arXiv:1801.07829, with the linear parts taken out
of the edges, which are many). The mean of what it is sent, weighed with how much each neighbour
counts, changes its state, together with that state and the mean of the shower.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from caloforge.learn.hits import Hits
from caloforge.learn.neighbours import WAYS

with warnings.catch_warnings():  # of what the library itself imports
    warnings.simplefilter("ignore")
    from torch_geometric.nn import MessagePassing

__all__ = ["Messages"]


class Messages(MessagePassing):  # type: ignore[misc]
    """One round of messages between hits of D numbers; it starts as no change."""

    def __init__(self, width: int) -> None:
        super().__init__(aggr="sum")
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, width)
        self.other = nn.Linear(width, width, bias=False)
        self.where = nn.Linear(WAYS, width, bias=False)
        self.mix = nn.Linear(3 * width, width)
        self.change = nn.Linear(width, width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, states: Tensor, hits: Hits) -> Tensor:
        """States (N, D) after a round, from states (N, D)."""
        x, graph = self.norm(states), hits.graph
        near = self.propagate(
            graph.edges, own=self.own(x), other=self.other(x), way=graph.way, weight=graph.weight
        )  # (N, D)
        around = hits.mean(x)[hits.shower]  # (N, D)
        mixed: Tensor = self.change(F.silu(self.mix(torch.cat([x, near, around], dim=1))))
        return states + mixed

    def message(self, own_i: Tensor, other_j: Tensor, way: Tensor, weight: Tensor) -> Tensor:
        """What the neighbours (E, D) tell the hits (E, D), from where (E, 5), by weight (E,)."""
        sent: Tensor = F.silu(own_i + other_j + self.where(way))
        return sent * weight[:, None]
