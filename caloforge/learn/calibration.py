r"""A detector's own correction of the whitening: mean and spread, smooth in energy and angle.

The whitening of the energies (`ShowerScale.energies`) decides mean response and resolution. For a
detector that it has not seen it is off by a fraction of a spread, and a few hundred showers are too
few to fit its network anew. What is fitted instead is a polynomial of `TERMS` terms in energy and
angle for the mean and for the logarithm of the spread of every quantity, in units of the old
spread.

How much of a fitted coefficient is real is estimated and not chosen: coefficients of one kind
(layers, hits of layers, sketch; the total alone) have a variance :math:`\tau^2` around zero that is
their mean square less what noise alone makes of them, and each is shrunk to
:math:`\tau^2/(\tau^2 + \sigma^2)` of itself (empirical Bayes; Efron and Morris 1973,
doi:10.1080/01621459.1973.10481350). With few showers the correction vanishes, with many it is the
fit. Terms are made orthogonal on the showers at hand, so that each is judged for itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.preprocess import TERMS, ShowerScale

__all__ = ["calibrate", "shrunk"]

ROUNDS = 6  # Of the fit of mean and spread in turn.
FAR = 5.0  # Spreads; what lies farther out does not pull harder.


@torch.no_grad()
def calibrate(scale: ShowerScale, voxels: Tensor, given: Conditions) -> float:
    """Correct the whitening for the detector of showers (N, R, PHI, Z) in MeV, all of one detector.

    Returns by how much the correction lowers the negative log likelihood of a quantity, on average
    over the showers it was fitted to. Does nothing for fewer than 4 `TERMS` showers.
    """
    law, features = scale.energies, given.features
    if len(voxels) < 4 * TERMS:
        return 0.0
    values = scale.raw_energies(voxels, given)
    before = _surprise(*law.moments(features), values)
    number = law.residual.anchor(features[0], law.unit)
    law.residual.requires_grad_(False)
    law.residual.values[number] = 0.0
    energy = features[:, FEATURE_NAMES.index("log_energy")]
    law.residual.reach[number] = torch.stack([energy.min(), energy.max()])
    mean, log_spread = law.moments(features)
    white = (values - mean) * torch.exp(-log_spread)  # (N, K)
    q, r = _orthogonal(law.smooth(features)[:, number])
    parts = _parts(scale, white.shape[1])
    shift, noise = _mean(q, white)
    shift = shrunk(shift, noise, parts)
    stretch = shrunk(*_spread(q, white - q @ shift), parts)
    terms = torch.cat([shift, stretch], dim=1)  # (P, 2 K)
    law.residual.values[number] = torch.linalg.solve(r, terms).flatten()
    return before - _surprise(*law.moments(features), values)


def shrunk(found: Tensor, noise: Tensor, parts: list[int]) -> Tensor:
    """Shrink coefficients (P, K) with variances `noise` (K,) of chance to what of them is real.

    `parts`: how many of the K quantities belong to each kind, in their order; every term of every
    kind has a variance of its own.
    """
    kept, end = [], 0
    for count in parts:
        start, end = end, end + count
        values, chance = found[:, start:end], noise[start:end]
        real = (values.square() - chance).mean(1, keepdim=True).clamp(min=0.0)  # (P, 1)
        kept.append(values * real / (real + chance))
    return torch.cat(kept, dim=1)


def _orthogonal(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonal terms (N, P), and how to make `terms` (N, P) of them (P, P).

    What says nothing new is left out: at one energy and one angle all terms are the constant.
    """
    q, r = torch.linalg.qr(terms)
    new = r.diagonal().abs() > 1e-2 * len(terms) ** 0.5
    return q * new, torch.where(new, r.diagonal(), 1.0).diag() + r.triu(1)


def _mean(q: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (P, K) of the mean of white (N, K) along q (N, P), and their variance (K,)."""
    shift = q.mT @ white
    for _ in range(ROUNDS):
        pull = white - q @ shift
        near = pull.std(0) * FAR
        pull = torch.minimum(torch.maximum(pull, -near), near)
        shift = shift + q.mT @ pull
    return shift, pull.square().sum(0) / (len(q) - q.shape[1])


def _spread(q: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (P, K) of the logarithm of the spread of pull (N, K), and their variance (K,).

    Fisher's scoring of the Gaussian likelihood, in steps of at most a factor e.
    """
    stretch = q.mT @ (pull.square().mean(0).clamp(min=1e-6).log() / 2).expand(len(q), -1)
    for _ in range(ROUNDS):
        excess = ((pull * torch.exp(-q @ stretch)).square() - 1) / 2
        stretch = stretch + q.mT @ excess.clamp(max=FAR**2 / 2)
    return stretch, excess.square().sum(0) / (len(q) - q.shape[1])


def _parts(scale: ShowerScale, quantities: int) -> list[int]:
    """Numbers of quantities of each kind: the total, layers, hits of layers, sketch."""
    z = scale.sketch.shape[2]
    return [1, z, z, quantities - 1 - 2 * z]


def _surprise(mean: Tensor, log_spread: Tensor, values: Tensor) -> float:
    """Negative log likelihood of values (N, K), a quantity's mean."""
    pull = ((values - mean) * torch.exp(-log_spread)).clamp(-FAR, FAR)
    return float((0.5 * pull.square() + log_spread).mean())
