r"""What each ring of the mesh holds of a shower, set right for one more detector.

Decoder and prior are taught what is likely, a decoder of the logarithm of a voxel's energy. What a
ring holds is a mean of energies, which the few largest voxels decide: the logarithm hardly minds a
tail that is somewhat too long, and in a new detector outer rings get some per cent too much. So
showers of such primaries are drawn, and the logarithm of what each ring lacks is kept as a
residual at the detector's anchor (`caloforge.learn.residual`). It moves energy between the voxels
of a layer; layers stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.learn.calibration import shrunk

__all__ = ["ring_gains"]

NOTHING = 1e-5  # Of a shower's energy: what a ring holds is not known better.


@torch.no_grad()
def ring_gains(made: Tensor, voxels: Tensor) -> Tensor:
    """Logarithms of gains (R,) that give the rings of showers `made` (M, R, PHI, Z) in MeV what
    those of `voxels` (N, R, PHI, Z) hold on average, of primaries of one kind.

    What is wrong grows outward: a line through the gains is found first, and what they differ from
    it after that. Either is shrunk to what of it is real, as the correction of the whitening is.
    """
    found, wanted = _shares(made), _shares(voxels)
    level = wanted.mean(dim=0).clamp(min=NOTHING**2)
    gain = (level / found.mean(dim=0).clamp(min=NOTHING**2)).log()
    chance = found.var(dim=0) / len(found) + wanted.var(dim=0) / len(wanted)
    chance = (chance + NOTHING**2) / level.square()
    weight = 1 / chance
    ring = torch.arange(len(gain), device=gain.device) + 0.0
    ring = ring - (weight * ring).sum() / weight.sum()
    spread = (weight * ring.square()).sum()
    slope = (weight * ring * gain).sum() / spread
    # What is left of the line and of a gain of all rings, which would change nothing.
    left = gain - (weight * gain).sum() / weight.sum() - ring * slope
    slope = shrunk(slope[None, None], 1 / spread[None], [1])[0]
    return ring * slope + shrunk(left[None], chance, [len(gain)])[0]


def _shares(voxels: Tensor) -> Tensor:
    """What rings hold of the energy (B, R) of showers (B, R, PHI, Z)."""
    rings = voxels.sum(dim=(2, 3))
    return rings / rings.sum(dim=1, keepdim=True).clamp(min=1e-9)
