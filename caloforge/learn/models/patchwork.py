"""Voxels drawn in four parts, of which each sees the parts before it around every voxel.

What is believed of voxels one by one, drawn all at once, knows nothing of the voxels beside it: a
track that crosses three cells becomes three coins. The mesh is therefore coloured with four
colours, so that no two cells that share a face share a colour, and drawn colour by colour; two
convolutions (`caloforge.learn.blocks.Neighbours`), the same for every cell, correct what is
believed of a voxel by what is drawn around it already. They are small: what is far away is not
theirs to know. Fewer parts at a time are possible, two colours each or all at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.learn.blocks import Neighbours
from caloforge.learn.models.belief import Belief

__all__ = ["COLOURS", "Patchwork", "colours"]

COLOURS = 4
DECIDED = 1e3  # Logarithm of the odds of what is drawn already.


def colours(shape: tuple[int, int, int]) -> Tensor:
    """Colour (R, PHI, Z), 0 to 3, of each cell of a mesh of `shape` cells."""
    r, phi, z = (torch.arange(n) for n in shape)
    return 2 * ((r[:, None, None] + phi[:, None] + z) % 2) + z % 2


class Patchwork(nn.Module):
    """Corrects beliefs of voxels, packed as `Belief.unpacked` takes them (B, 3 M, R, PHI, Z)."""

    colour: Tensor

    def __init__(self, shape: tuple[int, int, int], mixture: int, hidden: int, width: int) -> None:
        super().__init__()
        self.corrected = 1 + mixture  # odds and means
        self.register_buffer("colour", colours(shape), persistent=False)
        self.neighbours = Neighbours(self.corrected + 3, hidden, self.corrected, width)

    def forward(
        self, said: Tensor, c: Tensor, voxels: Tensor, filled: Tensor, upto: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Corrected beliefs, and what was seen (B, R, PHI, Z): the voxels, likewise, of colours
        below `upto` (B,). c (B, D) is the condition; `filled` tells empty voxels.
        """
        seen = self.colour < upto[:, None, None, None]
        told = self._told(voxels, seen & filled, seen)
        near, rest = said[:, : self.corrected], said[:, self.corrected :]
        correction = self.neighbours(torch.cat([near, told], dim=1), c)
        return torch.cat([near + correction, rest], dim=1), seen

    def draw(
        self, said: Tensor, c: Tensor, chance: Tensor, normal: Tensor, hits: Tensor | None,
        parts: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Draw voxels and whether they are filled, both (B, R, PHI, Z), in 1, 2 or 4 `parts`.

        `chance` is uniform and `normal` normal, both (B, R, PHI, Z); with `hits` (B, Z) so many
        voxels of each layer are filled.
        """
        voxels, filled = torch.zeros_like(normal), torch.zeros_like(normal, dtype=torch.bool)
        near, rest = said[:, : self.corrected], said[:, self.corrected :]
        begun = self.neighbours.hidden(near, 0)
        for part in range(parts):
            seen = self.colour < part * COLOURS // parts
            told = self._told(voxels, seen & filled, seen)
            hidden = begun + self.neighbours.hidden(told, self.corrected)
            correction = self.neighbours.corrections(hidden, c)
            belief = Belief.unpacked(torch.cat([near + correction, rest], dim=1))
            odds = torch.where(seen, torch.where(filled, DECIDED, -DECIDED), belief.odds)
            drawn, mean, spread = belief._replace(odds=odds).chosen(chance, hits)
            filled = (seen & filled) | (drawn & ~seen)
            voxels = torch.where(seen, voxels, mean + spread * normal)
        return voxels, filled

    def _told(self, voxels: Tensor, there: Tensor, seen: Tensor) -> Tensor:
        """What is seen (B, 3, R, PHI, Z): voxels that are there, that they are, what is unseen."""
        unseen = (~seen).type_as(voxels).expand_as(voxels)
        told = [torch.where(there, voxels, 0.0), there.type_as(voxels), unseen]
        return torch.stack(told, dim=1)
