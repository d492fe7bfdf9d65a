"""What a network is told of a primary and a detector, brought to mean 0 and spread 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.learn.condition import FEATURE_NAMES, Conditions

__all__ = ["Standard"]


class Standard(nn.Module):
    """Standardises the F features of conditions; those that are not a number stand at the mean."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(FEATURE_NAMES)))
        self.register_buffer("spread", torch.ones(len(FEATURE_NAMES)))

    def fit(self, features: Tensor) -> None:
        """Fit to features (N, F); what does not vary is left at its size."""
        spread = features.std(0)
        self.mean.copy_(features.mean(0))
        self.spread.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))

    def forward(self, given: Conditions) -> Tensor:
        """Return standardised features (B, F) of B showers."""
        return ((given.features - self.mean) / self.spread).nan_to_num(0.0)
