"""The books: they close, and a particle that is lost is not let through."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.deploy.books import FATES, Books, balanced, read
from caloforge.errors import WorkError


def test_events_are_kept_apart_and_close() -> None:
    books = Books()
    for energies in ([5e3, 300.0], [2e3]):
        for energy in energies:
            books.enter(energy)
            books.decide("taken" if energy > 1e3 else "energy", energy)
        books.close()
    found = books.take()
    assert found["entered"].tolist() == [2, 1] and found["taken_mev"].tolist() == [5e3, 2e3]
    assert found["energy_mev"].tolist() == [300, 0]
    assert balanced({name: values.sum() for name, values in found.items()})
    assert all(len(values) == 0 for values in books.take().values())


@pytest.mark.parametrize("fates", [[], ["taken", "taken"], ["missed"]])
def test_a_particle_lost_or_counted_twice_is_an_error(fates: list[str]) -> None:
    books = Books()
    books.enter(1e3)
    for fate in fates:
        books.decide(fate, 1e3)
    with pytest.raises(WorkError, match="do not close"):
        books.close()


def test_energy_must_close_too() -> None:
    books = Books()
    books.enter(1e3)
    books.decide("taken", 999.0)
    with pytest.raises(WorkError, match="do not close"):
        books.close()


def test_what_is_read_names_every_fate_that_occurred() -> None:
    books = Books()
    for number, fate in enumerate(FATES):
        for _ in range(number + 1):
            books.enter(1e3)
            books.decide(fate, 1e3)
    books.place(50.0, 5.0, 40.0)
    books.close()
    text = "\n".join(read({name: float(np.sum(v)) for name, v in books.take().items()}))
    assert all(f"{what}: {number + 1} part" in text for number, what in enumerate(FATES.values()))
    assert "10.00 % outside" in text and "80.00 % at points in active" in text
