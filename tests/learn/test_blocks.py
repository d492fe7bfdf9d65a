"""Blocks: the identity at the start, attention that does not care for the order of tokens."""

from __future__ import annotations

import torch

from caloforge.learn.blocks import Attention, Block


def test_a_closed_gate_is_the_identity() -> None:
    block = Block(16, 4)
    torch.nn.init.zeros_(block.table)
    x = torch.randn(2, 5, 16)
    assert torch.equal(block(x, torch.zeros(2, 6, 16)), x)


def test_attention_is_equivariant_under_permutation() -> None:
    attention = Attention(16, 4)
    x, order = torch.randn(2, 7, 16), torch.randperm(7)
    assert torch.allclose(attention(x)[:, order], attention(x[:, order]), atol=1e-5)


def test_attention_mixes_tokens() -> None:
    attention = Attention(16, 4)
    x = torch.randn(1, 3, 16)
    changed = x.clone()
    changed[0, 2] += 1
    assert not torch.allclose(attention(x)[0, 0], attention(changed)[0, 0])
