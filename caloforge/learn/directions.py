"""Directions in which the energies of a shower fluctuate independently of one another.

Draws that are independent direction by direction then have the covariance of the data in one step.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fitted", "independent"]

LEAST = 1e-3  # Variance of a direction, in whitened units; what varies less is taken for this.


def independent(covariance: Tensor) -> Tensor:
    """A matrix (K, K) that makes K quantities with this covariance independent and of spread one.

    The first and the last, energy and hits of the whole shower, are kept to themselves, so that
    their laws are not composed of those of many others; the rest are principal components of what
    these two do not tell. All are without unit.
    """
    k = len(covariance)
    own, rest = torch.tensor([0, k - 1]), torch.arange(1, k - 1)
    base = torch.linalg.cholesky(covariance[own][:, own])
    slope = torch.linalg.solve(covariance[own][:, own], covariance[own][:, rest])  # (2, K - 2)
    left = covariance[rest][:, rest] - covariance[rest][:, own] @ slope
    variance, axes = torch.linalg.eigh(left)
    axes = axes / variance.clamp(min=LEAST).sqrt()
    whiten = torch.zeros_like(covariance)
    whiten[own[:, None], own] = torch.linalg.inv(base).T
    whiten[rest[:, None], rest] = axes
    whiten[own[:, None], rest] = -slope @ axes
    return whiten


def fitted(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return `independent` for K quantities of N showers (N, K), and its inverse: both (K, K).

    Where showers are few, the covariance is drawn towards that of independent quantities.
    """
    n, k = values.shape
    covariance = torch.cov(values.T.double())
    whiten = independent(torch.lerp(torch.eye(k).to(covariance), covariance, n / (n + k)))
    return whiten.to(values.dtype), torch.linalg.inv(whiten).to(values.dtype)
