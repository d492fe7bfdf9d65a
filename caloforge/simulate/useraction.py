"""Geant4's user classes: what its run manager calls for geometry, physics, primaries and events.

The names of methods are Geant4's. Everything handed to Geant4 is also kept here, because Geant4
does not own Python's objects. Imported by `geant4.Geant4Engine` once the data is activated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError, WorkError
from caloforge.simulate import geometry
from caloforge.simulate.beam import NAMES, Primaries
from caloforge.simulate.geant4 import CUT_MM, Guest
from caloforge.simulate.physics_data import PhysicsData, write_elements
from caloforge.simulate.scoring import LIGHT_Z, Scorer, voxelise

__all__ = ["Event", "Run", "start", "version"]


@dataclass(frozen=True)
class Event:
    """One simulated event: cells (K,), deposits (K,) and leakage in MeV, processor time in s."""

    cell: NDArray[np.int64]
    deposit: NDArray[np.float32]
    leakage: float
    seconds: float


class _Construction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    """Builds the geometry, then sees to the tables of the elements that it is made of."""

    def __init__(
        self, detector: Detector, data: PhysicsData, physics: str, guest: Guest | None
    ) -> None:
        super().__init__()
        self.detector, self.data, self.physics, self.guest = detector, data, physics, guest
        self.geometry: geometry.Geometry
        self.scorer: Scorer

    def Construct(self) -> Any:  # noqa: N802
        """Return the world volume."""
        self.geometry = geometry.build(self.detector)
        elements = [element.GetZasInt() for element in g4.G4Element.GetElementTable()]
        write_elements(self.data, elements)
        if self.guest is not None:
            self.guest.settle(self.geometry)
        return self.geometry.world

    def ConstructSDandField(self) -> None:  # noqa: N802
        """Make the active volumes sensitive."""
        light = all(_heaviest(logical) <= LIGHT_Z for logical in self.geometry.sensitive)
        self.scorer = Scorer(every_step=not (light and self.physics == "em0"))
        g4.G4SDManager.GetSDMpointer().AddNewDetector(self.scorer.detector)
        for logical in self.geometry.sensitive:
            self.SetSensitiveDetector(logical, self.scorer.detector)


def _heaviest(logical: Any) -> int:
    """Highest atomic number in the material of a logical volume."""
    return max(int(element.GetZasInt()) for element in logical.GetMaterial().GetElementVector())


class _Electromagnetic(g4.G4VModularPhysicsList):  # type: ignore[misc]
    """``G4EmStandardPhysics`` and ``G4DecayPhysics`` with cuts of 0.7 mm."""

    def __init__(self) -> None:
        super().__init__()
        self.SetVerboseLevel(0)
        self.SetDefaultCutValue(CUT_MM)
        self.parts = [g4.G4EmStandardPhysics(), g4.G4DecayPhysics()]
        for part in self.parts:
            self.RegisterPhysics(part)


class _Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
    """Seeds the event and shoots its primary from the origin."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.gun = g4.G4ParticleGun(1)
        self.gun.SetParticlePosition(g4.G4ThreeVector(0.0, 0.0, 0.0))

    def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
        """Start the next event."""
        run, i = self.run, len(self.run.events)
        primaries = run.primaries
        run.began = time.process_time()
        g4.HepRandom.setTheSeed(max(int(primaries.seed[i]) >> 1, 1))
        name = NAMES[int(primaries.pdg[i])]
        self.gun.SetParticleDefinition(g4.G4ParticleTable.GetParticleTable().FindParticle(name))
        axis = geometry.direction(float(primaries.theta[i]), float(primaries.phi[i]))
        self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*axis))
        self.gun.SetParticleEnergy(float(primaries.energy[i]))
        self.gun.GeneratePrimaryVertex(event)


class _EndOfEvent(g4.G4UserEventAction):  # type: ignore[misc]
    """Turns the steps of an event into a sparse shower."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def EndOfEventAction(self, event: Any) -> None:  # noqa: N802
        """Keep the event that has ended."""
        run, i = self.run, len(self.run.events)
        if event.IsAborted():
            raise WorkError(f"Geant4 gave up the event with seed {run.primaries.seed[i]}")
        run.events.append(run.score(i))
        run.on_event()


class _Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def Build(self) -> None:  # noqa: N802
        """Hand the actions to Geant4."""
        self.kept = [_Gun(self.run), _EndOfEvent(self.run)]
        for action in self.kept:
            self.SetUserAction(action)


class Run:
    """The state of Geant4 in this process: its manager, user classes and the events so far."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.primaries: Primaries
        self.on_event: Callable[[], None]
        self.events: list[Event] = []
        self.began = 0.0
        self.manager: Any = None
        self.construction: _Construction
        self.kept: list[Any] = []

    def shoot(self, primaries: Primaries, on_event: Callable[[], None]) -> list[Event]:
        """Simulate the primaries and return their events; see `geant4.Geant4Engine.run`."""
        self.primaries, self.on_event, self.events = primaries, on_event, []
        if len(primaries):
            self.manager.BeamOn(len(primaries))
        return self.events

    def score(self, i: int) -> Event:
        """Make event `i` of the steps scored since it began."""
        theta, phi = float(self.primaries.theta[i]), float(self.primaries.phi[i])
        cell, deposit, leakage = np.zeros(0, np.int64), np.zeros(0, np.float32), 0.0
        scorer = self.construction.scorer
        guest = self.construction.guest
        placed = guest.flush(self.primaries[i : i + 1]) if guest is not None else None
        if scorer.detector.isActive():
            if placed is not None:
                scorer.place(*placed)
            points, energies = scorer.take()
            moved = points - self.construction.geometry.entrance(theta, phi)
            cell, deposit, leakage = voxelise(moved, energies, self.detector.mesh, theta, phi)
        return Event(cell, deposit, leakage, time.process_time() - self.began)


def start(detector: Detector, physics: str, data: PhysicsData, guest: Guest | None = None) -> Run:
    """Initialise Geant4 for a detector; a guest takes part in its events.

    Raises `RequestError` when the geometry is not sound.
    """
    if g4.G4RunManager.GetRunManager() is not None:
        raise RequestError("Geant4 runs once per process: start another process for another run")
    manager = g4.G4RunManager()
    manager.SetVerboseLevel(0)
    run = Run(detector)
    run.manager, run.construction = manager, _Construction(detector, data, physics, guest)
    physics_list = _physics_list(physics)
    run.kept = [_Actions(run), physics_list]
    for part in (run.construction, physics_list, run.kept[0]):
        manager.SetUserInitialization(part)
    for command in ("/process/em/verbose 0", "/process/had/verbose 0"):
        g4.G4UImanager.GetUIpointer().ApplyCommand(command)
    manager.Initialize()
    return run


def version() -> str:
    """Return Geant4's version, such as ``11.4.1``."""
    number = int(g4.G4VERSION_NUMBER)
    return f"{number // 100}.{number // 10 % 10}.{number % 10}"


def _physics_list(physics: str) -> Any:
    if physics == "em0":
        return _Electromagnetic()
    return g4.G4PhysListFactory().GetReferencePhysList(physics)
