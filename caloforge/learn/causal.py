"""Transformer blocks in which a token sees itself and those before it, with a memory.

All tokens at once for training; one after the other for generation, when the keys and values of
the earlier ones are remembered and not worked out again (Shazeer, arXiv:1911.02150, section 2.3).
Both ways give the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.learn.blocks import Attention, Block, modulate

__all__ = ["CausalBlock", "Memory"]


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


class CausalBlock(Block):
    """A `Block` on tokens (B, T, D) of which none sees a later one; modulated by (B, 6, D)."""

    attention: Attention

    def forward(self, x: Tensor, modulation: Tensor, memory: Memory | None = None) -> Tensor:
        """Transform tokens (B, T, D); with a `memory`, one token (B, 1, D) after those in it."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).chunk(
            6, dim=1
        )
        x = x + gate_a * self._looked_back(modulate(self.norm(x), shift_a, scale_a), memory)
        mixed: Tensor = self.mlp(modulate(self.norm(x), shift_m, scale_m))
        return x + gate_m * mixed

    def _looked_back(self, x: Tensor, memory: Memory | None) -> Tensor:
        q, k, v = self.attention.split(x)  # each (B, H, T, D/H)
        if memory is not None:
            assert x.shape[1] == 1
            k, v = memory.extended(k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        return self.attention.output(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]
