r"""How much active material each cell of the mesh holds, seen by a primary of polar angle theta.

The layers are cylinders around the beam, the mesh is a cylinder around the primary: a cell may hold
two silicon layers, or one, and its energy follows. This moire pattern is geometry, not physics to
be learned, so a model is given it as an input. A point (x', y', z') of the mesh frame lies at

.. math:: \rho = \sqrt{(R + x' \cos\theta + z' \sin\theta)^2 + y'^2}

from the beam, with R the inner radius. Two maps are made along each line of constant (x', y'):

- *volume*: thickness of active material that the line crosses within a cell;
- *exits*: active thickness of the layers whose outer face it crosses within a cell. Geant4 ends a
  step at a boundary, and a deposit counts at the end of its step, so this is where most of it goes.

Both are divided by what an average cell of the stack would hold, so their typical value is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.detector.detector import Stack
from caloforge.detector.mesh import Mesh

__all__ = ["active_maps"]


def active_maps(
    stack: Stack, mesh: Mesh, theta: ArrayLike, lines_r: int = 2
) -> NDArray[np.float32]:
    """Active material per cell, (N, 2, R, PHI, Z), for polar angles theta (N,) in rad.

    Channel 0 is the volume, channel 1 the exits, both without unit (see the module). The average
    over a cell's cross section is taken over `lines_r` lines per radial bin, evenly in radius (as
    the energy of a shower falls roughly with 1/r), at the centre in phi.
    """
    # phi' and -phi' see the same layers: half of the bins is enough.
    half = (mesh.n_phi + 1) // 2
    radius = (np.arange(mesh.n_r * lines_r, dtype=np.float32) + 0.5) * (mesh.cell_r_mm / lines_r)
    azimuth = mesh.centres_phi[:half].astype(np.float32)
    x = np.outer(radius, np.cos(azimuth)).reshape(1, -1, 1)
    y2 = (np.outer(radius, np.sin(azimuth)) ** 2).reshape(1, -1, 1)
    angle = np.asarray(theta, dtype=np.float32).reshape(-1, 1, 1)
    z = mesh.edges_z.astype(np.float32).reshape(1, 1, -1)
    plane = stack.inner_radius_mm + x * np.cos(angle) + z * np.sin(angle)
    crossed = _crossed(stack, np.sqrt(plane * plane + y2) - stack.inner_radius_mm)
    average = stack.active.thickness_mm / stack.pitch_mm * mesh.cell_z_mm * np.sin(angle)
    maps = np.diff(crossed, axis=-1) / average
    maps = maps.reshape(2, len(angle), mesh.n_r, lines_r, half, mesh.n_z).mean(axis=3)
    whole = np.concatenate([maps, maps[..., : mesh.n_phi - half, :][..., ::-1, :]], axis=-2)
    return np.ascontiguousarray(whole.transpose(1, 0, 2, 3, 4), dtype=np.float32)


def _crossed(stack: Stack, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Active thickness in mm up to a radial depth in mm: (2, ...), by volume and by exits."""
    depth = np.clip(depth, 0.0, stack.depth_mm)
    active, passive = stack.active.thickness_mm, stack.pitch_mm - stack.active.thickness_mm
    # A face at the very edge of a cell belongs to the next one, as for Geant4's post-step points;
    # a micrometre is well above float32 rounding and well below any layer.
    whole = np.floor((depth - 1e-3) / stack.pitch_mm).clip(0)
    begun = np.clip(depth - whole * stack.pitch_mm - passive, 0.0, active)
    return np.stack([whole * active + begun, whole * active])
