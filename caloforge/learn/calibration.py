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

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import TERMS, ShowerScale

__all__ = ["Draw", "calibrate", "drawn", "shrunk", "spread_out"]

DRAWN = 400  # Showers of which energies are drawn.
BATCH = 64
ROUNDS = 6  # Of the fit of mean and spread in turn.
FAR = 5.0  # Spreads; what lies farther out does not pull harder.

Draw = Callable[[Conditions, Noise], Tensor]


@torch.no_grad()
def calibrate(scale: ShowerScale, draw: Draw, voxels: Tensor, given: Conditions) -> float:
    """Correct the whitening for the detector of showers (N, R, PHI, Z) in MeV, all of one detector.

    `draw` makes whitened energies (B, K) from conditions and noise. Returns by how much the
    correction moves a quantity, in root mean square and in old spreads. Does nothing for fewer than
    4 `TERMS` showers.
    """
    law, features = scale.energies, given.features
    if len(voxels) < 4 * TERMS:
        return 0.0
    number = law.residual.renewed(features[0], law.unit)
    energy = features[:, FEATURE_NAMES.index("log_energy")]
    law.residual.reach[number] = torch.stack([energy.min(), energy.max()])
    q, r = _orthogonal(law.smooth(features)[:, number])
    white = law(
        scale.raw_energies(voxels, given, torch.Generator().manual_seed(0)), features
    )  # (N, K)
    rows = spread_out(len(white), DRAWN)
    white_drawn = drawn(draw, given.at(rows))
    parts = _parts(scale, white.shape[1])
    shift, noise = _mean(q, white)
    target, chance = _mean(q[rows], white_drawn)
    stretch, noise_s = _spread(q, white - q @ shift)
    wanted, chance_s = _spread(q[rows], white_drawn - q[rows] @ target)
    stretch = shrunk(stretch - wanted, noise_s + chance_s, parts)
    wider = torch.exp(q @ stretch)
    moved = q.mT @ (q @ shift - wider * (q @ target))
    moved = shrunk(moved, noise + chance, parts)
    terms = torch.cat([moved, stretch], dim=1)  # (P, 2 K)
    law.residual.values[number] = torch.linalg.solve(r, terms).flatten()
    return float((q @ moved).square().mean().sqrt())


def spread_out(showers: int, most: int) -> Tensor:
    """Numbers (M,) of at most so many showers, evenly spread out over all of them."""
    return torch.linspace(0, showers - 1, min(showers, most)).round().long()


@torch.no_grad()
def drawn(draw: Draw, given: Conditions) -> Tensor:
    """What `draw` makes (N, ...) for N conditions, always from the same noise."""
    seeds = np.arange(0, 2 * given.showers, 2, dtype=np.uint64)  # odd ones draw what even ones do
    parts = []
    for start in range(0, given.showers, BATCH):
        some = given.at(slice(start, start + BATCH))
        parts.append(draw(some, Noise(seeds[start : start + BATCH], given.energy.device)))
    return torch.cat(parts)


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
        kept.append(values * real / (real + chance).clamp(min=1e-30))
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
    solve, inflated = _solver(q)
    shift = solve @ white
    for _ in range(ROUNDS):
        pull = white - q @ shift
        near = pull.std(0) * FAR
        pull = torch.minimum(torch.maximum(pull, -near), near)
        shift = shift + solve @ pull
    return shift, inflated * pull.square().sum(0) / (len(q) - q.shape[1])


def _spread(q: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (P, K) of the logarithm of the spread of pull (N, K), and their variance (K,).

    Fisher's scoring of the Gaussian likelihood, far pulls held back.
    """
    solve, inflated = _solver(q)
    stretch = solve @ (pull.square().mean(0).clamp(min=1e-6).log() / 2).expand(len(q), -1)
    for _ in range(ROUNDS):
        excess = ((pull * torch.exp(-q @ stretch)).square() - 1) / 2
        stretch = stretch + solve @ excess.clamp(max=FAR**2 / 2)
    return stretch, inflated * excess.square().sum(0) / (len(q) - q.shape[1])


def _solver(q: Tensor) -> tuple[Tensor, float]:
    """Least squares on terms (N, P), orthogonal on these or on more showers: (P, N), and by how
    much the variance of a coefficient is larger than on all of them.
    """
    used = q.square().sum().clamp(min=1e-12) / max(int((q != 0).any(0).sum()), 1)
    return torch.linalg.pinv(q), float(1 / used)


def _parts(scale: ShowerScale, quantities: int) -> list[int]:
    """Numbers of quantities of each kind: the total, layers, their hits, sketch, all hits."""
    z, own = scale.sketch.shape[2], [1] if scale.counted else []
    return [1, z, z, quantities - 1 - 2 * z - len(own), *own]
