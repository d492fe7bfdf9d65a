r"""The profile of a shower: hits and energy of one layer after the other, drawn in a sentence.

What a layer holds is two numbers, both whitened: h, the logarithm of its hits, and e, that of its
energy. At each place of a sentence of tokens they are believed to be one of M Gaussians, in which e
leans on h; they are drawn before the rest of the place is, and told to it.

.. math:: p(h, e) = \sum_m w_m \, N(h; \mu_m, \sigma_m^2) \,
          N(e; \nu_m + k_m (h - \mu_m), \tau_m^2)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.learn.models.belief import FINEST, WIDEST

__all__ = ["Profile"]


class Profile(nn.Module):
    """Draws the pairs of places (B, N, D) from `mixture` Gaussians and tells what follows."""

    def __init__(self, width: int, mixture: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.head = nn.Linear(width, 6 * mixture)
        self.embed = nn.Linear(2, width)
        self.after = nn.Sequential(
            nn.Linear(width + 2, width), nn.SiLU(), nn.Linear(width, width)
        )  # fmt: skip
        last = self.after[-1]
        assert isinstance(last, nn.Linear)
        for layer in (self.head, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():  # Gaussians begin side by side
            self.head.bias[mixture : 2 * mixture] = torch.linspace(-1, 1, mixture)

    def forward(self, x: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Negative logarithms of the likelihood (B, N) in nats of pairs (B, N, 2), and places
        (B, N, D) that are told them.
        """
        share, first, wide, second, lean, left = self._believed(x)
        h, e = pairs[..., :1], pairs[..., 1:]
        inside = share + _log_normal(h - first, wide)
        inside = inside + _log_normal(e - second - lean * (h - first), left)
        return -inside.logsumexp(dim=-1), self._told(x, pairs)

    def _believed(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logarithms of shares, means and spreads of h, means, slopes and spreads of e, each
        (B, N, M); spreads as logarithms.
        """
        share, first, wide, second, lean, left = self.head(x).float().chunk(6, dim=-1)
        return (
            share.log_softmax(dim=-1), first, wide.clamp(FINEST, WIDEST),
            second, lean, left.clamp(FINEST, WIDEST),
        )  # fmt: skip

    def _told(self, x: Tensor, pairs: Tensor) -> Tensor:
        told: Tensor = x + self.after(torch.cat([x, pairs.type_as(x)], dim=-1))
        return told


def _log_normal(far: Tensor, log_spread: Tensor) -> Tensor:
    return -(far * (-log_spread).exp()).square() / 2 - log_spread - math.log(2 * math.pi) / 2
