r"""What is believed of values: empty with some probability, else one of a few Gaussians.

A voxel is a spike and a slab: at one known value if it is empty, spread out if it is filled. Under
Gaussian noise :math:`x_t = t x_1 + (1 - t) \epsilon` such a belief stays one of its kind (`seen`),
its mean is the guess of a diffusion model, its logarithm a proper score to train it by, and it can
be drawn from. The last makes few steps possible (De Bortoli et al., arXiv:2502.02483; Chen et al.,
arXiv:2504.05304): a step of a diffusion model that moves along the mean has to be short, for the
mean of a filled and an empty voxel is neither; one that moves to a draw may be as long as values
are independent of one another given what is seen already (`moved`).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["FINEST", "MOST", "NOTHING", "Belief", "at_first", "counted", "moved", "side_by_side"]

NOTHING = 1e-3  # A value no further above that of an empty voxel is empty.
FINEST, WIDEST = -5.0, 2.0  # Logarithm of a spread.
MOST = 6.0  # Of a logarithm of odds: beyond it the network is believed, not the number of hits.


class Belief(NamedTuple):
    """Belief of values (B, ...): logarithm of the odds that they are filled (B, ...), and M
    Gaussians if so: logarithms of their shares, means and logarithms of their spreads (B, M, ...).

    Values that are never empty have infinite odds.
    """

    odds: Tensor
    share: Tensor
    mean: Tensor
    log_spread: Tensor

    @classmethod
    def of(cls, odds: Tensor, share: Tensor, mean: Tensor, log_spread: Tensor) -> Belief:
        """A belief from the numbers (B, M, ...) of a network; spreads are kept in bounds."""
        return cls(odds, share - _total(share)[:, None], mean, log_spread.clamp(FINEST, WIDEST))

    @classmethod
    def unpacked(cls, numbers: Tensor) -> Belief:
        """A belief from all numbers (B, 3 M, ...) of a network: odds, M means, M spreads, and the
        shares of all Gaussians but the first, which stands at zero.
        """
        m = numbers.shape[1] // 3
        share = torch.cat([torch.zeros_like(numbers[:, :1]), numbers[:, 1 + 2 * m :]], dim=1)
        return cls.of(numbers[:, 0], share, numbers[:, 1 : 1 + m], numbers[:, 1 + m : 1 + 2 * m])

    @classmethod
    def filled(cls, mean: Tensor, log_spread: Tensor) -> Belief:
        """A belief in one Gaussian (B, ...) of values that are never empty."""
        one = mean[:, None]
        odds = torch.full_like(mean, torch.inf)
        return cls.of(odds, torch.zeros_like(one), one, log_spread[:, None])

    def seen(self, noisy: Tensor, level: Tensor, empty: Tensor) -> Belief:
        """The belief once the noisy values (B, ...) are seen at levels t (B, ...), from 0 to 1.

        `empty` () is the value of what is not filled.
        """
        noisy, level = noisy[:, None], level[:, None]
        noise = (1 - level).clamp(min=1e-3).square()
        variance = (2 * self.log_spread).exp()
        marginal = level.square() * variance + noise
        far = noisy - level * self.mean
        share = self.share - (far * far / marginal + marginal.log()) / 2
        evidence = _total(share)
        far = noisy - level * empty
        nothing = ((far * far / noise + noise.log()) / 2)[:, 0]
        return Belief(
            self.odds + evidence + nothing,
            share - evidence[:, None],
            (variance * level * noisy + noise * self.mean) / marginal,
            (variance * noise / marginal).log() / 2,
        )

    def value(self) -> Tensor:
        """Mean (B, ...) of the values if they are filled."""
        return (self.share.exp() * self.mean).sum(dim=1)

    def surprise(self, clean: Tensor, empty: Tensor | None = None) -> Tensor:
        """Negative logarithm of the likelihood (B, ...) of clean values; natural units.

        Without `empty` () none of them is empty.
        """
        pull = (clean[:, None] - self.mean) * (-self.log_spread).exp()
        inside = self.share - pull.square() / 2 - self.log_spread - math.log(2 * math.pi) / 2
        if empty is None:
            return -_total(inside)
        filled = F.logsigmoid(self.odds) + _total(inside)
        return -torch.where(clean > empty + NOTHING, filled, F.logsigmoid(-self.odds))

    def chosen(self, chance: Tensor, hits: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Decide what is filled, and by which Gaussian: filled (B, ...), mean, spread (B, ...).

        With `hits` (B, Z) so many voxels of each layer are filled, see `counted`.

        `chance` (B, ...) is uniform in [0, 1). What is left of it below the probability of being
        filled is uniform again and chooses the Gaussian.
        """
        p = torch.sigmoid(self.odds if hits is None else counted(self.odds, hits, chance))
        filled = chance < p
        rest = (chance / p.clamp(min=1e-12))[:, None]
        upto = self.share.exp().cumsum(dim=1)
        mean, spread = self.mean[:, 0], self.log_spread[:, 0].exp()
        for m in range(1, self.mean.shape[1]):
            later = rest[:, 0] >= upto[:, m - 1]
            mean = torch.where(later, self.mean[:, m], mean)
            spread = torch.where(later, self.log_spread[:, m].exp(), spread)
        return filled, mean, spread


