"""The sentences of a prior, place after place, in as few and as small operations as will do.

A place waits for the place before it, so that on one processor the time of a sentence is the number
of its operations rather than their arithmetic. What does not depend on the place is worked out
before the first one: modulations with the tables of the blocks, the vectors of the codes, and
products of matrices that would follow one another. The numbers are those of `Prior.places`, to
rounding.

A code is the first up to which the probabilities add up to more than a uniform number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from caloforge.learn.causal import CausalBlock
from caloforge.learn.models.belief import FINEST, WIDEST

if TYPE_CHECKING:
    from caloforge.learn.models.prior import Prior
    from caloforge.learn.models.profile import Profile

__all__ = ["Choice", "Pairs", "Speaker", "chosen", "pairs_of"]


class Choice(NamedTuple):
    """How a code is chosen: divided by a temperature, and among the `top_k` likeliest, or all."""

    temperature: float = 1.0
    top_k: int | None = None


class Speaker:
    """Draws the sentences of a prior for cells of sizes pitch (B, 2), or (1, 2) for all showers."""

    def __init__(self, network: Prior, pitch: Tensor) -> None:
        self.network, known = network, network.config.tokeniser
        vectors = _vectors(network)  # (codes, C)
        self.place_of = network.depths(pitch)  # (P, N, D)
        self.table = network.embed_code.weight + network.embed_vector(vectors)
        near = torch.cat([vectors, vectors.square()], dim=1)
        self.head = (network.head.weight + near @ network.head_vector.weight).T
        self.bias = network.head.bias + near @ network.head_vector.bias
        self.blocks = [_Block(block) for block in network.blocks]
        self.profile: Pairs | None = None
        if known.layers:
            self.profile = Pairs(network.profile)
            self.bias = self.bias + self.profile.bias @ self.head
            self.table = self.table + network.profile.embed.bias

    def draw(
        self, c: Tensor, chance: Tensor, normal: Tensor | None, choice: Choice
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Draw codes (B, N) under conditions (B, D) by uniform numbers (B, N) in [0, 1), and by
        normal ones (B, N, 3) what the profile tells (B, N, 3), if there is one.
        """
        return self.follow(*self.begin(c, chance, normal), choice)

    def follow(
        self, x: Tensor, fixed: list[Tensor], own: list[Tensor], memory: list[Tensor],
        choice: Choice,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Codes (B, N), and what the profile tells (B, N, 3), from what `begin` gives."""
        codes: list[Tensor] = []
        told: list[Tensor] = []
        places = self.place_of.shape[1]
        for each in zip(*(part.chunk(places, dim=1) for part in own), strict=True):
            x, code, pair, memory = self.place(x, fixed, each, memory, choice)
            codes.append(code)
            told.append(pair)
        return torch.cat(codes, dim=1), torch.stack(told, dim=1)

    def begin(
        self, c: Tensor, chance: Tensor, normal: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """What `place` takes: the first place (B, D), what all places share, what is shared out to
        them evenly from left to right (B, N W), and a memory of nothing.
        """
        modulation = self.network.modulation(c).unflatten(1, (8, -1))
        fixed = [modulation[:, 6], 1 + modulation[:, 7]]
        for block in self.blocks:
            fixed += block.begin(modulation[:, :6])
        later = torch.cat([self.place_of[:, 1:], torch.zeros_like(self.place_of[:, :1])], dim=1)
        own = [later.flatten(1), chance]
        if normal is not None:
            own += [torch.special.ndtr(normal[..., 0]), normal[..., [1, 2, 1]].flatten(1)]
        h = self.blocks[0].heads
        nothing = c.reshape(-1, h, 1, c.shape[1] // h)[:, :, :0]
        return c + self.place_of[:, 0], fixed, own, [nothing] * (2 * len(self.blocks))

    def place(
        self, x: Tensor, fixed: list[Tensor], own: Sequence[Tensor], memory: list[Tensor],
        choice: Choice,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
        """From a place x (B, D) to the next (B, D): also its code (B, 1), what the profile tells of
        it (B, 3) or nothing (B, 0), and the memory with it.
        """
        shift, scale, later = fixed[0], fixed[1], []
        for k, block in enumerate(self.blocks):
            x, kept = block(x, fixed[2 + 6 * k : 8 + 6 * k], memory[2 * k : 2 * k + 2])
            later += kept
        x = F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale + shift  # (B, D)
        told = x[:, :0]
        if self.profile is not None:
            x, told = self.profile.draw(x, own[2], own[3])
        code = chosen(torch.addmm(self.bias, x, self.head), own[1], choice)
        x = self.table.index_select(0, code[:, 0]) + own[0]
        if self.profile is not None:
            x = torch.addmm(x, told, self.profile.embed)
        return x, code, told, later


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (I, O), turned for `torch.addmm`, and bias (O,) of a linear layer."""
    assert isinstance(layer, nn.Linear)
    return layer.weight.T, layer.bias


def _vectors(network: Prior) -> Tensor:
    """Vectors (codes, C) of all codes."""
    vectors: Tensor = network.tokeniser.quantiser.look_up(network.numbers)
    return vectors


class _Block:
    """A `CausalBlock` with what it does to every place alike worked out."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, CausalBlock)
        attention = block.attention
        self.table, self.heads = block.table, attention.heads
        self.inward, self.bias_in = _weights(attention.qkv)
        self.outward, self.bias_out = _weights(attention.output)
        self.up, self.bias_up = _weights(block.mlp[0])
        self.down, self.bias_down = _weights(block.mlp[2])
        # Of queries and keys one product is taken: their sizes are one.
        size = attention.query_norm.weight * attention.key_norm.weight
        self.size = size * math.sqrt(len(size))

    def begin(self, modulation: Tensor) -> list[Tensor]:
        """What a modulation (B, 6, D) does to every place alike, (B, D) to (B, 4 D) each."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).unbind(dim=1)
        bias_in = torch.addmm(self.bias_in, shift_a, self.inward)
        bias_up = torch.addmm(self.bias_up, shift_m, self.up)
        return [1 + scale_a, bias_in, gate_a, 1 + scale_m, bias_up, gate_m]

    def __call__(
        self, x: Tensor, fixed: list[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """A place x (B, D) transformed, and the memory, keys and values (B, H, T, D/H), with it."""
        (scale_a, bias_in, gate_a, scale_m, bias_up, gate_m), d = fixed, x.shape[-1:]
        near = F.layer_norm(x, d, eps=1e-6) * scale_a
        mixed, memory = self._attend(torch.addmm(bias_in, near, self.inward), memory)
        x = x + gate_a * torch.addmm(self.bias_out, mixed, self.outward)
        near = F.layer_norm(x, d, eps=1e-6) * scale_m
        high = F.gelu(torch.addmm(bias_up, near, self.up), approximate="tanh")
        return x + gate_m * torch.addmm(self.bias_down, high, self.down), memory

    def _attend(self, qkv: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = self.heads
        both, v = qkv.reshape(-1, 3 * h, 1, qkv.shape[1] // (3 * h)).split([2 * h, h], dim=1)  # type: ignore[no-untyped-call]
        both = both / torch.linalg.vector_norm(both, dim=-1, keepdim=True)
        q, k = both.split([h, h], dim=1)  # (B, H, 1, D/H)
        k, v = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
        share = ((q * self.size) @ k.transpose(2, 3)).softmax(dim=-1)  # (B, H, 1, T)
        return (share @ v).reshape(-1, qkv.shape[1] // 3), [k, v]


class Pairs:
    """A `Profile` of which all that is asked of a place is one product of matrices.

    A pair (h, e) is told as three numbers, of which e is the sum of the last two: h, what e is
    where it leans on nothing, and what it leans.
    """

    def __init__(self, profile: Profile) -> None:
        first, bias_first = _weights(profile.after[0])
        d = profile.embed.out_features
        weight, bias = _steps(profile)
        self.mixture = profile.mixture
        self.asked = torch.cat([weight.T, first[:d]], dim=1)  # (D, M + 9 M + D)
        self.bias_asked = torch.cat([bias, bias_first])
        self.after = _three(first[d:].T)  # (3, D)
        self.last, self.bias = _weights(profile.after[2])
        self.embed = _three(profile.embed.weight)
        self.below = torch.ones_like(weight[: self.mixture, : self.mixture]).triu(1)

    def draw(self, x: Tensor, chance: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B, D) that are told what is drawn, without `bias`, and that (B, 3), by uniform
        numbers (B, 1) and normal ones (B, 3), of which the last is the first.
        """
        m = self.mixture
        asked = torch.addmm(self.bias_asked, x, self.asked)
        share, steps, hidden = asked.split([m, 9 * m, x.shape[1]], dim=1)  # type: ignore[no-untyped-call]
        passed = (share.softmax(dim=1) @ self.below <= chance).type_as(x)  # (B, M), 1 first
        picked = (passed[:, None] @ steps.reshape(-1, m, 9)).reshape(-1, 9)
        mean, factor, wide = picked.split([3, 3, 3], dim=1)
        told = mean + factor * (wide.clamp(FINEST, WIDEST).exp() * normal)
        high = F.silu(torch.addmm(hidden, told, self.after))
        return torch.addmm(x, high, self.last), told


def pairs_of(told: Tensor) -> Tensor:
    """Pairs (B, N, 2) of hits and energies of what a profile told of places (B, N, 3)."""
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
    """Choose among codes by logarithms of their odds (B, codes): numbers (B, 1).

    `chance` (B, 1) is uniform in [0, 1). At temperature 0 it is the likeliest code.
    """
    if choice.temperature == 0 or choice.top_k == 1:
        return logits.argmax(dim=-1, keepdim=True)
    if choice.top_k is not None and choice.top_k < logits.shape[1]:
        least = logits.topk(choice.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if choice.temperature != 1:
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / choice.temperature
    upto = logits.softmax(dim=-1).cumsum(dim=-1)
    return (upto > chance).type_as(logits).argmax(dim=-1, keepdim=True)
