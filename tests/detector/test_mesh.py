"""The mesh: laws of assignment, of the frame, of the mirror."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from caloforge.detector.mesh import Mesh, rotation

MESH = Mesh(n_r=9, n_phi=16, n_z=45, cell_r_mm=4.65, cell_z_mm=3.4)
angles = st.tuples(st.floats(0.1, 3.0), st.floats(-3.1, 3.1))


def centres(mesh: Mesh) -> np.ndarray:
    r, phi, z = np.meshgrid(mesh.centres_r, mesh.centres_phi, mesh.centres_z, indexing="ij")
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1).reshape(-1, 3)


@given(angles)
@settings(max_examples=20, deadline=None)
def test_every_centre_lies_in_its_own_cell(direction: tuple[float, float]) -> None:
    displacement = centres(MESH) @ rotation(*direction)  # back from the mesh frame
    assert (MESH.cells_of(displacement, *direction) == np.arange(MESH.n_cells)).all()


@given(angles)
@settings(max_examples=20, deadline=None)
def test_the_frame_is_that_of_par04(direction: tuple[float, float]) -> None:
    theta, phi = direction
    along = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
    e_theta = [np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), -np.sin(theta)]
    e_phi = [-np.sin(phi), np.cos(phi), 0.0]
    assert np.allclose(MESH.to_frame([e_theta, e_phi, along], theta, phi), np.eye(3), atol=1e-12)


def test_the_gun_of_par04() -> None:
    # Towards +y, phi bin 0 begins along global +z and +x is -y' (par04's macros).
    assert np.allclose(rotation(np.pi / 2, np.pi / 2) @ [0, 0, 1.0], [-1, 0, 0], atol=1e-12)
    assert np.allclose(rotation(np.pi / 2, np.pi / 2) @ [1.0, 0, 0], [0, -1, 0], atol=1e-12)


def test_the_first_phi_bin_starts_at_minus_pi() -> None:
    below, above = np.pi - 1e-6, -np.pi + 1e-6
    points = [[5 * np.cos(a), 5 * np.sin(a), 1.0] for a in (above, below, np.pi)]
    phi_bin = MESH.cells_of(np.array(points) @ rotation(1.0, 0.3), 1.0, 0.3) // 45 % 16
    assert phi_bin[0] == 0 and phi_bin[1] == 15 and phi_bin[2] in (0, 15)


def test_outside_is_minus_one() -> None:
    points = np.array([[0, 0, -1e-3], [0, 0, 153.1], [41.9, 0, 1], [1, 0, 1.0]])
    assert (MESH.cells_of(points, 0.0, 0.0) < 0).tolist() == [True, True, True, False]


def test_volumes_fill_the_cylinder() -> None:
    whole = np.pi * MESH.edges_r[-1] ** 2 * MESH.edges_z[-1]
    assert MESH.volumes.shape == MESH.shape
    assert MESH.volumes.sum() == pytest.approx(whole)


def test_the_mirror_is_its_own_inverse_and_flips_y() -> None:
    cells = np.arange(MESH.n_cells)
    assert (MESH.mirrored(MESH.mirrored(cells)) == cells).all()
    flipped = centres(MESH) * [1, -1, 1]
    assert (MESH.cells_of(flipped, 0.0, 0.0) == MESH.mirrored(cells)).all()


@pytest.mark.parametrize(
    "wrong", [{"n_r": 0}, {"cell_z_mm": 0}, {"cell_r_mm": float("nan")}, {"x": 1}]
)
def test_refuses_what_is_no_mesh(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Mesh(**(MESH.model_dump() | wrong))
