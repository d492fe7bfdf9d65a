"""What a model is told before it draws a shower: the primary and the detector, in numbers.

A condition has three parts. *Features*: log energy, log of energy over critical energy (which sets
the depth of a shower), polar angle, particle type and the geometry descriptors. *Maps*: how much
active material each cell holds at this angle (`caloforge.detector.active`). *Pitch*: the size of a
cell in Moliere radii and radiation lengths, for positions that mean the same in every detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from caloforge.detector.active import active_maps
from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors
from caloforge.detector.detector import Detector

__all__ = ["FEATURE_NAMES", "PARTICLES", "PITCH", "Conditions", "conditions"]

PARTICLES: tuple[int, ...] = (11, -11, 22)
FEATURE_NAMES: tuple[str, ...] = (
    "log_energy", "log_energy_over_critical", "cos_theta", "sin_theta",
    *(f"pdg_{code}" for code in PARTICLES), *DESCRIPTOR_NAMES,
)  # fmt: skip
# Of a table of descriptors (B, D), the columns that are the pitch of `Conditions`.
PITCH: list[int] = [DESCRIPTOR_NAMES.index(name) for name in ("cell_r_moliere", "cell_z_x0")]


class Conditions(NamedTuple):
    """Conditions of B showers, as tensors.

    features (B, F): see `FEATURE_NAMES`, not scaled; maps (B, 2, R, PHI, Z): active material,
    average one; pitch (B, 2): cell size in Moliere radii and in radiation lengths;
    energy (B,): incident energy in MeV.
    """

    features: Tensor
    maps: Tensor
    pitch: Tensor
    energy: Tensor

    @property
    def showers(self) -> int:
        """Number of showers B."""
        return len(self.energy)

    def at(self, rows: Tensor | slice) -> Conditions:
        """Return those of some showers: indices (M,), truth values (B,), or a slice."""
        return Conditions(*(part[rows] for part in self))

    def to(self, device: torch.device) -> Conditions:
        """Return the same on another device."""
        return Conditions(*(tensor.to(device, non_blocking=True) for tensor in self))


def conditions(
    detectors: Sequence[Detector],
    number: NDArray[np.int64],
    energy: ArrayLike,
    theta: ArrayLike,
    pdg: ArrayLike,
) -> Conditions:
    """Conditions of B showers: `number` (B,) chooses among `detectors`; energy (B,) in MeV,
    theta (B,) in rad, pdg (B,) PDG codes.

    Raises `RequestError` for a detector that has no describing stack.
    """
    energy = np.array(energy, dtype=np.float32)  # a copy: broadcast arrays are read-only
    theta = np.asarray(theta, dtype=np.float32)
    table = np.stack([descriptors(detector) for detector in detectors])[number]
    features = np.concatenate([_primary(energy, theta, np.asarray(pdg), table), table], axis=1)
    maps = np.empty((len(number), 2, *detectors[0].mesh.shape), np.float32)
    for which in np.unique(number):
        rows = number == which
        detector = detectors[which]
        maps[rows] = active_maps(detector.described_stack(), detector.mesh, theta[rows])
    return Conditions(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (
        features, maps, table[:, PITCH], energy)))  # fmt: skip


def _primary(
    energy: NDArray[np.float32], theta: NDArray[np.float32], pdg: NDArray[np.int32],
    table: NDArray[np.float32],
) -> NDArray[np.float32]:  # fmt: skip
    critical = table[:, DESCRIPTOR_NAMES.index("log_critical_energy_mev")]
    columns = [np.log(energy / 1e3), np.log(energy) - critical, np.cos(theta), np.sin(theta)]
    columns += [(pdg == code).astype(np.float32) for code in PARTICLES]
    return np.stack(columns, axis=1).astype(np.float32)
