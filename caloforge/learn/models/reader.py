"""What a graph network reads off showers: pooled features of their hits, and a head on them.

The same messages that draw the energies of hits also tell showers apart: here the energies are
shown and nothing else is told but the detector, neither the primary nor the material along its way.
Voxels in MeV and the detector go in, so features cannot give away what they should find.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.learn.condition import Conditions
from caloforge.learn.models.hitgraph import GraphNetwork
from caloforge.learn.preprocess import CUT_MEV

__all__ = ["Reader", "features", "length"]

SUMS = 2  # Features beside the states of hits: logarithms of the visible energy and of the hits.


def length(network: GraphNetwork) -> int:
    """Number D of `features`."""
    return 2 * network.config.width + SUMS


def features(network: GraphNetwork, voxels: Tensor, given: Conditions) -> Tensor:
    """Features (B, D) of showers with voxels (B, R, PHI, Z) in MeV: the mean state of the hits,
    the same weighed with their energies, and logarithms of visible energy over the cut and of hits.

    Of the conditions only the detector is used.
    """
    filled = voxels >= CUT_MEV
    hits = network.hits(filled, given.pitch, voxels)
    energy = hits.of(voxels)  # (N,)
    mean, spread = network.levels
    value = ((energy / CUT_MEV).log() - mean) / spread
    told = network.told(value.new_zeros(len(voxels), len(network.whiten)), _detector(given))
    states = network.states(hits, value, torch.ones_like(value), told)  # (N, W)
    total = (torch.where(filled, voxels, 0.0).sum(dim=(1, 2, 3)) / CUT_MEV).log1p()
    sums = torch.stack([total, hits.sizes.to(total.dtype).log1p()], dim=1)
    return torch.cat([hits.mean(states), hits.mean(states, energy), sums], dim=1)


def _detector(given: Conditions) -> Conditions:
    """Conditions without the primary: what is not known is not a number, and no cell stands out."""
    hidden = torch.full_like(given.features, torch.nan)
    last = -len(DESCRIPTOR_NAMES)
    hidden[:, last:] = given.features[:, last:]
    return given._replace(
        features=hidden,
        maps=torch.ones_like(given.maps),
        energy=torch.full_like(given.energy, torch.nan),
    )


class Reader(nn.Module):
    """A graph network with a head for K quantities, or K classes, trained end to end.

    Once `fit`, it begins as the best linear function of the features.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, network: GraphNetwork, outputs: int) -> None:
        super().__init__()
        d, width = length(network), network.config.width
        self.network = network
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("spread", torch.ones(d))
        self.straight = nn.Linear(d, outputs)
        self.bent = nn.Sequential(nn.Linear(d, width), nn.SiLU(), nn.Linear(width, outputs))
        for parameter in self.bent[-1].parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def fit(self, found: Tensor, wanted: Tensor, ridge: float = 1e-3) -> None:
        """Begin as the linear function of features (N, D) nearest to what is wanted (N, K).

        `ridge` is the variance per shower, without unit, that a weight of one costs.
        """
        self.mean.copy_(found.mean(0))
        self.spread.copy_(found.std(0).clamp(min=1e-3))
        x = ((found - self.mean) / self.spread).double()
        y = (wanted - wanted.mean(0)).double()
        gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1]).to(x)
        self.straight.weight.copy_(torch.linalg.solve(gram, x.T @ y / len(x)).T)
        self.straight.bias.copy_(wanted.mean(0))

    def forward(self, voxels: Tensor, given: Conditions) -> Tensor:
        """Quantities, or logarithms of odds, (B, K) of voxels (B, R, PHI, Z) in MeV."""
        x = (features(self.network, voxels, given) - self.mean) / self.spread
        found: Tensor = self.straight(x) + self.bent(x)
        return found
