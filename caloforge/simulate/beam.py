"""The incoming particles: which, how fast, and where to, event by event.

Every event has a seed of its own, a hash of the run's seed and the event's number (SplitMix64,
Steele, Lea and Flood, doi:10.1145/2660193.2660195). Its primary, its simulated shower or its
generated one depend on nothing else, so files do not depend on workers or batches, and simulation
and model see the same primaries for the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.showers.showers import Showers

__all__ = ["NAMES", "PDG", "Beam", "Primaries", "beam_of", "event_seeds"]

PDG: Mapping[str, int] = MappingProxyType(
    {"e-": 11, "e+": -11, "gamma": 22, "mu-": 13, "mu+": -13, "pi0": 111}
)
NAMES: Mapping[int, str] = MappingProxyType({code: name for name, code in PDG.items()})
Range = tuple[float, float]
HIGHEST_MEV = 1e8  # 100 TeV, where Geant4's electromagnetic models end


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def event_seeds(seed: int, start: int, n: int) -> NDArray[np.uint64]:
    """Seeds (n,) of the events start, start + 1, ... of the run with this seed."""
    number = np.arange(start + 1, start + n + 1, dtype=np.uint64)
    origin = _mix(np.array([seed], dtype=np.uint64) + np.uint64(0x632BE59BD9B4E019))
    return _mix(origin + number * np.uint64(0x9E3779B97F4A7C15))


@dataclass(frozen=True)
class Primaries:
    """N primaries: energy (N,) in MeV, theta, phi (N,) in rad, pdg (N,), seed (N,) of the event."""

    energy: NDArray[np.float32]
    theta: NDArray[np.float32]
    phi: NDArray[np.float32]
    pdg: NDArray[np.int32]
    seed: NDArray[np.uint64]

    def __len__(self) -> int:
        """Return the number of primaries."""
        return len(self.energy)

    def __getitem__(self, chosen: slice) -> Primaries:
        """Return some of them."""
        return Primaries(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @classmethod
    def like(cls, showers: Showers, seed: int) -> Primaries:
        """Primaries with the conditions of given showers and fresh seeds."""
        fresh = event_seeds(seed, 0, len(showers))
        return cls(showers.energy, showers.theta, showers.phi, showers.pdg, fresh)


@dataclass(frozen=True)
class Beam:
    """What is shot: a particle by name, and ranges of energy (MeV), theta and phi (rad).

    Several particles, by commas, share the events evenly and at random. Energy is log-uniform, the
    angles are uniform; a range of two equal ends is one value. Raises `RequestError` for an unknown
    particle and for ranges that are upside down or not physical.
    """

    particle: str = "e-"
    energy: Range = (1e3, 1e5)
    theta: Range = (0.87, 2.27)
    phi: Range = (0.0, 2 * np.pi)

    def __post_init__(self) -> None:
        """Refuse what cannot be shot."""
        for name in self.particle.split(","):
            if name not in PDG:
                raise RequestError(f"unknown particle '{name}'; known are {', '.join(PDG)}")
        named = (("energy", self.energy, 1e3, "GeV"), ("theta", self.theta, 1.0, "rad"),
                 ("phi", self.phi, 1.0, "rad"))  # fmt: skip
        for name, ends, scale, unit in named:
            low, high = (end / scale for end in ends)
            if not (np.isfinite(low) and np.isfinite(high)):
                raise RequestError(f"the range of {name} must be finite numbers")
            if low > high:
                raise RequestError(
                    f"the range of {name} is upside down: {low:g} is above {high:g} {unit}"
                )
        if self.energy[0] <= 0:
            raise RequestError(f"the energy must be above 0, not {self.energy[0] / 1e3:g} GeV")
        if self.energy[1] > HIGHEST_MEV:
            raise RequestError(f"the energy must be at most {HIGHEST_MEV / 1e3:g} GeV")
        if not (self.theta[0] > 0 and self.theta[1] < np.pi):
            raise RequestError("theta must lie between 0 and pi rad, the ends left out")

    def primaries(self, seed: int, start: int, n: int) -> Primaries:
        """Primaries of the events start to start + n of a run; each from its own seed."""
        seeds = event_seeds(seed, start, n)
        # Four uniform numbers in [0, 1) per event, from streams apart from the showers' own.
        salt = np.array([1, 2, 3, 4], dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
        u = (_mix(seeds[:, None] ^ salt) >> np.uint64(11)).astype(np.float64) / 2.0**53
        (e0, e1), (t0, t1), (p0, p1) = self.energy, self.theta, self.phi
        codes = np.array([PDG[name] for name in self.particle.split(",")], np.int32)
        return Primaries(
            energy=(e0 * (e1 / e0) ** u[:, 0]).astype(np.float32),
            theta=(t0 + (t1 - t0) * u[:, 1]).astype(np.float32),
            phi=(p0 + (p1 - p0) * u[:, 2]).astype(np.float32),
            pdg=codes[(u[:, 3] * len(codes)).astype(int)],
            seed=seeds,
        )


def beam_of(particle: str, energy: str, theta: str, phi: str) -> Beam:
    """Beam from texts as typed: energy in GeV, angles in rad, each ``50`` or a range ``1:100``.

    Raises `RequestError` for a text that is neither, and as `Beam`.
    """
    low, high = _range(energy, "--energy")
    return Beam(particle, (low * 1e3, high * 1e3), _range(theta, "--theta"), _range(phi, "--phi"))


def _range(text: str, name: str) -> tuple[float, float]:
    ends = text.split(":")
    try:
        values = [float(end) for end in ends]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise RequestError(f"{name} '{text}' is neither a number nor a range low:high")
    return values[0], values[-1]
