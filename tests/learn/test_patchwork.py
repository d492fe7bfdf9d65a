"""Voxels in parts: colours keep neighbours apart, what is drawn stays, and hits are met."""

from __future__ import annotations

import pytest
import torch

from caloforge.learn.models.patchwork import COLOURS, Patchwork, colours

SHAPE = (3, 4, 6)


def test_cells_that_share_a_face_have_different_colours() -> None:
    colour = colours(SHAPE)
    assert colour.shape == SHAPE and set(colour.unique().tolist()) == set(range(COLOURS))
    assert bool((colour[1:] != colour[:-1]).all())
    assert bool((colour != colour.roll(1, 1)).all())  # phi closes on itself
    assert bool((colour[..., 1:] != colour[..., :-1]).all())


def some(b: int = 5) -> tuple[Patchwork, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    patchwork = Patchwork(SHAPE, 2, 4, 8)
    for parameter in patchwork.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    numbers = dict(
        said=torch.randn(b, 6, *SHAPE), c=torch.randn(b, 8), chance=torch.rand(b, *SHAPE),
        normal=torch.randn(b, *SHAPE),
    )  # fmt: skip
    return patchwork.requires_grad_(False), numbers


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_as_many_voxels_are_filled_as_asked_for(parts: int) -> None:
    patchwork, numbers = some()
    hits = torch.randint(0, 13, (5, 6), generator=torch.Generator().manual_seed(1))
    _, filled = patchwork.draw(**numbers, hits=hits, parts=parts)
    # Odds of one to four hundred are the most that hits may ask of what is believed.
    assert float((filled.sum(dim=(1, 2)) - hits).abs().float().mean()) < 0.2


def test_a_part_sees_the_parts_before_it_and_no_later_one() -> None:
    patchwork, numbers = some()
    said, c = numbers["said"], numbers["c"]
    voxels, filled = torch.randn(5, *SHAPE), torch.rand(5, *SHAPE) < 0.5
    for upto in range(COLOURS):
        level = torch.full((5,), upto)
        before, seen = patchwork(said, c, voxels, filled, level)
        assert torch.equal(seen[0], patchwork.colour < upto)
        later = torch.where(seen, voxels, voxels + 1)
        assert torch.equal(before, patchwork(said, c, later, filled, level)[0])
        if upto:
            other = torch.where(seen, voxels + 1, voxels)
            assert not torch.equal(before, patchwork(said, c, other, filled, level)[0])


def test_what_is_drawn_stays() -> None:
    patchwork, numbers = some()
    whole, filled = patchwork.draw(**numbers, hits=None, parts=4)
    first = patchwork.colour == 0
    nothing = torch.zeros(5)
    belief, _ = patchwork(numbers["said"], numbers["c"], whole, filled, nothing)
    drawn = numbers["chance"] < torch.sigmoid(belief[:, 0])
    assert torch.equal(filled[:, first], drawn[:, first])


def test_it_begins_as_no_correction() -> None:
    _, numbers = some()
    patchwork = Patchwork(SHAPE, 2, 4, 8)
    voxels, filled = torch.randn(5, *SHAPE), torch.rand(5, *SHAPE) < 0.5
    said, _ = patchwork(numbers["said"], numbers["c"], voxels, filled, torch.full((5,), 2))
    assert torch.equal(said, numbers["said"])
