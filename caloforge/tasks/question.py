"""What is asked of a shower: its energy, its angle, its particle, or which bin of energy.

A question knows its target and how a target is spoken of. Values are regressed: the energy as its
logarithm, theta in rad. Classes are told apart: particles by their PDG codes, or bins of the true
energy, of which showers outside all bins are left out.

Phi cannot be asked. The mesh turns with the particle (docs/conventions.md) and the calorimeter is a
cylinder: a shower and the same shower at another azimuth have the same voxels, so nothing is left
that could be learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import NAMES, PDG

__all__ = ["OCTAVES", "QUESTIONS", "Question", "edges_of", "question_of"]

Array = NDArray[Any]

QUESTIONS: Mapping[str, str] = {
    "energy": "kinetic energy of the primary",
    "theta": "polar angle of the primary",
    "particle": "kind of the primary",
    "bins": "bin of the primary's energy",
}
OCTAVES = (12.5e3, 25e3, 50e3, 100e3)  # MeV; three energies, each twice the one before.


@dataclass(frozen=True)
class Question:
    """One question: its `name` (see `QUESTIONS`), and for classes what they are.

    `codes`: PDG codes of ``particle``; `edges_mev`: edges of ``bins`` in MeV.
    """

    name: str
    codes: tuple[int, ...] = ()
    edges_mev: tuple[float, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none if a value is asked for."""
        if self.name == "particle":
            return tuple(NAMES.get(code, str(code)) for code in self.codes)
        ends = [f"{edge / 1e3:g}" for edge in self.edges_mev]
        return tuple(f"{low}-{high} GeV" for low, high in zip(ends, ends[1:], strict=False))

    @property
    def outputs(self) -> int:
        """How many numbers answer it: one value, or one score for each class."""
        return len(self.classes) or 1

    def target(self, showers: Showers) -> Array:
        """Targets (N,): logarithm of the energy in MeV, theta in rad, or the number of the class.

        A shower of no class has -1.
        """
        if self.name == "energy":
            return np.asarray(np.log(showers.energy.astype(float)))
        if self.name == "theta":
            return showers.theta.astype(float)
        if self.name == "bins":
            place = np.searchsorted(self.edges_mev, showers.energy, side="right") - 1
            return np.where(place < self.outputs, place, -1)
        place = np.full(len(showers), -1)
        for number, code in enumerate(self.codes):
            place[showers.pdg == code] = number
        return place

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "codes": list(self.codes), "edges_mev": list(self.edges_mev)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Question:
        """Undo `to_dict`; energies in MeV."""
        return cls(values["name"], tuple(values["codes"]), tuple(values["edges_mev"]))


def question_of(
    name: str, showers: Showers, particles: str | None = None, edges: Sequence[float] | None = None
) -> Question:
    """Settle a question for labelled showers: which particles, which bins (edges in MeV).

    `particles`: names by commas; those of the showers by default. Raises `RequestError` for an
    unknown question, for phi, and for fewer than two classes.
    """
    if name == "phi":
        raise RequestError(
            "phi cannot be reconstructed: the mesh turns with the particle and the calorimeter is "
            "a full cylinder, so showers of every phi look the same; ask for theta"
        )
    if name not in QUESTIONS:
        raise RequestError(f"unknown task '{name}'; known are {', '.join(QUESTIONS)}")
    if name == "particle":
        return Question(name, codes=_codes(showers, particles))
    if name == "bins":
        return Question(name, edges_mev=_edges(edges or OCTAVES))
    if particles or edges:
        raise RequestError(f"--particles and --edges are not for '{name}'; leave them out")
    return Question(name)


def _codes(showers: Showers, particles: str | None) -> tuple[int, ...]:
    there = [code for code in PDG.values() if (showers.pdg == code).any()]
    if particles:
        names = [part.strip() for part in particles.split(",")]
        unknown = [n for n in names if n not in PDG or PDG[n] not in there]
        if unknown:
            raise RequestError(f"there are no showers of {', '.join(unknown)} in the files")
        there = [PDG[n] for n in names]
    if len(set(there)) < 2:
        raise RequestError("telling particles apart needs showers of at least two kinds")
    return tuple(there)


def _edges(edges: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(edge) for edge in edges)
    if len(values) < 3 or any(b <= a for a, b in zip(values, values[1:], strict=False)):
        raise RequestError("bins of energy need three or more edges in growing order")
    return values


def edges_of(text: str | None) -> tuple[float, ...] | None:
    """Edges in MeV from a text with GeV and commas; raises `RequestError` if it is none."""
    if text is None:
        return None
    try:
        return tuple(1e3 * float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"'{text}' are no edges of bins in GeV; write 12.5,25,50,100") from None
