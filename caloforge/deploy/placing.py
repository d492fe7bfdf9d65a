r"""From cells to points: where the energy of a generated cell is put in the detector.

The mesh belongs to the shower, the layers to the detector. A cell's energy is put where the full
simulation finds it, in active material: on the line through the middle of the cell (its centre in
r and phi), at the middle of the longest stretch of an active layer that the line crosses within
the cell. Where it crosses none, the point is the centre of the cell. Either way the point is
inside the cell, so that the mesh gives the same cells back. A point (x', y', z') of the mesh frame
lies at :math:`\rho = \sqrt{(R + x' \cos\theta + z' \sin\theta)^2 + y'^2}` from the beam, as in
`caloforge.detector.active`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector
from caloforge.detector.mesh import rotation

__all__ = ["points_of"]

Floats = NDArray[np.float64]

EDGE_MM = 1e-4  # kept free of points at both ends of a cell, well above the rounding of a rotation


def points_of(
    cell: NDArray[np.integer], detector: Detector, theta: float, phi: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Displacements (K, 3) in mm from the entrance, one in each flat cell (K,), for a primary of
    direction theta, phi in rad; and whether they lie in active material (K,).

    Raises `RequestError` for a detector without a stack.
    """
    mesh = detector.mesh
    r_bin, rest = np.divmod(np.asarray(cell, np.int64), mesh.n_phi * mesh.n_z)
    phi_bin, z_bin = np.divmod(rest, mesh.n_z)
    radius = mesh.centres_r[r_bin].astype(np.float64)
    azimuth = mesh.centres_phi[phi_bin].astype(np.float64)
    x, y = radius * np.cos(azimuth), radius * np.sin(azimuth)
    low, high = z_bin * mesh.cell_z_mm + EDGE_MM, (z_bin + 1) * mesh.cell_z_mm - EDGE_MM
    z, active = _active_depth(detector, theta, x, y, low, high)
    return np.stack([x, y, z], axis=1) @ rotation(theta, phi), active


def _active_depth(
    detector: Detector, theta: float, x: Floats, y: Floats, low: Floats, high: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Depths z' (K,) in mm between `low` and `high`, in an active layer if there is one; and if so.

    Of the layers that can reach into a cell three are enough: where more do, the one nearest to the
    centre lies in it whole, and no stretch is longer than a whole layer by more than its slant.
    """
    stack = detector.described_stack()
    ct, st, R = np.cos(theta), np.sin(theta), stack.inner_radius_mm
    centre = (low + high) / 2
    passive = stack.pitch_mm - stack.active.thickness_mm
    depth = np.hypot(R + x * ct + centre * st, y) - R
    nearest = np.rint((depth - passive - stack.active.thickness_mm / 2) / stack.pitch_mm)
    layers = np.clip(nearest[:, None] + np.array([0, -1, 1]), 0, stack.layers - 1)
    inner = R + layers * stack.pitch_mm + passive
    faces = np.stack([inner, inner + stack.active.thickness_mm])  # (2, K, 3)
    crossed = (np.sqrt(faces**2 - y[:, None] ** 2) - R - x[:, None] * ct) / st
    begin = np.maximum(crossed[0], low[:, None])
    length = np.minimum(crossed[1], high[:, None]) - begin
    best = np.argmax(length, axis=1)[:, None]
    stretch = np.take_along_axis(length, best, axis=1)[:, 0]
    middle = np.take_along_axis(begin, best, axis=1)[:, 0] + stretch / 2
    return np.where(stretch > 0, middle, centre), stretch > 0
