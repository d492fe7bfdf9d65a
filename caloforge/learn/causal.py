"""Transformer blocks in which a token sees itself and those before it, with a memory.

All tokens at once for training; one after the other for generation, when the keys and values of
the earlier ones are remembered and not worked out again (Shazeer, arXiv:1911.02150, section 2.3).
Both ways give the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.learn.blocks import Attention, Block

__all__ = ["CausalAttention", "CausalBlock", "Memory"]


class Memory:
    """Keys and values (B, H, T, D/H) of the tokens that a block has seen, of at most `length`."""

    def __init__(self, length: int) -> None:
        self.length, self.seen = length, 0
        self.keys, self.values = torch.empty(0), torch.empty(0)

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Remember those of new tokens (B, H, T, D/H); returns those of all tokens so far."""
        if not self.seen:
            b, h, _, d = keys.shape
            self.keys = keys.new_empty(b, h, self.length, d)
            self.values = values.new_empty(b, h, self.length, d)
        first, self.seen = self.seen, self.seen + keys.shape[2]
        self.keys[:, :, first : self.seen] = keys
        self.values[:, :, first : self.seen] = values
        return self.keys[:, :, : self.seen], self.values[:, :, : self.seen]


class CausalAttention(Attention):
    """Attention over tokens (B, T, D) of which none sees a later one."""

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """Attend: (B, T, D) to (B, T, D); with a `memory`, one token after those in it."""
        q, k, v = self.split(x)  # each (B, H, T, D/H)
        if memory is not None:
            assert x.shape[1] == 1
            k, v = memory.extended(k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class CausalBlock(Block):
    """A `Block` on tokens (B, T, D) of which none sees a later one; a `Memory` may be told."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, CausalAttention)
