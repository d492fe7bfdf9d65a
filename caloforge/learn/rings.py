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


@torch.no_grad()
def ring_gains(made: Tensor, voxels: Tensor) -> Tensor:
    """Logarithms of gains (R,) that give the rings of showers `made` (M, R, PHI, Z) in MeV what
    those of `voxels` (N, R, PHI, Z) hold on average, of primaries of one kind.

    A gain is shrunk to what of it is real, as the correction of the whitening is.
    """
    found, wanted = _shares(made), _shares(voxels)
    level = wanted.mean(dim=0).clamp(min=1e-9)
    gain = (level / found.mean(dim=0).clamp(min=1e-9)).log()
    chance = found.var(dim=0) / len(found) + wanted.var(dim=0) / len(wanted)
    return shrunk(gain[None], chance / level.square(), [len(gain)])[0]


def _shares(voxels: Tensor) -> Tensor:
    """What rings hold of the energy (B, R) of showers (B, R, PHI, Z)."""
    rings = voxels.sum(dim=(2, 3))
    return rings / rings.sum(dim=1, keepdim=True).clamp(min=1e-9)
