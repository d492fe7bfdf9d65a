"""Transformer blocks, on torch's own attention.

The block is that of the diffusion transformer (Peebles and Xie, arXiv:2212.09748): the condition
shifts, scales and gates each sublayer (adaLN-Zero). One shared network makes the modulation and
each block adds a learned table (adaLN-single, Chen et al., arXiv:2310.00426), which halves the
parameters. Queries and keys are normalised (arXiv:2302.05442), which keeps half precision stable.

Attention sees patches; `Neighbours` lets a voxel see the voxels beside it, with the same weights
everywhere, because tracks cross from cell to cell in every detector alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["Attention", "Block", "Neighbours", "modulate"]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens x (B, T, D) by shift and scale (B, 1, D)."""
    return x * (1 + scale) + shift


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, T, D) to (B, T, D)."""
        mixed = F.scaled_dot_product_attention(*self.split(x))  # (B, H, T, D/H)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, D/H) of tokens (B, T, D)."""
        b, t, d = x.shape
        qkv, h = self.qkv(x), self.heads
        # Queries and keys are normalised together: half as many small operations.
        size = torch.stack([self.query_norm.weight, self.key_norm.weight])
        both = F.rms_norm(qkv[..., : 2 * d].reshape(b, t, 2 * h, d // h), (d // h,), eps=1e-6)
        both = (both * size.repeat_interleave(h, dim=0)).type_as(qkv).transpose(1, 2)
        q, k = both.chunk(2, dim=1)  # each (B, H, T, D/H)
        return q, k, qkv[..., 2 * d :].reshape(b, t, h, d // h).transpose(1, 2)


class Block(nn.Module):
    """One transformer block on tokens (B, T, D), modulated by (B, 6, D)."""

    def __init__(self, width: int, heads: int, attention: type[Attention] = Attention) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Transform tokens (B, T, D) under a modulation (B, 6, D)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).chunk(
            6, dim=1
        )
        x = x + gate_a * self.attention(modulate(self.norm(x), shift_a, scale_a))
        mixed: Tensor = self.mlp(modulate(self.norm(x), shift_m, scale_m))
        return x + gate_m * mixed


class Neighbours(nn.Module):
    """Corrects K quantities per voxel by what stands in the voxels around: two convolutions.

    phi closes on itself; beyond the mesh in r and z there is nothing. It starts as no correction.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, hidden, 3, padding=(1, 0, 1))
        self.gain = nn.Linear(width, 2 * hidden)
        self.second = nn.Conv3d(hidden, outputs, 3, padding=(1, 0, 1))
        for layer in (self.gain, self.second):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Correction (B, outputs, R, PHI, Z) from x (B, inputs, R, PHI, Z), condition (B, D)."""
        hidden: Tensor = self.first(_around(x))  # (B, H, R, PHI, Z)
        correction: Tensor = self.second(_around(self._lit(hidden, condition)))
        return correction

    def hidden(self, x: Tensor, first: int) -> Tensor:
        """What some of the inputs, `first` and those after it (B, I, R, PHI, Z), add to what is
        hidden (B, H, R, PHI, Z); to be told `corrections`.
        """
        return _slabs(x, self.first.weight[:, first : first + x.shape[1]])

    def corrections(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """Correction (B, outputs, R, PHI, Z) of all that is `hidden`, and a condition (B, D)."""
        assert self.first.bias is not None and self.second.bias is not None
        lit = self._lit(hidden + self.first.bias[:, None, None, None], condition)
        return _slabs(lit, self.second.weight) + self.second.bias[:, None, None, None]

    def _lit(self, hidden: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.gain(condition)[..., None, None, None].chunk(2, dim=1)
        return F.silu(hidden * (1 + scale) + shift)


def _slabs(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve voxels (B, I, R, PHI, Z) with weight (O, I, 3, 3, 3), in two dimensions and of three
    rings at a time: runtimes are good at that, and not at three dimensions.
    """
    x = F.pad(_around(x.transpose(1, 2)), (0, 0, 0, 0, 0, 0, 1, 1))  # (B, R + 2, I, PHI + 2, Z)
    rings = torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=2)  # (B, R, 3 I, PHI + 2, Z)
    found = F.conv2d(
        rings.flatten(0, 1), weight.transpose(1, 2).flatten(1, 2), padding=(0, 1)
    )  # fmt: skip
    back: Tensor = found.reshape(-1, rings.shape[1], *found.shape[1:]).transpose(1, 2)
    return back


def _around(x: Tensor) -> Tensor:
    """Put the last phi bin before the first and the first after the last: (..., PHI + 2, Z)."""
    return torch.cat([x[..., -1:, :], x, x[..., :1, :]], dim=-2)
