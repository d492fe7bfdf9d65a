r"""What each ring of the mesh holds of a shower, set right for one more detector.

Decoder and prior are taught what is likely, a decoder of the logarithm of a voxel's energy. What a
ring holds is a mean of energies, which the few largest voxels decide: the logarithm hardly minds a
tail that is somewhat too long, and in a new detector outer rings get some per cent too much. So
showers of the same primaries are drawn, and the logarithm of what each ring lacks is kept as a
residual at the detector's anchor (`caloforge.learn.residual`). It moves energy between the voxels
of a layer; layers stay.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caloforge.learn.calibration import Draw, shrunk
from caloforge.learn.condition import Conditions
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import ShowerScale

__all__ = ["fit_rings"]

MOST = 1000  # Showers that are looked at.
BATCH = 64


@torch.no_grad()
def fit_rings(scale: ShowerScale, draw: Draw, voxels: Tensor, given: Conditions) -> None:
    """Fit the gains of the rings to voxels (N, R, PHI, Z) in MeV, all of one detector.

    `draw` makes voxels (B, R, PHI, Z) in MeV from conditions and noise, by way of `scale`.
    A gain is shrunk to what of it is real, as the correction of the whitening is.
    """
    device = given.energy.device
    number = scale.rings.anchor(given.features[0], scale.energies.unit)
    scale.rings.requires_grad_(False)
    scale.rings.values[number] = 0.0
    rows = torch.linspace(0, len(voxels) - 1, min(len(voxels), MOST)).round().long()
    true, made = [], []
    for some in torch.split(rows, BATCH):
        noise = Noise((2 * some).numpy().astype(np.uint64), device)  # odd ones draw the same
        true.append(_shares(voxels[some].to(device)))
        made.append(_shares(draw(given.at(some), noise)))
    wanted, found = torch.cat(true), torch.cat(made)  # (N, R) each
    level = wanted.mean(dim=0).clamp(min=1e-9)
    gain = (level / found.mean(dim=0).clamp(min=1e-9)).log()
    chance = (found - wanted).var(dim=0) / len(rows) / level.square()
    scale.rings.values[number] = shrunk(gain[None], chance, [len(gain)])[0]


def _shares(voxels: Tensor) -> Tensor:
    """What rings hold of the energy (B, R) of showers (B, R, PHI, Z)."""
    rings = voxels.sum(dim=(2, 3))
    return rings / rings.sum(dim=1, keepdim=True).clamp(min=1e-9)
