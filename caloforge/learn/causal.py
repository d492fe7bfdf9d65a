"""Transformer blocks in which a token sees itself and those before it, all tokens at once.

One after the other, with what is known of the earlier ones remembered (Shazeer, arXiv:1911.02150,
section 2.3), `caloforge.learn.models.speaker` has them.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.learn.blocks import Attention, Block

__all__ = ["CausalAttention", "CausalBlock"]


class CausalAttention(Attention):
    """Attention over tokens (B, T, D) of which none sees a later one."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, T, D) to (B, T, D)."""
        mixed = F.scaled_dot_product_attention(*self.split(x), is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class CausalBlock(Block):
    """A `Block` on tokens (B, T, D) of which none sees a later one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, CausalAttention)
