"""Adapters of low rank begin as nothing, and end as weights like any other."""

from __future__ import annotations

import copy

import torch

from caloforge.learn.blocks import Block
from caloforge.learn.lowrank import LowRank, merged, with_adapters
from caloforge.learn.muon import Muon


def adapted() -> tuple[Block, Block]:
    torch.manual_seed(0)
    block = Block(16, 2)
    other = copy.deepcopy(block)
    with_adapters(other, 2)
    return block, other


def test_an_adapted_network_begins_as_the_network() -> None:
    block, other = adapted()
    x, c = torch.randn(3, 5, 16), torch.randn(3, 6, 16)
    assert torch.equal(block(x, c), other(x, c))


def test_merged_it_does_the_same_and_looks_as_before() -> None:
    block, other = adapted()
    for layer in other.modules():
        if isinstance(layer, LowRank):
            torch.nn.init.normal_(layer.up, std=0.3)
    x, c = torch.randn(3, 5, 16), torch.randn(3, 6, 16)
    before = other(x, c)
    merged(other)
    assert not any(isinstance(layer, LowRank) for layer in other.modules())
    assert other.state_dict().keys() == block.state_dict().keys()
    torch.testing.assert_close(other(x, c), before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(block(x, c), before, atol=1e-2)


def test_only_the_adapters_learn_and_not_as_matrices() -> None:
    _, other = adapted()
    learns = {name for name, p in other.named_parameters() if p.requires_grad}
    assert learns and all(name.rsplit(".", 1)[1] in ("down", "up") for name in learns)
    groups = Muon(other, 1e-3, 0.0).param_groups
    assert [group["muon"] for group in groups] == [False]
