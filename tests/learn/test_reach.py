"""Who lies in a model's range: each quantity alone, and the same law as for a whole request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from caloforge.learn.reach import outside
from caloforge.simulate.beam import Primaries


@dataclass(frozen=True)
class Range:
    energy_mev: tuple[float, float] = (1e3, 1e5)
    theta: tuple[float, float] = (0.9, 2.2)
    pdg: tuple[int, ...] = (-11, 11, 22)


def particles(energy: list[float], theta: list[float], pdg: list[int]) -> Primaries:
    n = len(energy)
    return Primaries(
        np.array(energy, np.float32), np.array(theta, np.float32), np.zeros(n, np.float32),
        np.array(pdg, np.int32), np.arange(n, dtype=np.uint64),
    )  # fmt: skip


def test_the_ends_are_inside_and_each_quantity_is_judged_alone() -> None:
    given = particles(
        [1e3, 1e5, 300.0, 2e5, 5e3, 5e3, 5e3], [0.9, 2.2, 1.5, 1.5, 0.5, 2.6, 1.5],
        [11, 22, 11, -11, 11, 22, 13],
    )  # fmt: skip
    found = {name: np.flatnonzero(mask).tolist() for name, mask in outside(Range(), given).items()}
    assert found == {"energy": [2, 3], "theta": [4, 5], "pdg": [6]}


@pytest.mark.parametrize("field", ["energy", "theta", "pdg"])
def test_a_request_is_refused_exactly_when_a_particle_is_outside(field, tiny_model, small_detector):
    from caloforge.errors import RequestError
    from caloforge.generate import check_range

    valid = tiny_model.valid
    good = dict(energy=valid.energy_mev[0], theta=1.5, pdg=valid.pdg[0])
    for value in {"energy": (5.0, 2e4), "theta": (0.2, 1.4), "pdg": (13, 11)}[field]:
        one = particles(*([v] for v in (good | {field: value}).values()))
        refused = any(mask[0] for mask in outside(valid, one).values())
        assert refused == (value in (5.0, 0.2, 13))
        if refused:
            with pytest.raises(RequestError, match="--extrapolate"):
                check_range(valid, small_detector, one)
        else:
            check_range(valid, small_detector, one)
