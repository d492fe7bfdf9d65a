"""The two mirrors of a barrel: planes through a primary in which physics looks the same.

Layers are cylinders around the beam. The plane of beam and primary takes phi' to -phi'. The plane
across the beam takes theta to pi - theta, and with it x' of the mesh to -x': a backward primary is
a forward one, turned by half a turn. Both are exact, so that a shower is four.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.learn.condition import FEATURE_NAMES, Conditions

__all__ = ["mirrored", "turned_back"]

_COSINE = FEATURE_NAMES.index("cos_theta")


def mirrored(
    voxels: Tensor, given: Conditions, across: Tensor, along: Tensor
) -> tuple[Tensor, Conditions]:
    """Mirror voxels (B, R, PHI, Z) and their conditions: `across` (B,) chooses the showers of which
    phi' becomes -phi', `along` (B,) those of which theta becomes pi - theta.

    On a mesh with an odd number of sectors half a turn is no number of cells, and theta stays.
    """
    voxels = torch.where(across[:, None, None, None], voxels.flip(2), voxels)
    half, odd = divmod(voxels.shape[2], 2)
    if odd:
        return voxels, given
    turned = along[:, None, None, None]
    voxels = torch.where(turned, voxels.roll(half, 2), voxels)
    maps = torch.where(turned[:, None], given.maps.roll(half, 3), given.maps)
    return voxels, given._replace(features=turned_back(given.features, along), maps=maps)


def turned_back(features: Tensor, along: Tensor) -> Tensor:
    """Features (B, F) with theta become pi - theta where `along` (B,) says so."""
    features = features.clone()
    features[:, _COSINE] *= torch.where(along, -1.0, 1.0)
    return features
