"""Which particles lie within the range that a model was trained in, one by one.

A request for showers as a whole is refused when one of them is outside (`generate.check_range`);
inside Geant4 the particles that are outside stay with Geant4. Both ask here. Needs no torch.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.simulate.beam import Primaries

__all__ = ["Reach", "outside"]

TOLERANCE = 1e-3  # Of the valid range, so that 1 GeV is 1 GeV in float32 too.


class Reach(Protocol):
    """A range of kinetic energy in MeV, of theta in rad, and PDG codes."""

    @property
    def energy_mev(self) -> tuple[float, float]:
        """Lowest and highest kinetic energy in MeV."""

    @property
    def theta(self) -> tuple[float, float]:
        """Smallest and largest polar angle in rad."""

    @property
    def pdg(self) -> tuple[int, ...]:
        """PDG codes."""


def outside(reach: Reach, primaries: Primaries) -> dict[str, NDArray[np.bool_]]:
    """Say of each primary whether it is outside a range, by ``energy``, ``theta`` or ``pdg`` (N,).

    Energies in MeV, theta in rad; the ends count as inside, with a tolerance of 0.1 %.
    """
    found = {
        name: (values < low * (1 - TOLERANCE)) | (values > high * (1 + TOLERANCE))
        for name, values, (low, high) in (
            ("energy", primaries.energy, reach.energy_mev),
            ("theta", primaries.theta, reach.theta),
        )
    }
    return {**found, "pdg": ~np.isin(primaries.pdg, reach.pdg)}
