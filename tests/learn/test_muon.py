"""The optimiser: orthogonal updates for the matrices of blocks, Adam for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from caloforge.learn.blocks import Block
from caloforge.learn.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (24, 60), (60, 24)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    x = u @ torch.diag(torch.linspace(0.1, 3, 24)) @ v
    result = orthogonal(torch.stack([x, 5 * x]))
    assert torch.allclose(result[0], result[1], atol=1e-4)
    values = torch.linalg.svdvals(result[0])
    assert float(values.max()) < 1.35 and float(values.min()) > 0.4
    assert torch.allclose(
        u.T @ result[0] @ v.T, torch.diag(torch.diagonal(u.T @ result[0] @ v.T)), atol=1e-3
    )


def test_every_weight_moves_and_none_twice() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), Block(8, 2))
    optimiser = Muon(net, lr=0.01, weight_decay=0.0)
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(net.parameters()))
    before = [p.detach().clone() for p in held]
    for p in held:
        p.grad = torch.randn_like(p)
    optimiser.step()
    held = [p.detach() for p in held]
    assert all(not torch.equal(a, b) for a, b in zip(before, held, strict=True))
    assert all(
        float((a - b).square().mean().sqrt()) < 0.02 for a, b in zip(before, held, strict=True)
    )


def test_the_rest_is_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    pair = (
        Muon(ours, 0.01, 0.1),
        torch.optim.AdamW(theirs.parameters(), 0.01, betas=(0.9, 0.98), weight_decay=0.1),
    )
    for k in range(20):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(k))
        for net, optimiser in zip((ours, theirs), pair, strict=True):
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_it_resumes_from_its_state() -> None:
    torch.manual_seed(0)
    net = Block(8, 2)
    grads = [torch.randn_like(p) for p in net.parameters()]
    state = {k: v.clone() for k, v in net.state_dict().items()}

    def run(steps: int, net: nn.Module, optimiser: Muon) -> None:
        for _ in range(steps):
            for p, grad in zip(net.parameters(), grads, strict=True):
                p.grad = grad.clone()
            optimiser.step()

    straight = Muon(net, 0.01, 0.01)
    run(6, net, straight)
    once = Block(8, 2)
    once.load_state_dict(state)
    first = Muon(once, 0.01, 0.01)
    run(3, once, first)
    second = Muon(once, 0.01, 0.01)
    second.load_state_dict(first.state_dict())
    run(3, once, second)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), once.parameters(), strict=True))
