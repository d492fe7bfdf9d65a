"""Materials and the numbers that rule an electromagnetic shower in them.

Densities, compositions by mass and mean excitation energies are those of the NIST materials as
tabulated in Geant4 (https://physics.nist.gov/PhysRefData/Star). Formulas, from the Review of
Particle Physics (PDG 2024, doi:10.1103/PhysRevD.110.030001), chapter 34:

- radiation length of an element, Tsai's formula (eq. 34.25-34.26), and Bragg's rule for mixtures;
- critical energy in Rossi's definition, 610 MeV/(Z + 1.24) for solids and liquids and
  710 MeV/(Z + 0.92) for gases (section 34.4.3);
- Moliere radius R_M = X0 E_s/E_c with E_s = 21.2 MeV, mixtures by eq. 34.38;
- energy loss of a minimum-ionising particle, Bethe's formula (eq. 34.5) with the density effect
  in the parametrisation of Sternheimer and Peierls (Phys. Rev. B 3 (1971) 3681).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from caloforge.errors import RequestError

__all__ = ["ATOMIC_WEIGHTS", "MATERIALS", "Material", "material"]

SCALE_ENERGY_MEV = 21.2052
ELECTRON_MASS_MEV = 0.51099895
MUON_MASS_MEV = 105.6583755
BETHE_K = 0.307075  # MeV cm2/mol
TSAI_UNIT = 716.408  # g/cm2, from 4 alpha r_e^2 N_A

# Standard atomic weights in g/mol (IUPAC) by atomic number.
ATOMIC_WEIGHTS: Mapping[int, float] = MappingProxyType(
    {
        1: 1.008, 2: 4.0026, 3: 6.94, 4: 9.0122, 5: 10.81, 6: 12.011, 7: 14.007, 8: 15.999,
        9: 18.998, 10: 20.180, 11: 22.990, 12: 24.305, 13: 26.982, 14: 28.085, 15: 30.974,
        16: 32.06, 17: 35.45, 18: 39.948, 19: 39.098, 20: 40.078, 22: 47.867, 24: 51.996,
        25: 54.938, 26: 55.845, 27: 58.933, 28: 58.693, 29: 63.546, 30: 65.38, 32: 72.630,
        33: 74.922, 34: 78.971, 35: 79.904, 36: 83.798, 39: 88.906, 40: 91.224, 41: 92.906,
        42: 95.95, 47: 107.87, 48: 112.41, 50: 118.71, 51: 121.76, 53: 126.90, 54: 131.29,
        55: 132.91, 56: 137.33, 57: 138.91, 58: 140.12, 59: 140.91, 60: 144.24, 64: 157.25,
        71: 174.97, 72: 178.49, 73: 180.95, 74: 183.84, 78: 195.08, 79: 196.97, 80: 200.59,
        81: 204.38, 82: 207.2, 83: 208.98, 92: 238.03,
    }
)  # fmt: skip

# Radiation logarithms for the light elements, where Thomas-Fermi fails (PDG table 34.2).
_LIGHT_LOGARITHMS = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}


@dataclass(frozen=True)
class Material:
    """A material: density in g/cm3, mass fractions by atomic number, mean excitation in eV."""

    name: str
    density: float
    fractions: Mapping[int, float]
    mean_excitation_ev: float

    @property
    def is_gas(self) -> bool:
        """Whether it is a gas (below 0.05 g/cm3)."""
        return self.density < 0.05

    @cached_property
    def radiation_length_mm(self) -> float:
        """Radiation length X0 in mm (PDG eq. 34.25-34.27)."""
        inverse = sum(w / _radiation_length(z) for z, w in self.fractions.items())
        return 10.0 / (inverse * self.density)

    @cached_property
    def critical_energy_mev(self) -> float:
        """Critical energy E_c in MeV (Rossi): E_s X0/R_M, which for one element is PDG's fit."""
        return SCALE_ENERGY_MEV * self.radiation_length_mm / self.moliere_radius_mm

    @cached_property
    def moliere_radius_mm(self) -> float:
        """Moliere radius R_M in mm (PDG eq. 34.37-34.38)."""
        inverse = sum(
            w * _critical_energy(z, self.is_gas) / _radiation_length(z)
            for z, w in self.fractions.items()
        )
        return 10.0 * SCALE_ENERGY_MEV / (inverse * self.density)

    @cached_property
    def min_ionisation_mev_per_mm(self) -> float:
        """Smallest mean energy loss of a muon in MeV/mm (Bethe, PDG eq. 34.5)."""
        beta_gamma = np.geomspace(2.0, 6.0, 60)
        return float(self._bethe(beta_gamma).min()) * self.density / 10.0

    @cached_property
    def effective_z(self) -> float:
        """Atomic number, averaged with mass fractions."""
        return sum(w * z for z, w in self.fractions.items())

    @cached_property
    def effective_a(self) -> float:
        """Atomic weight in g/mol, averaged with mass fractions."""
        return sum(w * ATOMIC_WEIGHTS[z] for z, w in self.fractions.items())

    @cached_property
    def z_over_a(self) -> float:
        """Electrons per nucleon, in mol/g."""
        return sum(w * z / ATOMIC_WEIGHTS[z] for z, w in self.fractions.items())

    def _bethe(self, beta_gamma: np.ndarray) -> np.ndarray:
        beta2 = beta_gamma**2 / (1 + beta_gamma**2)
        ratio = ELECTRON_MASS_MEV / MUON_MASS_MEV
        gamma = np.sqrt(1 + beta_gamma**2)
        t_max = 2 * ELECTRON_MASS_MEV * beta_gamma**2 / (1 + 2 * gamma * ratio + ratio**2)
        excitation = self.mean_excitation_ev * 1e-6
        logarithm = 0.5 * np.log(2 * ELECTRON_MASS_MEV * beta_gamma**2 * t_max / excitation**2)
        delta = self._density_effect(beta_gamma)
        loss: np.ndarray = BETHE_K * self.z_over_a / beta2 * (logarithm - beta2 - delta / 2)
        return loss

    def _density_effect(self, beta_gamma: np.ndarray) -> np.ndarray:
        """Sternheimer-Peierls general expression for condensed matter (and dilute gases)."""
        plasma_ev = 28.816 * np.sqrt(self.density * self.z_over_a)
        c = 2 * np.log(self.mean_excitation_ev / plasma_ev) + 1
        if self.is_gas:
            x0, x1 = max(0.326 * c - 1.5, 1.6), 4.0 if c < 12.25 else 5.0
        elif self.mean_excitation_ev < 100:
            x0, x1 = max(0.326 * c - 1.0, 0.2), 2.0
        else:
            x0, x1 = max(0.326 * c - 1.5, 0.2), 3.0
        x = np.log10(beta_gamma)
        slope = (c - 2 * np.log(10) * x0) / (x1 - x0) ** 3
        middle = 2 * np.log(10) * x - c + slope * np.clip(x1 - x, 0, None) ** 3
        return np.where(x < x0, 0.0, middle)


