r"""Voxels with the visible energy of their shower as a quantity of its own, so that energy closes.

To the scaled voxels of `caloforge.learn.voxelscale` comes the total,
:math:`u = \ln(E_{vis}/E_{inc})`, whitened with a mean and a spread that depend on the conditions
(`caloforge.learn.preprocess.ConditionalScale`). On the way back the voxels are shares of it: the
mean response is regressed, not left to the sum of thousands of generated voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.preprocess import CUT_MEV, ConditionalScale, Drawn, Scaled, closed
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.voxelscale import VoxelScale, divisors

__all__ = ["TotalScale"]


class TotalScale(nn.Module):
    """Scales voxels as `settings` say, and the total; see the module.

    `unit` keeps voxels in [0, 1]. `quantities`: the number of energies, the total first and then
    the divisor of the shower, where it is not the incident energy. Raises `RequestError` like
    `VoxelScale`.
    """

    def __init__(self, settings: VoxelSettings, unit: bool = False) -> None:
        super().__init__()
        self.voxels = VoxelScale(settings, unit)
        self.total = ConditionalScale(len(FEATURE_NAMES), 1)
        self.quantities = 1 + divisors(settings)
        self.requires_grad_(False)

    def fit(
        self, voxels: Tensor, conditions: Conditions, steps: int = 2000, seed: int = 0
    ) -> float:
        """Fit to voxels (N, R, PHI, Z) in MeV; returns the likelihood losses' sum."""
        loss = self.voxels.fit(voxels, conditions, steps, seed)
        self.total.requires_grad_(True)
        loss += self.total.fit(_total(voxels, conditions), conditions.features, steps, seed)
        self.requires_grad_(False)
        return loss

    def forward(
        self, voxels: Tensor, conditions: Conditions, draw: torch.Generator | None = None
    ) -> Scaled:
        """Scale voxels (B, R, PHI, Z) in MeV; those below the evaluation cut count as empty."""
        scaled = self.voxels(voxels, conditions)
        total = self.total(_total(voxels, conditions), conditions.features)
        return Scaled(scaled.voxels, torch.cat([total, scaled.energies], dim=1))

    def inverse(self, drawn: Scaled | Drawn, conditions: Conditions) -> Tensor:
        """Voxels (B, R, PHI, Z) in MeV that add up to their total; an empty shower stays empty.

        Where it is drawn which voxels are filled, a filled one is at the evaluation cut or above
        before the voxels are brought to the total.
        """
        mev = self.voxels.inverse(drawn._replace(energies=drawn.energies[:, 1:]), conditions)
        log_share = self.total.inverse(drawn.energies[:, :1], conditions.features)[:, 0]
        total = log_share.clamp(max=0.0).exp() * conditions.energy
        return closed(mev, total[:, None, None, None], dim=(1, 2, 3))


def _total(voxels: Tensor, conditions: Conditions) -> Tensor:
    """Logarithm (B, 1) of the visible over the incident energy."""
    kept = torch.where(voxels >= CUT_MEV, voxels, 0.0).sum(dim=(1, 2, 3))
    return (kept.clamp(min=CUT_MEV) / conditions.energy).log()[:, None]
