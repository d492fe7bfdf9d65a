"""The sentences of a prior, place after place, in as few and as small operations as will do.

A place waits for the place before it, so that on one processor the time of a sentence is the number
of its operations rather than their arithmetic. What does not depend on the place is worked out
before the first one: modulations with the tables of the blocks, the vectors of the codes, and
products of matrices that would follow one another. The numbers are those of `Prior.places`, to
rounding.

A code is chosen where the sum of the probabilities up to it passes a uniform number. The sum is
taken in rows, by two products of matrices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.learn.models.belief import FINEST, WIDEST

if TYPE_CHECKING:
    from caloforge.learn.causal import CausalBlock
    from caloforge.learn.models.prior import Prior
    from caloforge.learn.models.profile import Profile

__all__ = ["Choice", "Speaker", "by_chance"]


class Choice(NamedTuple):
    """How a code is chosen: divided by a temperature, and among the `top_k` likeliest, or all."""

    temperature: float = 1.0
    top_k: int | None = None


class Speaker:
    """Draws the sentences of a prior for cells of sizes pitch (B, 2), or (1, 2) for all showers."""

    def __init__(self, network: Prior, pitch: Tensor) -> None:
        self.network, known = network, network.config.tokeniser
        vectors = known_vectors(network)  # (codes, C)
        self.place = network.depths(pitch)  # (P, N, D)
        self.table = network.embed_code.weight + network.embed_vector(vectors)
        near = torch.cat([vectors, vectors.square()], dim=1)
        self.head = (network.head.weight + near @ network.head_vector.weight).T
        self.bias = network.head.bias + near @ network.head_vector.bias
        self.blocks = [_Block(block) for block in network.blocks]
        if known.layers:
            self.profile = _Profile(network.profile)
            self.bias = self.bias + self.profile.bias @ self.head
            self.table = self.table + network.profile.embed.bias

    def draw(
        self, c: Tensor, chance: Tensor, normal: Tensor | None, choice: Choice
    ) -> tuple[Tensor, Tensor | None]:
        """Draw codes (B, N) under conditions (B, D) by uniform numbers (B, N) in [0, 1), and with
        a profile its pairs (B, N, 2) by normal ones (B, N, 3).
        """
        modulation = self.network.modulation(c).reshape(len(c), 8, -1)
        shift, scale = modulation[:, 6], 1 + modulation[:, 7]
        spoken = [block.begin(modulation[:, :6]) for block in self.blocks]
        dice = None if normal is None else self.profile.dice(normal)
        codes, told = [], []
        x = c + self.place[:, 0]
        for k in range(self.place.shape[1]):
            for block in spoken:
                x = block(x)
            x = F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale + shift  # (B, D)
            if dice is not None:
                x, pair = self.profile.draw(x, dice[0][:, k : k + 1], dice[1][:, k])
                told.append(pair)
            logits = torch.addmm(self.bias, x, self.head)  # (B, codes)
            codes.append(chosen(logits, chance[:, k], choice))
            if k + 1 < self.place.shape[1]:
                x = self.table[codes[-1]] + self.place[:, k + 1]
                if dice is not None:
                    x = torch.addmm(x, told[-1], self.profile.embed)
        pairs = None if normal is None else self.profile.pairs(torch.stack(told, dim=1))
        return torch.stack(codes, dim=1), pairs


def known_vectors(network: Prior) -> Tensor:
    """Vectors (codes, C) of all codes."""
    vectors: Tensor = network.tokeniser.quantiser.look_up(network.numbers)
    return vectors


class _Block:
    """A `CausalBlock` with what it does to every place alike worked out."""

    def __init__(self, block: CausalBlock) -> None:
        attention = block.attention
        self.table, self.heads = block.table, attention.heads
        self.inward, self.bias_in = attention.qkv.weight.T, attention.qkv.bias
        self.outward, self.bias_out = attention.output.weight.T, attention.output.bias
        self.up, self.bias_up = block.mlp[0].weight.T, block.mlp[0].bias
        self.down, self.bias_down = block.mlp[2].weight.T, block.mlp[2].bias
        # Of queries and keys one product is taken: their sizes are one.
        size = attention.query_norm.weight * attention.key_norm.weight
        self.size = size * math.sqrt(len(size))

    def begin(self, modulation: Tensor) -> _Spoken:
        """What a modulation (B, 6, D) makes of it."""
        return _Spoken(self, modulation + self.table)


class _Spoken:
    """A block in the middle of sentences, with the keys and values of the places so far."""

    def __init__(self, block: _Block, modulation: Tensor) -> None:
        self.block = block
        shift_a, scale_a, self.gate_a, shift_m, scale_m, self.gate_m = modulation.unbind(dim=1)
        self.scale_a, self.scale_m = 1 + scale_a, 1 + scale_m
        self.bias_in = torch.addmm(block.bias_in, shift_a, block.inward)  # (B, 3 D)
        self.bias_up = torch.addmm(block.bias_up, shift_m, block.up)  # (B, 4 D)
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """One place x (B, D) more: (B, D)."""
        block, d = self.block, x.shape[-1:]
        near = F.layer_norm(x, d, eps=1e-6) * self.scale_a
        mixed = self._attend(torch.addmm(self.bias_in, near, block.inward))
        x = x + self.gate_a * torch.addmm(block.bias_out, mixed, block.outward)
        near = F.layer_norm(x, d, eps=1e-6) * self.scale_m
        high = F.gelu(torch.addmm(self.bias_up, near, block.up), approximate="tanh")
        return x + self.gate_m * torch.addmm(block.bias_down, high, block.down)

    def _attend(self, qkv: Tensor) -> Tensor:
        h = self.block.heads
        both, v = qkv.reshape(-1, 3 * h, 1, qkv.shape[1] // (3 * h)).split([2 * h, h], dim=1)
        both = both / torch.linalg.vector_norm(both, dim=-1, keepdim=True)
        q, k = both.split([h, h], dim=1)  # (B, H, 1, D/H)
        if self.keys is not None and self.values is not None:
            k, v = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        self.keys, self.values = k, v
        share = ((q * self.block.size) @ k.transpose(2, 3)).softmax(dim=-1)  # (B, H, 1, T)
        return (share @ v).reshape(-1, qkv.shape[1] // 3)


class _Profile:
    """A `Profile` of which all that is asked of a place is one product of matrices.

    A pair (h, e) is told as three numbers, of which e is the sum of the last two: h, what e is
    where it leans on nothing, and what it leans.
    """

    def __init__(self, profile: Profile) -> None:
        first, last = profile.after[0], profile.after[2]
        d = profile.embed.out_features
        weight, bias = _steps(profile)
        self.mixture = profile.mixture
        self.asked = torch.cat([weight, first.weight[:, :d]]).T  # (D, M + 9 M + D)
        self.bias_asked = torch.cat([bias, first.bias])
        self.after = _three(first.weight[:, d:])  # (3, D)
        self.last, self.bias = last.weight.T, last.bias
        self.embed = _three(profile.embed.weight)
        self.below = torch.ones_like(weight[: self.mixture, : self.mixture]).triu(1)

    def dice(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B, N) and normal ones (B, N, 3) of normal ones (B, N, 3)."""
        return torch.special.ndtr(normal[..., 0]), normal[..., [1, 2, 1]]

    def draw(self, x: Tensor, chance: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, D) that are told what is drawn, without `bias`, and that (B, 3)."""
        m = self.mixture
        asked = torch.addmm(self.bias_asked, x, self.asked)
        share, steps, hidden = asked.split([m, 9 * m, x.shape[1]], dim=1)
        passed = (share.softmax(dim=1) @ self.below <= chance).type_as(x)  # (B, M), 1 first
        picked = (passed[:, None] @ steps.reshape(-1, m, 9))[:, 0]
        mean, factor, wide = picked.split([3, 3, 3], dim=1)
        told = mean + factor * (wide.clamp(FINEST, WIDEST).exp() * normal)
        high = F.silu(torch.addmm(hidden, told, self.after))
        return torch.addmm(x, high, self.last), told

    def pairs(self, told: Tensor) -> Tensor:
        """Pairs (B, N, 2) of what was told (B, N, 3)."""
        return torch.stack([told[..., 0], told[..., 1] + told[..., 2]], dim=-1)


def _steps(profile: Profile) -> tuple[Tensor, Tensor]:
    """Weight (10 M, D) and bias (10 M,) of shares, then of nine numbers of the first Gaussian and
    of what the next adds to them: means, factors and spreads, three each.
    """
    rows = torch.cat([profile.head.weight, profile.head.bias[:, None]], dim=1)
    share, first, wide, second, lean, left = rows.chunk(6)
    none, one = torch.zeros_like(first), torch.zeros_like(first)
    one[:, -1] = 1
    each = torch.stack([first, second, none, one, one, lean, wide, left, wide], dim=1)
    steps = torch.cat([each[:1], each[1:] - each[:-1]])  # (M, 9, D + 1)
    whole = torch.cat([share, steps.flatten(0, 1)])
    return whole[:, :-1], whole[:, -1]


def _three(weight: Tensor) -> Tensor:
    """Weight (3, D) for three numbers, of a weight (D, 2) for pairs."""
    return torch.stack([weight[:, 0], weight[:, 1], weight[:, 1]])


def chosen(logits: Tensor, chance: Tensor, choice: Choice) -> Tensor:
    """Choose among codes by logarithms of their odds (B, codes): numbers (B,).

    `chance` (B,) is uniform in [0, 1). At temperature 0 it is the likeliest code.
    """
    if choice.temperature == 0 or choice.top_k == 1:
        return logits.argmax(dim=-1)
    if choice.top_k is not None and choice.top_k < logits.shape[1]:
        least = logits.topk(choice.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if choice.temperature != 1:
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / choice.temperature
    return by_chance(logits.softmax(dim=-1), chance)


def by_chance(share: Tensor, chance: Tensor) -> Tensor:
    """The first of shares (B, K) up to which they add up to more than `chance` (B,): (B,)."""
    count = share.shape[1]
    rows = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    ones = torch.ones(count // rows, count // rows, dtype=share.dtype, device=share.device)
    within = share.reshape(-1, rows, count // rows) @ ones.triu()
    before = within[..., -1] @ ones[:rows, :rows].triu(1)
    upto = (within + before[..., None]).reshape(-1, count)
    return (upto > chance[:, None]).type_as(share).argmax(dim=-1)
