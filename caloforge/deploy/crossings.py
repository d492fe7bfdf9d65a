"""Geant4's user classes of the fast simulation: the hook at the calorimeter's boundary.

Geant4's own mechanism is a ``G4VFastSimulationModel`` on an envelope region: a process of the
electromagnetic particles asks it at every step in the region (``ModelTrigger``), ``DoIt`` kills the
track, and ``Flush`` is called when the stacks are empty (Agostinelli et al.,
doi:10.1016/S0168-9002(03)01368-8; example Par04). geant4-pybind 0.1.3 wraps the physics that adds
the process (``G4FastSimulationPhysics``) but none of ``G4VFastSimulationModel``, ``G4FastTrack``,
``G4FastStep`` and ``G4FastSimHitMaker``, so no model can be written in Python. What comes closest,
with the same effect, is a *regional stepping action*:

- the calorimeter is a region of its own with the production cuts of the world, so that no step of
  the full simulation changes (tested, bit for bit);
- the space before it keeps the world's region, whose stepping action Geant4 calls for steps that
  begin there and for no others: a few per event, where a user's stepping or stacking action would
  be called for every step or track of a full shower, and cost more than Geant4 itself;
- a step that ends at the boundary shows the particle as it enters, before any step inside. It is
  stopped there by ``SetTrackStatus``: nothing is deposited, nothing is left on the stack.

The flush is done at the end of the event, before its steps are turned into a shower; Geant4 itself
flushes a moment earlier, when the last track has ended. Lengths in mm, energies in MeV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.deploy.gate import SURFACE_MM, Particle

if TYPE_CHECKING:
    from caloforge.deploy.gate import Gate

__all__ = ["Crossings"]


class _BeforeTheCalorimeter(g4.G4UserSteppingAction):  # type: ignore[misc]
    """Called for every step that begins outside the calorimeter."""

    def __init__(self, radius: float, gate: Gate) -> None:
        super().__init__()
        self.radius, self.gate = radius, gate

    def UserSteppingAction(self, step: Any) -> None:  # noqa: N802
        """Show the gate a particle that enters the calorimeter, and stop it if told so."""
        point = step.GetPostStepPoint()
        status = point.GetStepStatus()
        if status not in (g4.fGeomBoundary, g4.fWorldBoundary):
            return
        track = step.GetTrack()
        particle = Particle(
            pdg=track.GetDefinition().GetPDGEncoding(), energy=track.GetKineticEnergy(),
            position=_array(point.GetPosition()), direction=_array(point.GetMomentumDirection()),
            track=track.GetTrackID(),
            born_inside=track.GetVertexPosition().perp() > self.radius - SURFACE_MM,
        )  # fmt: skip
        if status == g4.fWorldBoundary:
            self.gate.leave(particle)
        elif self.gate.enter(particle):
            track.SetTrackStatus(g4.fStopAndKill)


class Crossings:
    """Makes the calorimeter a region and stands at its boundary for a gate.

    To be made when the volumes are built and not yet closed; `world` is the placed world.
    """

    def __init__(self, world: Any, gate: Gate) -> None:
        self.region = g4.G4Region("calorimeter")
        outer = world.GetLogicalVolume()
        for number in range(outer.GetNoDaughters()):
            self.region.AddRootLogicalVolume(outer.GetDaughter(number).GetLogicalVolume())
        self.action = _BeforeTheCalorimeter(gate.radius, gate)
        everywhere_else = g4.G4RegionStore.GetInstance().GetRegion("DefaultRegionForTheWorld")
        everywhere_else.SetRegionalSteppingAction(self.action)


def _array(vector: Any) -> NDArray[np.float64]:
    return np.array([vector.x, vector.y, vector.z])
