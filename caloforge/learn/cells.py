r"""What single cells hold, set right for one more detector.

A decoder says what is likely of the logarithm of a voxel's energy, by a few Gaussians. They blur
what is sharp, such as the edge of minimum-ionising particles, which a thin layer puts at one
energy. In showers that are drawn, the energy below which a share p of all cells lies is therefore
compared with that of Geant4's, for every p: moving the one to the other makes the two spectra the
same. The moves of the logarithm, at knots evenly spaced from the evaluation cut up, are kept as a
residual at the detector's anchor (`caloforge.learn.residual`). How many cells there are stays, and
what a layer holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.learn.calibration import shrunk
from caloforge.learn.preprocess import APART, CUT_MEV, KNOTS

__all__ = ["cell_moves"]

PARTS = 8


@torch.no_grad()
def cell_moves(made: Tensor, voxels: Tensor) -> Tensor:
    """Moves (`KNOTS`,) that give the cells of showers `made` (M, R, PHI, Z) in MeV the spectrum of
    those of `voxels` (N, R, PHI, Z), of primaries of one kind.

    Each move is shrunk to what of it is real, as the correction of the whitening is; chance is how
    much the moves of parts of the showers differ.
    """
    found = _moves(made, voxels)
    parts = torch.stack([_moves(made[k::PARTS], voxels[k::PARTS]) for k in range(PARTS)])
    return shrunk(found[None], parts.var(dim=0) / PARTS, [1] * KNOTS)[0]


def _moves(made: Tensor, voxels: Tensor) -> Tensor:
    """From each knot to the logarithm that as many cells lie below (`KNOTS`,)."""
    knots = APART * torch.arange(KNOTS, device=made.device)
    mine, true = (some[some >= CUT_MEV].div(CUT_MEV).log().sort().values for some in (made, voxels))
    if not len(mine) or not len(true):
        return torch.zeros_like(knots)
    share = torch.searchsorted(mine, knots) / len(mine)
    meant = true[(share * len(true)).long().clamp(max=len(true) - 1)]
    return torch.where((knots > mine[0]) & (knots < mine[-1]), meant - knots, 0.0)
