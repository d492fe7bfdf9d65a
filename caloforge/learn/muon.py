"""The optimiser: Muon for the matrices of the blocks, AdamW for everything else.

Adapters of low rank are no such matrices and go with the rest.

Muon (K. Jordan et al. 2024, kellerjordan.github.io/posts/muon; scaled up in arXiv:2502.16982) keeps
a momentum like SGD and replaces it by the nearest orthogonal matrix before each step, so that every
direction of a weight matrix learns at the same pace. The update is scaled to the size of AdamW's,
and one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from caloforge.learn.blocks import Block
from caloforge.learn.lowrank import LowRank

__all__ = ["Muon", "orthogonal"]

MOMENTUM = 0.95
BETAS = (0.9, 0.98)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration; slope at zero as steep as it goes


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of matrices (..., M, N) near one, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    y: Tensor = x.mT if tall else x
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.mT if tall else y


class Muon(Optimizer):
    """Steps the weights of a network; see the module."""

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        matrices: list[Tensor] = []
        thin: set[int] = set()
        for block in network.modules():
            if isinstance(block, Block):
                matrices += [p for p in block.parameters() if p.ndim == 2 and p is not block.table]
            if isinstance(block, LowRank):
                thin |= {id(block.down), id(block.up)}
        matrices = [p for p in matrices if id(p) not in thin]
        chosen = {id(p) for p in matrices}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in matrices if p.requires_grad], "muon": True},
            {"params": others, "muon": False},
        ]
        super().__init__(
            [group for group in groups if group["params"]],
            dict(lr=lr, weight_decay=weight_decay, step=0),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            group["step"] += 1
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            move = self._muon if group["muon"] else self._adam
            move(parameters, group["lr"], group["step"])

    def _muon(self, parameters: list[Tensor], lr: float, _: int) -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        (momenta,) = self._states(parameters, "momentum")
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(grads, momenta, MOMENTUM)
        # Matrices of one shape go together: on a GPU many small products take long.
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p, gradient in zip(parameters, ahead, strict=True):
            for pair in zip(_matrices(p), _matrices(gradient), strict=True):
                alike.setdefault((pair[0].shape[0], pair[0].shape[1]), []).append(pair)
        for shape, pairs in alike.items():
            updates = orthogonal(torch.stack([gradient for _, gradient in pairs]))
            step = lr * 0.2 * max(shape) ** 0.5
            torch._foreach_sub_([p for p, _ in pairs], list(updates.unbind()), alpha=step)

    def _adam(self, parameters: list[Tensor], lr: float, step: int) -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        means, squares = self._states(parameters, "mean", "square")
        torch._foreach_lerp_(means, grads, 1 - BETAS[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 1 - BETAS[1])
        spreads = torch._foreach_div(squares, 1 - BETAS[1] ** step)
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, 1e-8)
        torch._foreach_addcdiv_(parameters, means, spreads, value=-lr / (1 - BETAS[0] ** step))

    def _states(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """What is remembered of each weight under each name; zeros at first."""
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {name: torch.zeros_like(p) for name in names}
        return [[self.state[p][name] for p in parameters] for name in names]


def _matrices(p: Tensor) -> list[Tensor]:
    """A matrix, or the three of queries, keys and values that are stored as one."""
    return list(p.chunk(3)) if p.shape[0] == 3 * p.shape[1] else [p]
