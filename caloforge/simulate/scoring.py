"""From Geant4's steps to a sparse shower.

Each step in sensitive material counts its total energy deposit (MeV) at the post-step point, as in
Geant4's Par04 example. Python code is called for the steps, which costs more than Geant4 itself
needs for one, so it is called for as few as can be:

- Most steps in a sampling calorimeter are photons that only pass a thin layer. A photon deposits
  energy itself only where it is absorbed by an atom (the binding energy of the electron; Compton
  and pair electrons carry all of it on), and light atoms hardly absorb photons above some hundred
  keV. In layers of elements up to Z = `LIGHT_Z` photons above `HARD_PHOTON_MEV` are therefore
  passed over, by a filter inside Geant4. In 0.3 mm of silicon this leaves out less than one
  millionth of the visible energy (in 6 showers of 10 GeV: nothing). In heavier material, and with
  hadronic physics, every step is looked at.
- Of a step that is looked at, point and deposit are kept as they come, as raw bytes where they can
  be read in memory (see `livestep`), and become arrays once per event.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.detector.mesh import Mesh
from caloforge.simulate.livestep import live_views

__all__ = ["HARD_PHOTON_MEV", "LIGHT_Z", "Scorer", "voxelise"]

Floats = NDArray[np.float64]

HARD_PHOTON_MEV = 0.5
LIGHT_Z = 20


class _Steps(g4.G4VPrimitiveScorer):  # type: ignore[misc]
    """Hands the steps that pass `chosen`, one of Geant4's filters, to a scorer."""

    def __init__(self, name: str, scorer: Scorer, chosen: Any) -> None:
        super().__init__(name, 0)
        self.scorer, self.chosen = scorer, chosen
        if chosen is not None:
            self.SetFilter(chosen)

    def ProcessHits(self, step: Any, _: Any) -> bool:  # noqa: N802
        """Keep one step; called by Geant4."""
        return self.scorer.keep(step)


class Scorer:
    """Collects post-step points (mm) and deposits (MeV) until `take` is called.

    `detector` is what Geant4 calls: attach it to the sensitive volumes. With `every_step` no step
    is passed over. With `direct` steps are read in memory where that is known to be sound; what is
    collected does not depend on it.
    """

    def __init__(self, *, every_step: bool, direct: bool = True) -> None:
        self._points: list[bytes] = []
        self._deposits: list[float] = []
        self._direct = direct
        self.detector = g4.G4MultiFunctionalDetector("caloforge")
        self._parts = [_Steps(f"steps{i}", self, f) for i, f in enumerate(_filters(every_step))]
        for part in self._parts:
            self.detector.RegisterPrimitive(part)

    def keep(self, step: Any) -> bool:
        """Keep one step if it deposits energy, asking the binding."""
        deposit = step.GetTotalEnergyDeposit()
        if deposit:
            point = step.GetPostStepPoint().GetPosition()
            self._points.append(struct.pack("3d", point.x, point.y, point.z))
            self._deposits.append(deposit)
            if self._direct:
                self._read_directly(step)
        return True

    def _read_directly(self, step: Any) -> None:
        """From now on read steps in memory, if that is possible."""
        self._direct = False
        views = live_views(step)
        if views is None:
            return
        (deposit, point), known = views, step
        keep_point, keep_deposit = self._points.append, self._deposits.append

        def process_hits(step: Any, _: Any) -> bool:
            if step is not known:  # the binding gives the same object for the same address
                return self.keep(step)
            if deposit[0]:
                keep_point(bytes(point))
                keep_deposit(deposit[0])
            return True

        for part in self._parts:
            part.ProcessHits = process_hits  # type: ignore[method-assign]

    def place(self, points: Floats, deposits: Floats) -> None:
        """Add deposits (M,) in MeV at points (M, 3) in mm, as if steps had ended there."""
        self._points.append(np.ascontiguousarray(points, dtype=np.float64).tobytes())
        self._deposits.extend(deposits.tolist())

    def take(self) -> tuple[Floats, Floats]:
        """Return points (M, 3) in mm and deposits (M,) in MeV since the last call."""
        points = np.frombuffer(b"".join(self._points), dtype=np.float64).reshape(-1, 3)
        deposits = np.array(self._deposits, dtype=np.float64)
        self._points.clear()
        self._deposits.clear()
        return points, deposits


def _filters(every_step: bool) -> Iterable[Any]:
    """Filters of Geant4 that together pass the steps to be looked at, each step once."""
    if every_step:
        return [None]
    soft = g4.G4SDParticleWithEnergyFilter("soft photons", 0.0, HARD_PHOTON_MEV)
    soft.add("gamma")
    return [g4.G4SDChargedFilter("charged"), soft]


def voxelise(
    displacement: Floats, deposits: Floats, mesh: Mesh, theta: float, phi: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
    """Add up deposits (M,) in MeV at displacements (M, 3) in mm from the entrance, by cell.

    `theta`, `phi` in rad turn the mesh. Returns the cells (K,), in rising order, their
    energies (K,) in MeV, and the energy outside the mesh in MeV.
    """
    flat = mesh.cells_of(displacement, theta, phi)
    inside = flat >= 0
    cells, where = np.unique(flat[inside], return_inverse=True)
    sums = np.bincount(where, weights=deposits[inside], minlength=len(cells)).astype(np.float32)
    filled = sums > 0
    return cells[filled], sums[filled], float(deposits[~inside].sum())
