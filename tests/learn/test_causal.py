"""Causal blocks: no token sees a later one."""

from __future__ import annotations

import torch

from caloforge.learn.causal import CausalBlock


def block() -> CausalBlock:
    torch.manual_seed(0)
    return CausalBlock(16, 4)


def test_a_later_token_does_not_change_an_earlier_one() -> None:
    made, x, modulation = block(), torch.randn(2, 7, 16), torch.randn(2, 6, 16)
    changed = x.clone()
    changed[:, 4] = torch.randn(2, 16)
    before, after = made(x, modulation), made(changed, modulation)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert all(not torch.allclose(before[:, k], after[:, k], atol=1e-4) for k in range(4, 7))
