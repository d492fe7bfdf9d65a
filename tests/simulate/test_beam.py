"""The beam: several particles share the events, and everything follows from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.simulate.beam import Beam


def test_several_particles_share_the_events_evenly() -> None:
    drawn = Beam("e-,e+,gamma").primaries(3, 0, 6000)
    counts = [int((drawn.pdg == code).sum()) for code in (11, -11, 22)]
    assert sum(counts) == 6000 and max(counts) - min(counts) < 250
    high = drawn.energy > np.median(drawn.energy)
    assert (
        abs(float(high[drawn.pdg == 22].mean()) - 0.5) < 0.05
    )  # the kind does not tell the energy


def test_the_other_numbers_do_not_depend_on_the_particles() -> None:
    one, several = Beam("e-").primaries(3, 5, 40), Beam("e-,gamma").primaries(3, 5, 40)
    assert np.array_equal(one.energy, several.energy) and np.array_equal(one.theta, several.theta)
    assert np.array_equal(several.pdg[5:], Beam("e-,gamma").primaries(3, 10, 35).pdg)


@pytest.mark.parametrize("names", ["", "e-,", "e-,k0", "e- , gamma"])
def test_an_unknown_particle_is_refused(names: str) -> None:
    with pytest.raises(RequestError, match="unknown particle"):
        Beam(names)
