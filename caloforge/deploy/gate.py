"""The gate of the calorimeter: who is stopped there, and what is put behind it.

Every particle that crosses into the calorimeter is judged at the boundary (`Gate.enter`). Those
in the model's range, electrons, positrons and photons, are collected and stopped; at the end of the
event the model makes all their showers in one batch (`Gate.flush`) and their energies are placed as
deposits among those of the full simulation, in global coordinates. Everybody else stays with
Geant4:

- *species*, *energy*, *theta*: outside the range of the model (`caloforge.learn.reach`);
- *entrance*: the model knows showers of particles that come from the beam axis and cross the inner
  surface, whatever their z (the barrel is the same all along); a particle whose line misses the
  axis by more than `AXIS_MM`, or that enters elsewhere, is another matter;
- *returned*: it began in the calorimeter or had been there before, so its energy is in the books
  already: backscatter of showers that Geant4 makes.

Each shower has its own mesh, along the direction of its particle and from where it entered. Its
seed follows from the event's and its place in the event. Nothing here knows Geant4's classes; the
hook is in `crossings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.deploy.books import Books
from caloforge.deploy.placing import points_of
from caloforge.detector.detector import Detector
from caloforge.learn.reach import Reach, outside
from caloforge.simulate.beam import Primaries, event_seeds

if TYPE_CHECKING:
    from caloforge.deploy.maker import ShowerMaker

__all__ = ["SURFACE_MM", "Gate", "Limits", "Particle"]

Floats = NDArray[np.float64]

AXIS_MM = 1.0
SURFACE_MM = 1e-3  # what counts as on the inner surface


@dataclass(frozen=True)
class Limits:
    """The range of a model, or a part of it: energy in MeV, theta in rad, PDG codes."""

    energy_mev: tuple[float, float]
    theta: tuple[float, float]
    pdg: tuple[int, ...]

    @classmethod
    def of(cls, valid: Reach, above_mev: float = 0.0) -> Limits:
        """Limits of a model, from `above_mev` (MeV) on where its own begin below."""
        low, high = valid.energy_mev
        return cls((max(low, above_mev), high), valid.theta, valid.pdg)


@dataclass(frozen=True, eq=False)
class Particle:
    """A particle at the boundary: kinetic energy in MeV, position (3,) in mm, direction (3,).

    `track`: its number in the event; `born_inside`: whether it began in the calorimeter.
    """

    pdg: int
    energy: float
    position: Floats
    direction: Floats
    track: int = 1
    born_inside: bool = False

    @property
    def theta(self) -> float:
        """Polar angle of the direction in rad."""
        x, y, z = self.direction
        return float(np.arctan2(np.hypot(x, y), z))

    @property
    def phi(self) -> float:
        """Azimuth of the direction in rad, from 0 to 2 pi."""
        return float(np.arctan2(self.direction[1], self.direction[0]) % (2 * np.pi))


class Gate:
    """Judges, collects, and gives showers back: a `caloforge.simulate.geant4.Guest`.

    Raises `RequestError` for a detector without a stack.
    """

    def __init__(self, detector: Detector, maker: ShowerMaker, above_mev: float = 0.0) -> None:
        self.detector, self.maker = detector, maker
        self.limits = Limits.of(maker.valid, above_mev)
        self.radius = detector.described_stack().inner_radius_mm
        self.books = Books()
        self._geometry: Any = None
        self._hook: Any = None
        self._waiting: list[Particle] = []
        self._inside: set[int] = set()  # tracks that are, or have been, in the calorimeter

    def settle(self, geometry: Any) -> None:
        """Take the post at the calorimeter's boundary."""
        from caloforge.deploy.crossings import Crossings

        self._geometry, self._hook = geometry, Crossings(geometry.world, self)

    def enter(self, particle: Particle) -> bool:
        """Judge a particle that enters; whether it is to be stopped here."""
        self.books.enter(particle.energy)
        fate = self.fate(particle)
        self.books.decide(fate, particle.energy)
        self._inside.add(particle.track)
        if fate == "taken":
            self._waiting.append(particle)
        return fate == "taken"

    def leave(self, particle: Particle) -> None:
        """Count a particle that leaves the world, if it has never entered."""
        if not self._returned(particle):
            self.books.decide("missed", particle.energy)

    def _returned(self, particle: Particle) -> bool:
        return particle.born_inside or particle.track in self._inside

    def fate(self, particle: Particle) -> str:
        """Decide what becomes of a particle; one of `books.FATES`."""
        if self._returned(particle):
            return "returned"
        beyond = outside(self.limits, _primaries([particle]))
        for quantity, fate in (("pdg", "species"), ("energy", "energy"), ("theta", "theta")):
            if beyond[quantity][0]:
                return fate
        return "taken" if self._through_the_front(particle) else "entrance"

    def _through_the_front(self, particle: Particle) -> bool:
        (x, y, _), (dx, dy, _) = particle.position, particle.direction
        across = np.hypot(dx, dy)
        outward = x * dx + y * dy > 0
        off_axis = abs(x * dy - y * dx) > AXIS_MM * across
        return bool(outward and not off_axis and abs(np.hypot(x, y) - self.radius) < SURFACE_MM)

    def flush(self, primary: Primaries) -> tuple[Floats, Floats]:
        """Make the showers of an event's particles: points (M, 3) in mm, deposits (M,) in MeV."""
        waiting, self._waiting = self._waiting, []
        points, deposits = np.zeros((0, 3)), np.zeros(0)
        if waiting:
            points, deposits, active = self._make(waiting, int(primary.seed[0]))
            outside_mesh = self._outside(points, primary)
            sums = (float(deposits[chosen].sum()) for chosen in (outside_mesh, active))
            self.books.place(float(deposits.sum()), *sums)
        self.books.close()
        self._inside.clear()
        return points, deposits

    def _make(self, waiting: list[Particle], seed: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Make showers in one batch, each placed in its own mesh."""
        showers = self.maker.make(self.detector, _primaries(waiting, seed))
        points, active = [], []
        for i, particle in enumerate(waiting):
            cell = showers.cell[showers.offsets[i] : showers.offsets[i + 1]]
            moved, inside = points_of(cell, self.detector, particle.theta, particle.phi)
            points.append(particle.position + moved)
            active.append(inside)
        return np.concatenate(points), showers.deposit.astype(np.float64), np.concatenate(active)

    def _outside(self, points: Floats, primary: Primaries) -> NDArray[np.bool_]:
        theta, phi = float(primary.theta[0]), float(primary.phi[0])
        moved = points - self._geometry.entrance(theta, phi)
        return self.detector.mesh.cells_of(moved, theta, phi) < 0


def _primaries(particles: list[Particle], seed: int = 0) -> Primaries:
    """Particles as a request to a model, each with a seed of its own."""
    return Primaries(
        energy=np.array([p.energy for p in particles], np.float32),
        theta=np.array([p.theta for p in particles], np.float32),
        phi=np.array([p.phi for p in particles], np.float32),
        pdg=np.array([p.pdg for p in particles], np.int32),
        seed=event_seeds(seed, 0, len(particles)),
    )
