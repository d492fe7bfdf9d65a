"""caloforge forges a fast simulation for a calorimeter.

A detector file goes in; real Geant4 showers are made, a transformer learns them, generates more of
them, and a report says how close they are to Geant4. Energies are in MeV, lengths in mm, angles in
rad. ``caloforge.load`` is the short way to a trained model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from caloforge.errors import RequestError, WorkError

if TYPE_CHECKING:
    from pathlib import Path

    from caloforge.generate import Generator

__all__ = ["RequestError", "WorkError", "__version__", "load"]

__version__ = "0.1.0"


def load(model: str | Path) -> Generator:
    """Open a trained model: a shipped one by its name or a checkpoint folder by its path.

    ``caloforge.load("base").generate(detector="par04-siw", energy=50_000, theta=1.57, n=100)``
    returns `Showers` with energies in MeV. Raises `RequestError` when there is no such model.
    """
    from caloforge.generate import Generator

    return Generator.load(model)
