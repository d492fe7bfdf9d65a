"""Cells to points and back: the same cells, in active material wherever a cell holds any."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.deploy.placing import points_of
from caloforge.detector.detector import Detector, load_detector
from caloforge.detector.mesh import rotation

DETECTORS = ("par04-siw", "par04-scipb", "pbwo4", "fccee-cld")
ANGLES = (np.pi / 2, 0.87, 2.27)


def in_active(detector: Detector, displacement: np.ndarray, theta: float, phi: float) -> np.ndarray:
    """Whether points lie in an active layer, from the stack's description alone."""
    stack = detector.described_stack()
    axis = np.array([np.cos(phi), np.sin(phi), 1 / np.tan(theta)]) * stack.inner_radius_mm
    depth = np.hypot(*(displacement + axis)[:, :2].T) - stack.inner_radius_mm
    within = depth % stack.pitch_mm > stack.pitch_mm - stack.active.thickness_mm
    return within & (depth > 0) & (depth < stack.depth_mm)


@pytest.mark.parametrize("theta", ANGLES)
@pytest.mark.parametrize("name", DETECTORS)
def test_every_cell_gives_itself_back(name: str, theta: float) -> None:
    detector, phi = load_detector(name), 2.3
    cells = np.arange(detector.mesh.n_cells)
    points, active = points_of(cells, detector, theta, phi)
    assert np.array_equal(detector.mesh.cells_of(points, theta, phi), cells)
    assert np.array_equal(in_active(detector, points, theta, phi), active)


@pytest.mark.parametrize("theta", ANGLES)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_cell_with_active_material_on_its_line_is_not_missed(name: str, theta: float) -> None:
    """Against a fine scan of the line through the middle of each cell."""
    detector, phi = load_detector(name), -1.1
    mesh = detector.mesh
    cells = np.random.default_rng(1).choice(mesh.n_cells, 300, replace=False)
    _, active = points_of(cells, detector, theta, phi)
    r_bin, rest = np.divmod(cells, mesh.n_phi * mesh.n_z)
    phi_bin, z_bin = np.divmod(rest, mesh.n_z)
    radius, azimuth = mesh.centres_r[r_bin], mesh.centres_phi[phi_bin]
    scan = (z_bin[:, None] + (np.arange(200) + 0.5) / 200) * mesh.cell_z_mm
    x, y = (np.broadcast_to((radius * f(azimuth))[:, None], scan.shape) for f in (np.cos, np.sin))
    line = np.stack([x, y, scan], -1).reshape(-1, 3) @ rotation(theta, phi)
    crossed = in_active(detector, line, theta, phi).reshape(scan.shape).any(1)
    assert not (crossed & ~active).any()
    # The scan may pass by a stretch shorter than its pitch, and nothing else.
    assert (active & ~crossed).mean() < 0.02


def test_a_homogeneous_block_is_active_up_to_its_back() -> None:
    detector = load_detector("pbwo4")
    cells = np.arange(detector.mesh.n_z)
    _, active = points_of(cells, detector, np.pi / 2, 0.0)
    assert active.all()