def counted(odds: Tensor, hits: Tensor, chance: Tensor) -> Tensor:
    """Shift logarithms of odds (B, R, PHI, Z) layer by layer so that as many voxels as `hits`
    (B, Z) are filled by the uniform numbers `chance` (B, R, PHI, Z).

    Of the draws of independent voxels these are the ones with that number, very nearly: Pareto
    sampling (B. Rosen, J. Stat. Plan. Inference 62 (1997) 159). A shift is at most `MOST`.
    """
    z = odds.shape[-1]
    score = (odds - torch.logit(chance, eps=1e-6)).reshape(-1, odds[0, ..., 0].numel(), z)
    falling = score.sort(dim=1, descending=True).values
    falling = torch.cat([falling[:, :1] + 1, falling, falling[:, -1:] - 1], dim=1)
    place = hits.long().clamp(0, score.shape[1])[:, None]
    between = (falling.gather(1, place) + falling.gather(1, place + 1)) / 2
    return odds - between.clamp(-MOST, MOST)[:, None]


def side_by_side(values: Tensor, mixture: int) -> tuple[Tensor, Tensor]:
    """Means and logarithms of the spreads (M,) of Gaussians that share out values (N,)."""
    apart = torch.linspace(-1, 1, mixture) if mixture > 1 else torch.zeros(1)
    return values.mean() + values.std() * apart, (values.std() / mixture).log().expand(mixture)


def at_first(values: Tensor, empty: Tensor, mixture: int) -> Tensor:
    """Numbers (3 M,), as `Belief.unpacked` takes them, that believe of every value what is true of
    values (N, ...) together; `empty` () is one that is not filled.
    """
    filled = values[values > empty + NOTHING]
    share = torch.tensor(len(filled) / values.numel())
    means, width = side_by_side(filled, mixture)
    return torch.cat([share.logit()[None], means, width, torch.zeros(mixture - 1)])


def _total(logarithms: Tensor) -> Tensor:
    """Logarithm (B, ...) of the sum of numbers of which the logarithms (B, M, ...) are given."""
    return functools.reduce(torch.logaddexp, logarithms.unbind(dim=1))


def moved(
    x: Tensor | None, mean: Tensor, spread: Tensor, normal: Tensor, t: float, s: float
) -> Tensor:
    """From x (B, ...) at level t to level s >= t, if the clean value is N(mean, spread^2).

    The step of an ancestral chain (Ho et al., arXiv:2006.11239, equation 7, for any pair of
    levels) with the clean value's own fluctuation added in: one `normal` number (B, ...) serves
    both. At s = 1 it is the clean value, at t = 0 there is no x.
    """
    kept = t / s  # of the signal, from s back to t
    before, after = (1 - t) ** 2, (1 - s) ** 2  # variances of the noise
    added = before - kept**2 * after
    pull, noise = s * added / before, added * after / before
    width = (noise + (pull * spread).square()).sqrt() if noise else pull * spread
    moved = pull * mean + width * normal
    return moved if x is None or not t else moved + (kept * after / before) * x
