"""Real Geant4 in this process: geometry, physics, primaries and scoring for one detector.

Geant4 knows one run manager per process, so one process makes one `Geant4Engine`, once; many
processes make many showers (see `production`). The physics is ``G4EmStandardPhysics`` (option 0,
the electromagnetism of FTFP_BERT) with ``G4DecayPhysics`` (a pi0 decays), production cuts of
0.7 mm; the hadronic lists of `PHYSICS` are offered when Geant4's official data is there.

Events are independent of one another: ``HepRandom.setTheSeed(seed >> 1)`` is called at the start of
each, with the event's own 64-bit seed (Geant4 takes a signed long, and MixMax, its default engine,
is well seeded by any of them). The primary starts at the origin of the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError, WorkError
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import PDG, Primaries
from caloforge.simulate.physics_data import PhysicsData, activate, find_data, require_packages

__all__ = ["CUT_MM", "PHYSICS", "Geant4Engine", "Guest", "check_physics"]

CUT_MM = 0.7
# name -> what the provenance says of it
PHYSICS = {
    "em0": "G4EmStandardPhysics option 0 + G4DecayPhysics",
    "FTFP_BERT": "FTFP_BERT",
    "QGSP_BERT": "QGSP_BERT",
    "FTFP_BERT_HP": "FTFP_BERT_HP",
}


def check_physics(physics: str, data: PhysicsData) -> None:
    """Raise `RequestError` for an unknown physics list, or one whose data is not there."""
    if physics not in PHYSICS:
        raise RequestError(f"unknown physics list '{physics}'; known are {', '.join(PHYSICS)}")
    missing = [] if physics == "em0" else data.missing_for_hadrons
    if physics.endswith("_HP") and "G4NEUTRONHPDATA" not in data.official:
        missing = [*missing, "G4NEUTRONHPDATA"]
    if missing:
        raise RequestError(
            f"{physics} reads Geant4's official data ({', '.join(missing)} not found): install it "
            "(geant4.web.cern.ch, or 'geant4-config --install-datasets'), set GEANT4_DATA_DIR to "
            "the folder that holds the data sets, or use --physics em0"
        )


class Guest(Protocol):
    """Takes part in the event loop and does some of Geant4's work: a fast simulation."""

    def settle(self, geometry: Any) -> None:
        """Be told the volumes (`geometry.Geometry`), before Geant4 reads them."""

    def flush(self, primary: Primaries) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """End the event of one primary: give the deposits to be scored with Geant4's own.

        Points (M, 3) in mm and deposits (M,) in MeV.
        """


class Geant4Engine:
    """Geant4, initialised for one detector and one physics list; once per process.

    A `guest` takes part in its events. `info` describes it for the provenance. Raises
    `RequestError` when a package or data is missing or the geometry is not sound.
    """

    def __init__(
        self, detector: Detector, physics: str = "em0", guest: Guest | None = None
    ) -> None:
        require_packages("geant4_pybind")
        data = find_data()
        check_physics(physics, data)
        activate(data)
        from caloforge.simulate import useraction

        self.detector = detector
        self.run_state = useraction.start(detector, physics, data, guest)
        self.info: dict[str, Any] = {
            "geant4": useraction.version(),
            "physics": PHYSICS[physics],
            "cut_mm": CUT_MM,
            "data": data.source,
        }

    def score(self, active: bool) -> None:
        """Switch scoring on or off for the next events (off: Geant4 alone, for benchmarks)."""
        self.run_state.construction.scorer.detector.Activate(active)

    def run(
        self, primaries: Primaries, on_event: Callable[[], None] = lambda: None
    ) -> tuple[Showers, Mapping[str, NDArray[np.float64]]]:
        """Simulate the primaries; `on_event` is called after each.

        Returns their showers and a record of the events: ``seconds`` (N,), the processor time in s
        that each took, scoring included.
        Raises `RequestError` when a primary misses a GDML detector, `WorkError` when Geant4 gives
        an event up.
        """
        known = set(PDG.values())
        if not set(primaries.pdg.tolist()) <= known:
            raise RequestError(f"only particles with PDG codes {sorted(known)} can be simulated")
        events = self.run_state.shoot(primaries, on_event)
        if len(events) != len(primaries):
            raise WorkError(f"Geant4 stopped after {len(events)} of {len(primaries)} events")
        return _collect(primaries, events, self.detector, self.info)


def _collect(
    primaries: Primaries, events: list[Any], detector: Detector, info: dict[str, Any]
) -> tuple[Showers, Mapping[str, NDArray[np.float64]]]:
    counts = [len(event.cell) for event in events]
    showers = Showers(
        energy=primaries.energy, theta=primaries.theta, phi=primaries.phi, pdg=primaries.pdg,
        seed=primaries.seed, leakage=np.array([event.leakage for event in events]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        cell=np.concatenate([event.cell for event in events] or [np.zeros(0, np.int64)]),
        deposit=np.concatenate([event.deposit for event in events] or [np.zeros(0, np.float32)]),
        mesh=detector.mesh, detector=detector, provenance=info,
    )  # fmt: skip
    return showers, {"seconds": np.array([event.seconds for event in events], dtype=np.float64)}
