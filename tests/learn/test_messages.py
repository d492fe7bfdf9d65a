"""Messages: no change at first; the order of hits does not matter; showers do not hear each other."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

from caloforge.learn.hits import Hits, hits_of
from caloforge.learn.messages import Messages
from caloforge.learn.neighbours import nearest, places

WIDTH = 8


def hits() -> Hits:
    filled = torch.rand(2, 3, 4, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    return hits_of(filled, torch.ones(2, 2), filled.float(), most=100, k=4)


def awake() -> Messages:
    torch.manual_seed(0)
    messages = Messages(WIDTH)
    torch.nn.init.normal_(messages.change.weight)
    return messages


def states(n: int) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))


def test_they_start_as_no_change() -> None:
    some = hits()
    x = states(len(some.r))
    assert torch.equal(Messages(WIDTH)(x, some), x)


def test_the_order_of_hits_does_not_matter() -> None:
    some, messages = hits(), awake()
    n = len(some.r)
    own = some.shower == 0
    order = torch.cat([torch.randperm(int(own.sum())), torch.arange(int(own.sum()), n)])
    shower, r, phi, z = (part[order] for part in some[:4])
    graph = nearest(places(r, phi, z, torch.ones(n, 2), 4), some.sizes, 4)
    x = states(n)
    there = messages(x[order], Hits(shower, r, phi, z, graph, some.sizes))
    assert torch.allclose(there, messages(x, some)[order], atol=1e-5)


def test_showers_do_not_hear_each_other() -> None:
    some, messages = hits(), awake()
    x = states(len(some.r))
    kept = some.shower == 0
    other = torch.where(kept[:, None], x, x.flip(1))
    change, changed = (messages(y, some) - y for y in (x, other))
    assert torch.allclose(changed[kept], change[kept], atol=1e-6)
    assert not torch.allclose(changed[~kept], change[~kept], atol=1e-3)
