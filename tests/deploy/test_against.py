"""Fast against full: nothing for equal runs, a known answer for scaled ones."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.deploy.against import agreement, ratio, totals


def test_a_run_agrees_with_itself_without_any_difference(toy, small_detector) -> None:
    showers = toy(small_detector, 50)
    found = totals(showers, showers)
    assert not found.differ.any()
    kinds = {"11": None}
    assert agreement(found) == {
        "mean": None,
        "spread": None,
        "with_leakage": None,
        "by_particle": kinds,
    }


def test_only_events_that_differ_are_compared(toy, small_detector) -> None:
    full = toy(small_detector, 50)
    factor = np.where(np.arange(50) < 30, 1.25, 1.0)
    fast = full.with_(deposit=full.deposit * factor[full.rows], leakage=full.leakage * factor)
    found = totals(fast, full)
    assert np.flatnonzero(found.differ).tolist() == list(range(30))
    ratios = agreement(found)
    for name in ("mean", "spread", "with_leakage"):
        assert ratios[name]["value"] == pytest.approx(1.25, rel=1e-5), name
        assert ratios[name]["error"] < 1e-5, "the same factor for all has no error"


def test_kinds_of_primaries_are_compared_apart(toy, small_detector) -> None:
    photon = np.arange(60) % 2 == 1
    full = toy(small_detector, 60).with_(pdg=np.where(photon, 22, 11))
    factor = np.where(photon, 0.8, 1.1)
    found = totals(full.with_(deposit=full.deposit * factor[full.rows]), full)
    kinds = agreement(found)["by_particle"]
    assert {code: round(kind["value"], 4) for code, kind in kinds.items()} == {"11": 1.1, "22": 0.8}
    assert kinds["11"]["events"] == kinds["22"]["events"] == 30


def test_any_change_of_an_event_is_seen(toy, small_detector) -> None:
    full = toy(small_detector, 4)
    deposit, cell, leakage = full.deposit.copy(), full.cell.copy(), full.leakage.copy()
    deposit[full.offsets[1]] = np.nextafter(deposit[full.offsets[1]], np.float32(1e9))
    cell[full.offsets[2]] = (cell[full.offsets[2]] + 1) % full.mesh.n_cells
    leakage[3] += 1
    changed = full.with_(deposit=deposit, cell=cell, leakage=leakage)
    assert totals(changed, full).differ.tolist() == [False, True, True, True]


def test_the_error_covers_independent_samples(toy, small_detector) -> None:
    """Two samples of one law: their ratio is one within its error."""
    deviations = []
    for seed in range(20):
        a, b = toy(small_detector, 200, seed=2 * seed), toy(small_detector, 200, seed=2 * seed + 1)
        same = totals(a.with_(seed=np.arange(200), energy=b.energy), b.with_(seed=np.arange(200)))
        mean = agreement(same)["mean"]
        deviations.append((mean["value"] - 1) / mean["error"])
    assert 0.5 < np.std(deviations) < 1.6 and abs(np.mean(deviations)) < 1


def test_other_events_are_not_compared(toy, small_detector) -> None:
    a, b = toy(small_detector, 5), toy(small_detector, 5, seed=1)
    with pytest.raises(ValueError, match="same events"):
        totals(a, b)


def test_the_error_of_a_ratio_of_times() -> None:
    found = ratio({"value": 1.0, "error": 0.03}, {"value": 2.0, "error": 0.08})
    assert found["value"] == 0.5
    assert found["error"] == pytest.approx(0.5 * 0.05)
