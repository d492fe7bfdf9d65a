"""Geant4 itself follows the maps of active material that the model is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caloforge.detector.active import active_maps
from caloforge.detector.detector import parse_detector
from caloforge.showers.formats import read_showers
from caloforge.simulate.production import simulate

# Layers of 14 mm read out in slices of 9 mm: some slices hold an active layer, some none.
COARSE = """
name = "coarse"
[stack]
inner_radius_mm = 1062
layers = 36
absorber = { material = "G4_Cu", thickness_mm = 12.14 }
active = { material = "G4_POLYSTYRENE", thickness_mm = 1.87 }
[mesh]
n_r = 9
n_phi = 16
n_z = 30
cell_r_mm = 5.0
cell_z_mm = 9.0
"""


def ripple(profile: np.ndarray) -> np.ndarray:
    """What a slice has beyond its neighbours, on a logarithmic scale."""
    level = np.log(profile + 0.02 * profile.mean())
    return level[1:-1] - (level[:-2] + level[2:]) / 2


def test_layer_energies_follow_the_active_material(tmp_path: Path) -> None:
    detector, theta = parse_detector(COARSE), 1.2
    simulate(
        detector,
        tmp_path / "a.h5",
        40,
        energy_mev=(3e3, 3e3),
        theta=(theta, theta),
        seed=2,
        workers=2,
    )
    showers = read_showers(tmp_path / "a.h5")
    dense = showers.dense().mean(0)
    radial = dense.sum((1, 2), keepdims=True) / dense.sum()
    maps = active_maps(detector.described_stack(), detector.mesh, [theta])[0]
    expected = (maps.mean(2, keepdims=True) * radial).sum((1, 2))  # (2, Z)
    measured = ripple(dense.sum((0, 1)))[:20]
    volume, exits = (np.corrcoef(measured, ripple(row)[:20])[0, 1] for row in expected)
    assert volume > 0.5 and exits > 0.8
