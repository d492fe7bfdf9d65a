"""The readout mesh: a cylinder around the direction of the primary, cut in r, phi and z.

The mesh frame is that of Geant4's Par04 example: its origin is the point where the primary enters
the calorimeter, z' the direction of the primary, x' the unit vector of growing theta and y' the
unit vector of growing phi. A displacement from the entrance is turned by Rz(-phi), then Ry(-theta).
The cell of a point is ``r = floor(rho'/cell_r)``, ``phi = floor((pi + phi')/(2 pi/n_phi))`` and
``z = floor(z'/cell_z)``; arrays are ordered (R, PHI, Z), Z fastest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Mesh", "rotation"]

Floats = NDArray[np.floating[Any]]


def rotation(theta: float, phi: float) -> Floats:
    """Matrix (3, 3) that turns a displacement into the mesh frame: Ry(-theta) Rz(-phi), in rad."""
    ct, st, cp, sp = np.cos(theta), np.sin(theta), np.cos(phi), np.sin(phi)
    return np.array([[ct * cp, ct * sp, -st], [-sp, cp, 0.0], [st * cp, st * sp, ct]])


class Mesh(BaseModel):
    """A cylindrical mesh of n_r x n_phi x n_z cells; sizes in mm.

    Raises pydantic's ``ValidationError`` for counts below 1 and sizes that are not positive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_r: int = Field(ge=1, le=10_000, strict=True)
    n_phi: int = Field(ge=1, le=10_000, strict=True)
    n_z: int = Field(ge=1, le=10_000, strict=True)
    cell_r_mm: float = Field(gt=0, allow_inf_nan=False)
    cell_z_mm: float = Field(gt=0, allow_inf_nan=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of cells (n_r, n_phi, n_z)."""
        return self.n_r, self.n_phi, self.n_z

    @property
    def n_cells(self) -> int:
        """Number of cells in all."""
        return self.n_r * self.n_phi * self.n_z

    @property
    def edges_r(self) -> Floats:
        """Radial edges (n_r + 1,) in mm."""
        return np.arange(self.n_r + 1) * self.cell_r_mm

    @property
    def edges_phi(self) -> Floats:
        """Azimuthal edges (n_phi + 1,) in rad, from -pi to pi."""
        return np.linspace(-np.pi, np.pi, self.n_phi + 1)

    @property
    def edges_z(self) -> Floats:
        """Edges along the primary's direction (n_z + 1,) in mm."""
        return np.arange(self.n_z + 1) * self.cell_z_mm

    @property
    def centres_r(self) -> Floats:
        """Radial centres (n_r,) in mm."""
        return (np.arange(self.n_r) + 0.5) * self.cell_r_mm

    @property
    def centres_phi(self) -> Floats:
        """Azimuthal centres (n_phi,) in rad."""
        return (np.arange(self.n_phi) + 0.5) * (2 * np.pi / self.n_phi) - np.pi

    @property
    def centres_z(self) -> Floats:
        """Centres along the primary's direction (n_z,) in mm."""
        return (np.arange(self.n_z) + 0.5) * self.cell_z_mm

    @property
    def volumes(self) -> Floats:
        """Cell volumes (n_r, n_phi, n_z) in mm^3."""
        sector = np.diff(self.edges_r**2) * np.pi / self.n_phi
        return np.broadcast_to(sector[:, None, None] * self.cell_z_mm, self.shape).copy()

    def to_frame(self, displacement: ArrayLike, theta: float, phi: float) -> Floats:
        """Turn displacements (M, 3) in mm from the entrance into the mesh frame (M, 3)."""
        return np.asarray(displacement, dtype=np.float64) @ rotation(theta, phi).T

    def cells_of(self, displacement: ArrayLike, theta: float, phi: float) -> NDArray[np.int64]:
        """Flat cell (M,) of displacements (M, 3) in mm from the entrance; -1 outside the mesh."""
        x, y, z = self.to_frame(displacement, theta, phi).T
        r_bin = np.floor(np.hypot(x, y) / self.cell_r_mm)
        z_bin = np.floor(z / self.cell_z_mm)
        # phi' = +pi is the same direction as -pi; Par04 would let it run past the last bin.
        phi_bin = np.floor((np.pi + np.arctan2(y, x)) / (2 * np.pi / self.n_phi)) % self.n_phi
        inside = (r_bin < self.n_r) & (z_bin >= 0) & (z_bin < self.n_z)
        flat = (r_bin * self.n_phi + phi_bin) * self.n_z + z_bin
        return np.where(inside, flat, -1).astype(np.int64)

    def mirrored(self, cell: NDArray[Any]) -> NDArray[np.int64]:
        """Flat cells (M,) after the mirror phi' -> -phi', an exact symmetry of the physics."""
        r_bin, rest = np.divmod(np.asarray(cell, dtype=np.int64), self.n_phi * self.n_z)
        phi_bin, z_bin = np.divmod(rest, self.n_z)
        flat: NDArray[np.int64] = (
            r_bin * self.n_phi + (self.n_phi - 1 - phi_bin)
        ) * self.n_z + z_bin
        return flat
