r"""Voxels as the other generators of the field scale them: divided, transformed, invertible.

A voxel's energy is divided by the incident energy, by the largest voxel of the shower or by the
99th percentile of its filled voxels, and then transformed, x being the quotient and c a fitted
size far below a typical filled voxel:

- ``none``: x;
- ``log``: :math:`\ln(1 + x/c) / \ln(1 + 1/c)`;
- ``power``: :math:`x^p`;
- ``logit``: :math:`\ln(u/(1 - u))` of :math:`u = c + (1 - 2c) x` (arXiv:2106.05285, appendix).

Where a quotient lies in [0, 1], all but the logit do as well; that is what a cross-entropy needs.
Everything else is brought to mean 0 and spread 1 with fitted numbers. A divisor that belongs to
the shower (largest, percentile) is a quantity of the shower beside its voxels: its logarithm over
the incident energy, whitened as in `caloforge.learn.preprocess`, so that it can be drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.errors import RequestError
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.preprocess import CUT_MEV, ConditionalScale, Drawn, Scaled
from caloforge.learn.settings import VoxelSettings

__all__ = ["VoxelScale", "bounded", "divisors"]

PERCENTILE = 0.99
SMALL = 0.1  # c, of the median filled voxel.


def bounded(settings: VoxelSettings) -> bool:
    """Whether scaled voxels lie in [0, 1]."""
    return _quotient(settings) and settings.transform != "logit"


def _quotient(settings: VoxelSettings) -> bool:
    """Whether divided voxels lie in [0, 1]."""
    return settings.divide in ("incident_mev", "largest")


def divisors(settings: VoxelSettings) -> int:
    """Number of divisors that belong to a shower: 1, or 0 where it is the incident energy."""
    return int(settings.divide in ("largest", "percentile"))


class VoxelScale(nn.Module):
    """Scales voxels as `settings` say; `unit` keeps them in [0, 1], as a cross-entropy needs.

    Raises `RequestError` for settings that cannot do that, and for a logit of what is not bounded.
    """

    small: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, settings: VoxelSettings, unit: bool = False) -> None:
        super().__init__()
        if settings.transform == "logit" and not _quotient(settings):
            raise RequestError(
                "a logit needs voxels up to 1: divide by 'incident_mev' or 'largest'"
            )
        if unit and not bounded(settings):
            raise RequestError(
                f"loss 'bce' needs voxels in [0, 1], not divide = '{settings.divide}' with "
                f"transform = '{settings.transform}'; use divide = 'incident_mev' or 'largest' "
                "without logit"
            )
        self.settings, self.unit = settings, unit
        self.register_buffer("small", torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        own = divisors(settings)
        self.divisor = ConditionalScale(len(FEATURE_NAMES), own) if own else None
        self.requires_grad_(False)

    def fit(
        self, voxels: Tensor, conditions: Conditions, steps: int = 2000, seed: int = 0
    ) -> float:
        """Fit to voxels (N, R, PHI, Z) in MeV; returns the likelihood loss of the divisors."""
        loss, raw = 0.0, self._divisor(voxels, conditions)
        x = voxels / raw[:, None, None, None]
        self.small.copy_(SMALL * x[voxels >= CUT_MEV].median().clamp(max=0.1))
        if not self.unit:
            y = self._transform(torch.where(voxels >= CUT_MEV, x, 0.0))
            self.mean.copy_(y.mean())
            self.spread.copy_(y.std().clamp(min=1e-12))
        if self.divisor is not None:
            self.requires_grad_(True)
            value = (raw / conditions.energy).log()[:, None]
            loss = self.divisor.fit(value, conditions.features, steps, seed)
            self.requires_grad_(False)
        return loss

    def forward(
        self, voxels: Tensor, conditions: Conditions, draw: torch.Generator | None = None
    ) -> Scaled:
        """Scale voxels (B, R, PHI, Z) in MeV; those below the evaluation cut count as empty.

        The energies (B, 1) are the whitened divisors, or (B, 0) where it is the incident energy.
        """
        raw = self._divisor(voxels, conditions)
        x = torch.where(voxels >= CUT_MEV, voxels, 0.0) / raw[:, None, None, None]
        white = raw.new_zeros(len(raw), 0)
        if self.divisor is not None:
            white = self.divisor((raw / conditions.energy).log()[:, None], conditions.features)
        return Scaled((self._transform(x) - self.mean) / self.spread, white)

    def inverse(self, drawn: Scaled | Drawn, conditions: Conditions) -> Tensor:
        """Voxels (B, R, PHI, Z) in MeV; those below the evaluation cut are empty.

        Where it is drawn which voxels are filled, a filled one is at the cut or above: what was
        drawn below nothing is mirrored there.
        """
        raw = self._nominal(conditions)
        if self.divisor is not None:
            white = self.divisor.inverse(drawn.energies, conditions.features)
            raw = conditions.energy * white[:, 0].exp()
        y = drawn.voxels * self.spread + self.mean
        if isinstance(drawn, Drawn) and self.settings.transform != "logit":
            y = y.abs()
        mev = self._back(y) * raw[:, None, None, None]
        if isinstance(drawn, Drawn):
            return torch.where(drawn.odds > 0, mev.clamp(min=CUT_MEV), 0.0)
        return torch.where(mev >= CUT_MEV * (1 - 1e-4), mev, 0.0)

    def _nominal(self, conditions: Conditions) -> Tensor:
        gev = self.settings.divide == "incident_gev"
        return conditions.energy / 1000 if gev else conditions.energy

    def _divisor(self, voxels: Tensor, conditions: Conditions) -> Tensor:
        """What the voxels (B, R, PHI, Z) in MeV are divided by (B,)."""
        if self.settings.divide == "largest":
            return voxels.amax(dim=(1, 2, 3)).clamp(min=CUT_MEV)
        if self.settings.divide == "percentile":
            each = torch.sort(voxels.flatten(1), dim=1).values
            filled = (each >= CUT_MEV).sum(1)
            rank = each.shape[1] - 1 - ((1 - PERCENTILE) * filled).long()
            return each.gather(1, rank[:, None])[:, 0].clamp(min=CUT_MEV)
        return self._nominal(conditions)

    def _transform(self, x: Tensor) -> Tensor:
        """Transform quotients (...)."""
        match self.settings.transform:
            case "log":
                return torch.log1p(x / self.small) / torch.log1p(1 / self.small)
            case "power":
                return x**self.settings.power
            case "logit":
                return torch.logit(self.small + (1 - 2 * self.small) * x)
            case _:
                return x

    def _back(self, y: Tensor) -> Tensor:
        """Undo `_transform` (...); a network may go where no quotient is, which is cut off."""
        match self.settings.transform:
            case "log":
                most = 1.0 if bounded(self.settings) else 2.0
                x = self.small * torch.expm1(y.clamp(0.0, most) * torch.log1p(1 / self.small))
            case "power":
                x = y.clamp(min=0) ** (1 / self.settings.power)
            case "logit":
                x = (torch.sigmoid(y) - self.small) / (1 - 2 * self.small)
            case _:
                x = y
        x = x.clamp(min=0)
        return x.clamp(max=1) if bounded(self.settings) else x