def _radiation_length(z: int) -> float:
    """X0 of an element in g/cm2, with the Coulomb correction of Davies, Bethe and Maximon."""
    a2 = (z / 137.035999) ** 2
    coulomb = a2 * (1 / (1 + a2) + 0.20206 - 0.0369 * a2 + 0.0083 * a2**2 - 0.002 * a2**3)
    elastic, inelastic = _LIGHT_LOGARITHMS.get(
        z, (np.log(184.15 * z ** (-1 / 3)), np.log(1194 * z ** (-2 / 3)))
    )
    return float(TSAI_UNIT * ATOMIC_WEIGHTS[z] / (z**2 * (elastic - coulomb) + z * inelastic))


def _critical_energy(z: int, gas: bool) -> float:
    """E_c of an element in MeV, PDG's fits to Rossi's definition."""
    return 710 / (z + 0.92) if gas else 610 / (z + 1.24)


def _by_atoms(**counts: float) -> dict[int, float]:
    """Mass fractions from a chemical formula."""
    numbers = {"H": 1, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Na": 11, "Al": 13, "Si": 14,
               "Ge": 32, "Y": 39, "I": 53, "Cs": 55, "Ba": 56, "Lu": 71, "W": 74, "Pb": 82,
               "Bi": 83}  # fmt: skip
    masses = {numbers[s]: n * ATOMIC_WEIGHTS[numbers[s]] for s, n in counts.items()}
    total = sum(masses.values())
    return {z: m / total for z, m in masses.items()}


