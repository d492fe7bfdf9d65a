"""The contract of Geant4's example Par04: what it hands to a model, in which order and unit.

Read in the sources of ``examples/extended/parameterisations/Par04`` of Geant4 11.4
(``Par04InferenceSetup.cc``, ``Par04OnnxInference.cc``, ``Par04TorchInference.cc``). Energy is the
kinetic energy of the track, theta and phi the direction of its momentum in the world. The model
gives the cells of the mesh in C order of (r, phi, z), around that direction, from the place where
the track is stopped; the noise is drawn inside the model, because none is handed in.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from caloforge.detector.mesh import Mesh

__all__ = [
    "CONDITIONS", "MODEL_TYPE", "VAE_CONDITIONS", "VAE_ENERGY_MEV", "DiffusionInput", "VaeInput",
    "macro",
]  # fmt: skip

CONDITIONS = 8
MODEL_TYPE = "CaloDiT-2"  # /Par04/inference/setModelType for the eight numbers.
VAE_CONDITIONS = 4
VAE_ENERGY_MEV = 1_024_000.0


@dataclass(frozen=True)
class DiffusionInput:
    """The eight numbers of model type ``CaloDiT-2``.

    energy_gev: kinetic energy in GeV; phi (from -pi to pi) and theta in rad; then one-hot:
    the detectors of the original model, of which Par04 always names the first. The model's numbers
    are multiplied by 1,000: it gives GeV, and Par04 takes MeV from them.
    """

    energy_gev: float
    phi: float
    theta: float
    par04_siw: float = 1.0
    par04_scipb: float = 0.0
    odd: float = 0.0
    fccee_cld: float = 0.0
    other: float = 0.0

    def vector(self) -> list[float]:
        """Return the numbers in their order: (8,)."""
        return list(astuple(self))


@dataclass(frozen=True)
class VaeInput:
    """The numbers of model type ``VAE``: a latent vector (L,), then four conditions.

    energy_mev: kinetic energy in MeV, handed over as a share of 1,024 GeV; theta in rad, handed
    over in units of 90 degrees; then the one-hot of two detectors, of which Par04 always names the
    second. The model's numbers are multiplied by the kinetic energy.
    """

    latent: tuple[float, ...]
    energy_mev: float
    theta: float
    first: float = 0.0
    second: float = 1.0

    def vector(self) -> list[float]:
        """Return the numbers in their order: (L + 4,)."""
        energy, theta = self.energy_mev / VAE_ENERGY_MEV, math.degrees(self.theta) / 90
        return [*self.latent, energy, theta, self.first, self.second]


def macro(file: str, library: str, mesh: Mesh, layers: tuple[int, float], latent: int = 0) -> str:
    """The macro that runs `file` in Par04; `library` is ``ONNX``, ``TORCH`` or ``LWTNN``, lengths
    in mm.

    `layers` holds how many of the detector's layers there are and their pitch in mm; `latent` is
    the length of the latent vector of a model of type ``VAE``, 0 for the other type.
    """
    count, pitch = layers
    kind = f"/Par04/inference/setModelType {'VAE' if latent else MODEL_TYPE}"
    if latent:
        kind += f"\n/Par04/inference/setSizeLatentVector {latent}"
        kind += f"\n/Par04/inference/setSizeConditionVector {VAE_CONDITIONS}"
    return f"""\
# Runs {file} in Geant4's example Par04: examplePar04 -m THIS_FILE
# The geometry stays the one of the macro that you begin from; it must have {count} layers
# of {pitch:g} mm. Lines of /Par04/inference/ are taken after /run/initialize only.
/Par04/mesh/setSizeOfRhoCells {mesh.cell_r_mm:g} mm
/Par04/mesh/setSizeOfZCells {mesh.cell_z_mm:g} mm
/Par04/mesh/setNbOfRhoCells {mesh.n_r}
/Par04/mesh/setNbOfPhiCells {mesh.n_phi}
/Par04/mesh/setNbOfZCells {mesh.n_z}
/run/initialize
/gun/energy 10 GeV
/gun/position 0 0 0
/gun/direction 0 1 0
# What the session needs comes before the library, which opens it.
/Par04/inference/setModelPathName {file}
{kind}
/Par04/inference/setProfileFlag 0
/Par04/inference/setOptimizationFlag 1
/Par04/inference/setCudaFlag 0
/Par04/inference/setInferenceLibrary {library}
/Par04/inference/setSizeOfRhoCells {mesh.cell_r_mm:g} mm
/Par04/inference/setSizeOfZCells {mesh.cell_z_mm:g} mm
/Par04/inference/setNbOfRhoCells {mesh.n_r}
/Par04/inference/setNbOfPhiCells {mesh.n_phi}
/Par04/inference/setNbOfZCells {mesh.n_z}
/analysis/setFileName fastsim.root
/param/ActivateModel defineMesh
/param/ActivateModel inferenceModel
/run/beamOn 100
"""
