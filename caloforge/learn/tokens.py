"""Tokens: the mesh cut into patches, and where each patch lies.

A patch of (p_r, p_phi, p_z) cells becomes one token; tokens are ordered (r, phi, z) like the cells.
Positions are physical and continuous: depth in radiation lengths, radius in Moliere radii, and phi
with integer frequencies, so that the last bin is next to the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from caloforge.errors import RequestError

__all__ = ["Patches", "fourier", "grid_code", "positions"]


@dataclass(frozen=True)
class Patches:
    """A mesh of `shape` cells cut into patches of `size` cells, both (r, phi, z).

    Raises `RequestError` if the patch does not divide the mesh.
    """

    shape: tuple[int, int, int]
    size: tuple[int, int, int]

    @classmethod
    def dividing(cls, shape: tuple[int, int, int], most: tuple[int, int, int]) -> Patches:
        """Cut a mesh into the largest patches that divide it and are at most `most`; 0: all."""
        sizes = (
            next(k for k in range(min(n, m or n), 0, -1) if n % k == 0)
            for n, m in zip(shape, most, strict=True)
        )
        r, phi, z = sizes
        return cls(shape, (r, phi, z))

    def __post_init__(self) -> None:
        """Refuse a patch that does not divide the mesh."""
        if any(p < 1 or n % p for n, p in zip(self.shape, self.size, strict=True)):
            raise RequestError(
                f"a patch of {self.size} cells does not divide a mesh of {self.shape}"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Numbers of tokens along r, phi and z."""
        (n_r, n_phi, n_z), (p_r, p_phi, p_z) = self.shape, self.size
        return n_r // p_r, n_phi // p_phi, n_z // p_z

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return math.prod(self.grid)

    @property
    def cells(self) -> int:
        """Number of cells in a patch."""
        return math.prod(self.size)

    def cut(self, voxels: Tensor) -> Tensor:
        """Cut voxels (B, R, PHI, Z) into tokens (B, T, cells)."""
        (g_r, g_phi, g_z), (p_r, p_phi, p_z) = self.grid, self.size
        split = voxels.reshape(-1, g_r, p_r, g_phi, p_phi, g_z, p_z)
        return split.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.tokens, self.cells)

    def fill(self, values: Tensor) -> Tensor:
        """Give every cell the value of its token: (B, R, PHI, Z) from values (B, T)."""
        return self.join(values[..., None].expand(-1, -1, self.cells))

    def join(self, tokens: Tensor) -> Tensor:
        """Undo `cut`: voxels (B, R, PHI, Z) from tokens (B, T, cells)."""
        return self.join_parts(tokens, 1)[:, 0]

    def join_parts(self, tokens: Tensor, parts: int) -> Tensor:
        """Voxels (B, parts, R, PHI, Z) from tokens (B, T, parts cells), part after part."""
        split = tokens.reshape(-1, *self.grid, parts, *self.size)
        return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, parts, *self.shape)


def fourier(x: Tensor, count: int, longest: float, shortest: float) -> Tensor:
    """Sines and cosines (..., 2 count) of x (...) at wavelengths from `longest` to `shortest`."""
    ratio = torch.linspace(0.0, 1.0, count, device=x.device, dtype=x.dtype)
    angle = x[..., None] * (2 * math.pi / longest * (longest / shortest) ** ratio)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _centres(patches: Patches, pitch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres of patches: radius (B, Gr) in Moliere radii, azimuth (Gphi,) in rad, depth (B, Gz) in
    radiation lengths.
    """
    (g_r, g_phi, g_z), (p_r, _, p_z) = patches.grid, patches.size
    kind: dict[str, Any] = dict(device=pitch.device, dtype=pitch.dtype)
    radius = (torch.arange(g_r, **kind) + 0.5) * p_r * pitch[:, :1]
    depth = (torch.arange(g_z, **kind) + 0.5) * p_z * pitch[:, 1:]
    return radius, (torch.arange(g_phi, **kind) + 0.5) * (2 * math.pi / g_phi), depth


def positions(patches: Patches, pitch: Tensor, count: int = 8) -> Tensor:
    """Position features (B, T, 6 count) of the patches' centres.

    pitch (B, 2): cell size in Moliere radii and radiation lengths. A third of the features each for
    r, phi and z (fixed sine-cosine); phi has the integer frequencies 1..count.
    """
    g_r, g_phi, g_z = patches.grid
    kind: dict[str, Any] = dict(device=pitch.device, dtype=pitch.dtype)
    radius, azimuth, depth = _centres(patches, pitch)
    turns = azimuth[:, None] * torch.arange(1, count + 1, **kind)
    around = torch.cat([turns.sin(), turns.cos()], dim=-1)
    parts = (
        fourier(radius, count, 16.0, 0.25)[:, :, None, None, :],
        around[None, None, :, None, :],
        fourier(depth, count, 64.0, 0.5)[:, None, None, :, :],
    )
    whole = [part.expand(pitch.shape[0], g_r, g_phi, g_z, 2 * count) for part in parts]
    return torch.cat(whole, dim=-1).reshape(pitch.shape[0], patches.tokens, 6 * count)


def grid_code(patches: Patches, width: int) -> Tensor:
    """Fixed sine-cosine code (T, width) of the patches' places in the grid, as in the slides.

    A third of the width each for r, phi and z, in counts of patches; phi does not close on itself.
    """
    third = width // 6
    codes = [fourier(torch.arange(float(g)), third, 4.0 * g, 2.0) for g in patches.grid]
    whole = torch.cat(
        [
            code.reshape(*(g if k == j else 1 for j, g in enumerate(patches.grid)), -1).expand(
                *patches.grid, -1
            )
            for k, code in enumerate(codes)
        ],
        dim=-1,
    ).reshape(patches.tokens, -1)
    return torch.nn.functional.pad(whole, (0, width - whole.shape[1]))