_TABLE: tuple[tuple[str, float, dict[int, float], float], ...] = (
    ("G4_AIR", 0.00120479, {6: 0.000124, 7: 0.755267, 8: 0.231781, 18: 0.012827}, 85.7),
    ("G4_Be", 1.848, {4: 1.0}, 63.7),
    ("G4_C", 2.0, {6: 1.0}, 81.0),
    ("G4_Al", 2.699, {13: 1.0}, 166.0),
    ("G4_Si", 2.33, {14: 1.0}, 173.0),
    ("G4_Ti", 4.54, {22: 1.0}, 233.0),
    ("G4_Fe", 7.874, {26: 1.0}, 286.0),
    ("G4_Cu", 8.96, {29: 1.0}, 322.0),
    ("G4_Ge", 5.323, {32: 1.0}, 350.0),
    ("G4_Mo", 10.22, {42: 1.0}, 424.0),
    ("G4_Ta", 16.654, {73: 1.0}, 718.0),
    ("G4_W", 19.3, {74: 1.0}, 727.0),
    ("G4_Au", 19.32, {79: 1.0}, 790.0),
    ("G4_Pb", 11.35, {82: 1.0}, 823.0),
    ("G4_U", 18.95, {92: 1.0}, 890.0),
    ("G4_lAr", 1.396, {18: 1.0}, 188.0),
    ("G4_lKr", 2.418, {36: 1.0}, 352.0),
    ("G4_lXe", 2.953, {54: 1.0}, 482.0),
    ("G4_BRASS", 8.52, {29: 0.575, 30: 0.334, 82: 0.091}, 320.3),
    ("G4_STAINLESS-STEEL", 8.0, {26: 0.746213, 24: 0.169001, 28: 0.084786}, 282.9),
    ("G4_WATER", 1.0, _by_atoms(H=2, O=1), 78.0),
    ("G4_POLYSTYRENE", 1.06, _by_atoms(C=19, H=19), 68.7),
    ("G4_PLASTIC_SC_VINYLTOLUENE", 1.032, _by_atoms(C=9, H=10), 64.7),
    ("G4_POLYETHYLENE", 0.94, _by_atoms(C=1, H=2), 57.4),
    ("G4_PLEXIGLASS", 1.19, _by_atoms(C=5, H=8, O=2), 74.0),
    ("G4_PbWO4", 8.28, _by_atoms(Pb=1, W=1, O=4), 600.7),
    ("G4_CESIUM_IODIDE", 4.51, _by_atoms(Cs=1, I=1), 553.1),
    ("G4_SODIUM_IODIDE", 3.667, _by_atoms(Na=1, I=1), 452.0),
    ("G4_BGO", 7.13, _by_atoms(Bi=4, Ge=3, O=12), 534.1),
    ("G4_BARIUM_FLUORIDE", 4.89, _by_atoms(Ba=1, F=2), 375.9),
    ("G4_CERIUM_FLUORIDE", 6.16, {9: 0.289153, 58: 0.710847}, 348.4),
    (
        "G4_GLASS_LEAD",
        6.22,
        {8: 0.156453, 14: 0.080866, 22: 0.008092, 33: 0.002651, 82: 0.751938},
        526.4,
    ),
    ("G4_SILICON_DIOXIDE", 2.32, _by_atoms(Si=1, O=2), 139.2),
)

MATERIALS: Mapping[str, Material] = MappingProxyType(
    {name: Material(name, rho, MappingProxyType(w), i) for name, rho, w, i in _TABLE}
)


def material(name: str) -> Material:
    """Look up a material by its NIST name, such as ``G4_W``.

    Raises `RequestError` with the nearest known names if there is none.
    """
    found = MATERIALS.get(name)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name, MATERIALS, n=3, cutoff=0.4) or sorted(MATERIALS)
        raise RequestError(f"unknown material '{name}'; known ones include {', '.join(near)}")
    return found
