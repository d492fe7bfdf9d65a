"""Random calorimeters, so that a model learns what a detector is rather than which one it is.

A quarter is homogeneous, the rest samples. Absorbers are 0.25 to 1.3 radiation lengths thick, the
stack is 20 to 36 radiation lengths deep, cells measure 0.3 to 0.65 Moliere radii by 0.5 to 1.25
radiation lengths: around what is built, and wide enough to hold the named detectors (a collection
of real ones: Fabjan and Gianotti, doi:10.1103/RevModPhys.75.1243, table 1). Everything is
log-uniform and follows from (seed, number) alone.
"""

from __future__ import annotations

import numpy as np

from caloforge.detector.descriptors import effective
from caloforge.detector.detector import Detector, Layer, Stack
from caloforge.detector.materials import material
from caloforge.detector.mesh import Mesh

__all__ = ["random_detector"]

ABSORBERS = ("G4_W", "G4_Pb", "G4_Fe", "G4_Cu", "G4_BRASS")
ACTIVE_MM = {"G4_Si": (0.15, 0.8), "G4_POLYSTYRENE": (0.8, 6.0), "G4_lAr": (1.0, 6.0)}
CRYSTALS = ("G4_PbWO4", "G4_CESIUM_IODIDE", "G4_BGO", "G4_GLASS_LEAD")
HOMOGENEOUS = 0.25


def random_detector(seed: int, number: int, shape: tuple[int, int, int] = (9, 16, 45)) -> Detector:
    """Draw detector `number` of the family `seed`, in mm, with a mesh of `shape` cells."""
    rng = np.random.default_rng([seed, number])

    def between(low: float, high: float, digits: int = 3) -> float:
        value = np.exp(rng.uniform(np.log(low), np.log(high)))
        return float(f"{value:.{digits}g}")

    if rng.random() < HOMOGENEOUS:
        crystal = str(rng.choice(CRYSTALS))
        thickness = between(0.4, 1.2) * material(crystal).radiation_length_mm
        absorber, active = None, Layer(material=crystal, thickness_mm=round(thickness, 2))
    else:
        name, sensor = str(rng.choice(ABSORBERS)), str(rng.choice(list(ACTIVE_MM)))
        thickness = between(0.25, 1.3) * material(name).radiation_length_mm
        absorber = Layer(material=name, thickness_mm=round(thickness, 2))
        active = Layer(material=sensor, thickness_mm=round(between(*ACTIVE_MM[sensor]), 2))
    one = Stack(inner_radius_mm=between(500, 2500), layers=1, absorber=absorber, active=active)
    eff = effective(one)
    layers = max(1, round(between(20, 36) * eff.radiation_length_mm / one.pitch_mm))
    n_r, n_phi, n_z = shape
    return Detector(
        name=f"random-{seed}-{number:04d}",
        stack=one.model_copy(update={"layers": layers}),
        mesh=Mesh(
            n_r=n_r, n_phi=n_phi, n_z=n_z,
            cell_r_mm=round(between(0.3, 0.65) * eff.moliere_radius_mm, 2),
            cell_z_mm=round(between(0.5, 1.25) * eff.radiation_length_mm, 2),
        ),
    )  # fmt: skip
