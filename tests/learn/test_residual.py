"""A residual counts at its detector, fades around it, and is nothing to the others."""

from __future__ import annotations

import torch

from caloforge.learn.condition import FEATURE_NAMES
from caloforge.learn.residual import WIDTH, Residual

F = len(FEATURE_NAMES)


def one() -> tuple[Residual, torch.Tensor]:
    here = torch.randn(F, generator=torch.Generator().manual_seed(0))
    residual = Residual(3)
    number = residual.anchor(here, torch.full((F,), 2.0))
    residual.values.data[number] = torch.tensor([1.0, -2.0, 0.5])
    return residual, here


def test_it_is_whole_at_its_anchor_and_gone_some_spreads_away() -> None:
    residual, here = one()
    away = here.repeat(3, 1)
    away[1, -1] += 2.0 * WIDTH  # one width, in the unit of the anchor
    away[2, -1] += 2.0 * 5 * WIDTH
    values = residual(away)
    torch.testing.assert_close(values[0], residual.values[0])
    torch.testing.assert_close(values[1], residual.values[0] * torch.exp(torch.tensor(-0.5)))
    assert values[2].abs().max() < 1e-4


def test_the_primary_does_not_matter_and_what_is_not_told_is_far() -> None:
    residual, here = one()
    other = here.repeat(2, 1)
    other[0, :5] += 3.0
    other[1] = torch.nan
    values = residual(other)
    torch.testing.assert_close(values[0], residual.values[0])
    assert torch.equal(values[1], torch.zeros(3))


def test_anchors_are_found_again_and_others_are_kept() -> None:
    residual, here = one()
    assert residual.anchor(here, torch.ones(F)) == 0 and len(residual) == 1
    assert residual.anchor(here + 1, torch.ones(F)) == 1
    torch.testing.assert_close(residual.values[0], torch.tensor([1.0, -2.0, 0.5]))
    assert torch.equal(residual.values[1], torch.zeros(3))


def test_it_is_saved_with_its_anchors_and_without_any_leaves_no_trace() -> None:
    residual, here = one()
    again = Residual(3)
    assert not again.state_dict() and not list(again.parameters())
    again.load_state_dict({})
    again.load_state_dict(residual.state_dict())
    assert torch.equal(again(here[None]), residual(here[None]))
    again.load_state_dict({})
    assert len(again) == 0


def test_an_anchor_is_where_the_others_are() -> None:
    residual = one()[0]
    residual.to("meta")
    residual._resize(2)
    assert {part.device.type for part in residual.state_dict().values()} == {"meta"}
