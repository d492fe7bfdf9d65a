import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.observables import measure
from caloforge.evaluate.samples import choose
from caloforge.evaluate.trust import TOLERANCES, chart, tolerances


@pytest.fixture(scope="module")
def mapped(toy, reference):
    """A map of trust of changed showers, with tolerances to the taste of the toy."""

    def make(change, n=800, floor=None, **allowed):
        changed = measure(change(toy(n, 2)))
        return chart(choose(reference, changed, floor, 0, 2), {**WIDE, **allowed})

    return make


WIDE = {"response": 0.05, "resolution": 0.6, "hits": 0.05, "z_mean": 0.05, "r_mean": 0.05}


def answers(cell):
    return {check.name: check.answer for check in cell.checks}


def test_equal_laws_are_trusted_where_tolerances_are_wide(mapped):
    trust = mapped(lambda s: s)
    assert trust.whole.answer == "yes" and set(answers(trust.whole).values()) == {"yes"}
    assert len(trust.cells) == 12 and trust.shape == (3, 4)
    assert sum(cell.n[0] for cell in trust.cells) == 800
    for check in trust.whole.checks:
        assert abs(check.difference) < 4 * check.error
        assert abs(check.floor) < 5 * check.floor_error


def test_what_cannot_be_shown_is_open(mapped):
    trust = mapped(lambda s: s, response=1e-4)
    assert answers(trust.whole)["response"] == "open" and trust.whole.answer == "open"


def test_a_scale_is_out_with_its_size(mapped):
    trust = mapped(lambda s: s.with_(deposit=s.deposit * np.float32(1.1)))
    response = next(c for c in trust.whole.checks if c.name == "response")
    assert response.answer == "no" and trust.whole.answer == "no"
    assert abs(response.difference - 0.1) < 4 * response.error
    assert answers(trust.whole)["z_mean"] == "yes"


def test_a_fault_at_high_energy_is_found_there(mapped):
    def fault(showers):
        bright = np.where(showers.energy > 3e4, 1.2, 1.0).astype(np.float32)
        return showers.with_(deposit=showers.deposit * bright[showers.rows])

    trust = mapped(fault)
    for cell in trust.cells:
        if cell.energy[0] > 3.1e4:
            assert answers(cell)["response"] == "no"
        elif cell.energy[1] < 3.1e4 and cell.checks:
            assert answers(cell)["response"] != "no"


def test_a_resolution_that_is_off_is_found(mapped):
    def smear(showers):
        scale = 1 + 0.15 * np.random.default_rng(0).normal(size=len(showers))
        return showers.with_(deposit=showers.deposit * scale.clip(0.1).astype("f4")[showers.rows])

    trust = mapped(smear, resolution=0.1)
    check = next(c for c in trust.whole.checks if c.name == "resolution")
    assert check.answer == "no" and check.difference > 0.2


def test_a_floor_of_its_own_and_few_showers(mapped, toy):
    trust = mapped(lambda s: s, floor=measure(toy(800, 4)))
    assert all(abs(c.floor) < 5 * c.floor_error for c in trust.whole.checks)
    few = mapped(lambda s: s, n=100)
    assert {cell.answer for cell in few.cells if min(cell.n) < 30} == {"open"}


def test_one_energy_and_one_angle_make_one_cell(toy):
    showers = toy(100, 3)
    single = measure(showers.with_(energy=np.full(100, 5e4), theta=np.full(100, 1.5)))
    trust = chart(choose(single, single, None, 0, 2))
    assert trust.shape == (1, 1) and len(trust.cells) == 1
    assert trust.cells[0].n == (100, 100)


def test_tolerances_are_changed_by_name():
    assert tolerances() == dict(TOLERANCES)
    assert tolerances(["response=0.005", "hits = 0.1"])["hits"] == 0.1
    for text in ("respons=0.1", "response=0", "response=x", "response"):
        with pytest.raises(RequestError) as caught:
            tolerances([text])
        assert "\n" not in str(caught.value)
