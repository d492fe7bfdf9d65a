"""Maps of active material: what must add up does, and the symmetries of the geometry hold."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.detector.active import active_maps
from caloforge.detector.detector import Detector, load_detector


def test_at_right_angles_every_cell_of_par04_holds_two_layers(siw: Detector) -> None:
    # On the axis: 3.4 mm cells, 1.7 mm layers. Off the axis the layers are curved.
    volume, exits = active_maps(siw.described_stack(), siw.mesh, [np.pi / 2])[0]
    assert np.allclose(volume[0].mean(0), 1.0, atol=0.02)
    assert exits[0].mean() == pytest.approx(1.0, abs=0.03)


def test_a_homogeneous_calorimeter_is_active_wherever_it_is() -> None:
    detector = load_detector("pbwo4")
    maps = active_maps(detector.described_stack(), detector.mesh, [1.2])
    inside = maps[0, 0, :5, :, 5:30]
    assert np.allclose(inside, 1.0, atol=0.05)


def test_mirror_symmetries(siw: Detector) -> None:
    thetas = np.array([0.9, 1.3])
    maps = active_maps(siw.described_stack(), siw.mesh, thetas)
    assert np.array_equal(maps, maps[:, :, :, ::-1])  # phi' -> -phi'
    # theta -> pi - theta turns x' around: phi' -> pi - phi'.
    other = active_maps(siw.described_stack(), siw.mesh, np.pi - thetas)
    turned = np.roll(maps[:, :, :, ::-1], siw.mesh.n_phi // 2, axis=3)
    assert np.allclose(other, turned, atol=0.35) and np.mean(np.abs(other - turned)) < 2e-3


@pytest.mark.parametrize("theta", [0.9, 1.2, 1.57, 2.0])
def test_both_maps_hold_the_same_material(siw: Detector, theta: float) -> None:
    volume, exits = active_maps(siw.described_stack(), siw.mesh, [theta])[0].mean((1, 2, 3))
    assert volume == pytest.approx(exits, rel=0.03)


def test_nothing_beyond_the_last_layer(siw: Detector) -> None:
    thin = siw.described_stack().model_copy(update={"layers": 20})  # 34 mm deep
    maps = active_maps(thin, siw.mesh, [np.pi / 2])
    assert maps[..., 12:].max() == 0.0 and maps[..., :8].mean() == pytest.approx(1.0, abs=0.05)
