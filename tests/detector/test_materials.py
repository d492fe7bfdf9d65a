"""Radiation lengths, critical energies and losses against the tables of the PDG."""

from __future__ import annotations

import pytest

from caloforge.detector.materials import ATOMIC_WEIGHTS, MATERIALS, material
from caloforge.errors import RequestError

# X0 [mm], R_M [mm], E_c [MeV], minimum dE/dx [MeV/mm]: PDG, Atomic and Nuclear Properties (2024).
PDG = {
    "G4_W": (3.504, 9.327, 7.97, 2.210),
    "G4_Pb": (5.612, 16.02, 7.43, 1.274),
    "G4_Si": (93.70, 49.44, 40.19, 0.3876),
    "G4_Fe": (17.57, 17.19, 21.68, 1.143),
    "G4_Cu": (14.36, 15.68, 19.42, 1.257),
    "G4_POLYSTYRENE": (413.1, 93.2, 93.11, 0.2052),
    "G4_lAr": (140.0, 90.4, 32.84, 0.2105),
    "G4_PbWO4": (8.903, 19.59, 9.64, 1.023),
}


@pytest.mark.parametrize("name", PDG)
def test_agrees_with_the_pdg(name: str) -> None:
    x0, moliere, critical, loss = PDG[name]
    m = material(name)
    assert m.radiation_length_mm == pytest.approx(x0, rel=0.005)
    assert m.moliere_radius_mm == pytest.approx(moliere, rel=0.05)
    assert m.critical_energy_mev == pytest.approx(critical, rel=0.05)
    assert m.min_ionisation_mev_per_mm == pytest.approx(loss, rel=0.02)


@pytest.mark.parametrize("name", MATERIALS)
def test_compositions_are_complete(name: str) -> None:
    m = MATERIALS[name]
    assert sum(m.fractions.values()) == pytest.approx(1.0, abs=1e-5)
    assert set(m.fractions) <= set(ATOMIC_WEIGHTS)


def test_denser_means_shorter() -> None:
    lengths = [
        material(n).radiation_length_mm for n in ("G4_POLYSTYRENE", "G4_Fe", "G4_Pb", "G4_W")
    ]
    assert lengths == sorted(lengths, reverse=True)


def test_unknown_material_suggests_a_known_one() -> None:
    with pytest.raises(RequestError, match=r"G4_Tungsten.*known ones include G4_"):
        material("G4_Tungsten")
