import numpy as np
import pytest

from caloforge.evaluate.cells import in_cells, worst_by_observable
from caloforge.evaluate.observables import measure
from caloforge.evaluate.samples import choose
from caloforge.evaluate.trust import chart


@pytest.fixture(scope="module")
def compared(toy, reference):
    """Showers that are too bright at high energy only, in the ranges of their map of trust."""
    showers = toy(800, 2)
    bright = np.where(showers.energy > 3e4, 1.15, 1.0).astype(np.float32)
    other = measure(showers.with_(deposit=showers.deposit * bright[showers.rows]))
    trust = chart(choose(reference, other, None, 0, 2))
    return in_cells(reference, other, None, trust.cells, 0)


def test_a_fault_shows_in_its_range_alone(compared):
    assert len(compared) == 12 and sum(bool(cell.metrics) for cell in compared) >= 10
    for cell in compared:
        ratio = {m.name: m for m in cell.metrics}.get("response.ratio")
        if ratio is None:
            continue
        if cell.energy[0] > 3.1e4:
            assert ratio.sigmas > 3 and abs(ratio.value - 1.15) < 4 * ratio.error
        else:
            assert abs(ratio.sigmas) < 4


def test_every_observable_is_there_with_its_worst(compared):
    table = worst_by_observable(compared)
    assert {"response", "z_mean", "cell_spectrum", "layer_correlation"} < set(table)
    for name, row in table.items():
        assert len(row) == 12
        for cell, worst in zip(compared, row, strict=True):
            sizes = [m.size for m in cell.metrics if m.observable == name]
            assert (worst is None) == (not sizes) and (not sizes or worst.size == max(sizes))


def test_selected_showers_are_the_chosen(reference):
    some = reference.select(reference.energy > 2e4)
    assert len(some) == (reference.energy > 2e4).sum() and some.energy.min() > 2e4
    np.testing.assert_array_equal(some.hits, reference.hits[reference.energy > 2e4])


def test_too_few_in_a_range_say_nothing(toy, reference):
    few = measure(toy(100, 3))
    trust = chart(choose(reference, few, None, 0, 2))
    cells = in_cells(few, few, None, trust.cells, 0)
    assert not any(cell.metrics for cell in cells)
