"""Patches and positions: cutting is undone by joining, phi closes on itself."""

from __future__ import annotations

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn.tokens import Patches, positions


@pytest.mark.parametrize("size", [(9, 16, 1), (3, 4, 3), (1, 1, 45), (9, 16, 45)])
def test_join_undoes_cut(size: tuple[int, int, int]) -> None:
    patches = Patches((9, 16, 45), size)
    voxels = torch.randn(2, 9, 16, 45)
    tokens = patches.cut(voxels)
    assert tokens.shape == (2, patches.tokens, patches.cells)
    assert torch.equal(patches.join(tokens), voxels)


def test_a_token_is_a_patch_of_neighbours() -> None:
    patches = Patches((9, 16, 45), (3, 4, 3))
    voxels = torch.zeros(1, 9, 16, 45)
    voxels[0, 3:6, 8:12, 6:9] = 1  # patch (1, 2, 2) of the grid (3, 4, 15)
    hot = patches.cut(voxels)[0].sum(1).nonzero().flatten().tolist()
    assert hot == [(1 * 4 + 2) * 15 + 2]


def test_phi_closes_on_itself() -> None:
    patches = Patches((1, 16, 1), (1, 1, 1))
    place = positions(patches, torch.ones(1, 2))[0]
    gaps = (place - place.roll(1, 0)).norm(dim=1)
    assert torch.allclose(gaps, gaps[0].expand(16), rtol=1e-4)


def test_positions_are_physical() -> None:
    # Cell 5 of a mesh with cells of 1 X0 lies as deep as cell 10 (and 11) of one with 1/2 X0.
    coarse = positions(Patches((1, 1, 10), (1, 1, 1)), torch.tensor([[0.3, 1.0]]))
    fine = positions(Patches((1, 1, 20), (1, 1, 2)), torch.tensor([[0.3, 0.5]]))
    assert torch.allclose(coarse, fine, atol=1e-5)


def test_refuses_a_patch_that_does_not_divide() -> None:
    with pytest.raises(RequestError, match="does not divide"):
        Patches((9, 16, 45), (2, 4, 3))
