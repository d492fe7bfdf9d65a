"""What a model is told of a detector: physics numbers instead of a one-hot index.

Effective quantities of a layered stack follow the usual mixing by thickness: with x_i the depth of
material i in radiation lengths per layer, 1/X0 = sum_i v_i/X0_i (v_i: fraction of thickness),
1/R_M = sum_i v_i/R_M_i, E_c = E_s X0/R_M, and the sampling fraction of a minimum-ionising particle
is the active material's share of its energy loss (Wigmans, Calorimetry, chapter 3; Grindhammer and
Peters, hep-ex/0001020, section 3). An unseen detector has a meaning on the first day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector, Stack
from caloforge.detector.materials import SCALE_ENERGY_MEV, Material, material

__all__ = ["DESCRIPTOR_NAMES", "Effective", "descriptors", "effective", "facts_of"]

DESCRIPTOR_NAMES: tuple[str, ...] = (
    "log_radiation_length_mm",
    "log_moliere_radius_mm",
    "log_critical_energy_mev",
    "log_density",
    "absorber_x0",
    "active_x0",
    "absorber_z",
    "active_z",
    "log_sampling_fraction",
    "cell_r_moliere",
    "cell_z_x0",
    "depth_x0",
    "log_inner_radius_mm",
    "cell_z_pitch",
    "log_active_loss_mev",
)


@dataclass(frozen=True)
class Effective:
    """A stack seen as one homogeneous material.

    `radiation_length_mm`, `moliere_radius_mm` in mm; `critical_energy_mev` in MeV; `density` in
    g/cm3; `sampling_fraction` of a minimum-ionising particle and `active_fraction` (share of the
    thickness that is active) without unit; `absorber_x0`, `active_x0`: thickness of one layer's
    parts in their own radiation lengths; `active_loss_mev`: loss of a minimum-ionising particle in
    one active layer in MeV.
    """

    radiation_length_mm: float
    moliere_radius_mm: float
    critical_energy_mev: float
    density: float
    sampling_fraction: float
    active_fraction: float
    absorber_x0: float
    active_x0: float
    absorber_z: float
    active_z: float
    active_loss_mev: float


def effective(stack: Stack) -> Effective:
    """Effective quantities of a stack (hep-ex/0001020, section 3.1); see `Effective` for units."""
    active = material(stack.active.material)
    absorber = material(stack.absorber.material) if stack.absorber else None
    d_active, pitch = stack.active.thickness_mm, stack.pitch_mm
    parts: list[tuple[Material, float]] = [(active, d_active)]
    if absorber is not None and stack.absorber is not None:
        parts.append((absorber, stack.absorber.thickness_mm))
    x0 = pitch / sum(d / m.radiation_length_mm for m, d in parts)
    moliere = pitch / sum(d / m.moliere_radius_mm for m, d in parts)
    loss = sum(d * m.min_ionisation_mev_per_mm for m, d in parts)
    active_loss = d_active * active.min_ionisation_mev_per_mm
    return Effective(
        radiation_length_mm=x0,
        moliere_radius_mm=moliere,
        critical_energy_mev=SCALE_ENERGY_MEV * x0 / moliere,
        density=sum(d * m.density for m, d in parts) / pitch,
        sampling_fraction=active_loss / loss,
        active_fraction=d_active / pitch,
        absorber_x0=sum(d / m.radiation_length_mm for m, d in parts[1:]),
        active_x0=d_active / active.radiation_length_mm,
        absorber_z=(absorber or active).effective_z,
        active_z=active.effective_z,
        active_loss_mev=active_loss,
    )


def descriptors(detector: Detector) -> NDArray[np.float32]:
    """Physics numbers (D,) of a detector, in the order of `DESCRIPTOR_NAMES`, without scaling.

    Raises `RequestError` for a GDML detector without a describing [stack].
    """
    stack, mesh = detector.described_stack(), detector.mesh
    eff = effective(stack)
    values = (
        np.log(eff.radiation_length_mm),
        np.log(eff.moliere_radius_mm),
        np.log(eff.critical_energy_mev),
        np.log(eff.density),
        eff.absorber_x0,
        eff.active_x0,
        eff.absorber_z / 82.0,
        eff.active_z / 82.0,
        np.log(eff.sampling_fraction),
        mesh.cell_r_mm / eff.moliere_radius_mm,
        mesh.cell_z_mm / eff.radiation_length_mm,
        stack.depth_mm / eff.radiation_length_mm / 25.0,
        np.log(stack.inner_radius_mm / 1000.0),
        mesh.cell_z_mm / stack.pitch_mm,
        np.log(eff.active_loss_mev),
    )
    return np.array(values, dtype=np.float32)


def facts_of(detector: Detector) -> dict[str, Any]:
    """Facts of a detector for a reader, as plain values with their units (mm, MeV) in the names."""
    mesh = {"mesh": "{} x {} x {} cells (r, phi, z)".format(*detector.mesh.shape)}
    if detector.stack is None:
        assert detector.gdml is not None
        return {"layers": f"GDML {detector.gdml.file}", **mesh}
    stack, eff = detector.stack, effective(detector.stack)
    shells = [s for s in (stack.absorber, stack.active) if s is not None]
    text = " + ".join(f"{s.thickness_mm:g} mm {s.material}" for s in shells)
    return {
        "layers": f"{stack.layers} x ({text}), inner radius {stack.inner_radius_mm:g} mm",
        **mesh,
        "radiation_length_mm": round(eff.radiation_length_mm, 3),
        "moliere_radius_mm": round(eff.moliere_radius_mm, 3),
        "critical_energy_mev": round(eff.critical_energy_mev, 3),
        "depth_x0": round(stack.depth_mm / eff.radiation_length_mm, 2),
        "mip_sampling_fraction": round(eff.sampling_fraction, 5),
    }
