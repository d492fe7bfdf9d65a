"""The challenge's numbers with their floors: equal laws, and changes that must be seen."""

from dataclasses import replace

import numpy as np
import pytest

from caloforge.evaluate.binning import Binning
from caloforge.evaluate.challenge import challenge_features, voxel_edges
from caloforge.evaluate.contest import CLASSIFIERS, network_metrics, posterior
from caloforge.evaluate.scoreboard import (
    FAMILIES,
    Board,
    distance_metrics,
    neighbour_metrics,
    separation_metrics,
)
from caloforge.evaluate.validation import Options


@pytest.fixture(scope="module")
def features(toy):
    """Features of the reference, of showers of the same law, of dim ones with holes, and of a floor."""
    first = toy(800, 1)
    binning = Binning.of_mesh(first.mesh, 5e-4)
    edges = voxel_edges(first, binning)
    dim = toy(800, 2)
    kept = np.random.default_rng(0).random(len(dim.deposit)) < 0.6
    dim = dim.with_(deposit=dim.deposit * np.float32(0.5) * kept)
    samples = [first, toy(800, 2), dim, toy(800, 4)]
    return samples, [challenge_features(s, binning, edges) for s in samples]


@pytest.fixture(scope="module")
def boards(features):
    _, (first, same, dim, floor) = features
    return {"same": Board(first, same, floor), "dim": Board(first, dim, floor),
            "halves": Board(first, same, None)}  # fmt: skip


def test_equal_laws_stay_at_the_floor(boards):
    for name in ("same", "halves"):
        found, single = separation_metrics(boards[name])
        assert {m.observable for m in found} == {f"challenge_{family}" for family in FAMILIES}
        assert all(m.sigmas < 3 for m in found), name
        assert len(single) == 2 + 12 * 8


def test_dim_showers_with_holes_are_seen_in_the_right_families(boards):
    found = {m.observable: m for m in separation_metrics(boards["dim"])[0]}
    for name in ("layer", "voxel", "sparsity"):
        assert found[f"challenge_{name}"].sigmas > 3, name
    assert found["challenge_r"].sigmas < min(
        found[f"challenge_{name}"].sigmas for name in ("layer", "voxel", "sparsity")
    )


def test_the_error_of_a_separation_is_that_of_repeating(toy, features):
    """Spread over independent samples against the error that one of them claims."""
    samples, (first, *_) = features
    edges = voxel_edges(samples[0], first.binning)
    values = {"challenge_r": [], "challenge_voxel": []}
    errors = {name: [] for name in values}
    for seed in range(20, 32):
        board = Board(first, challenge_features(toy(300, seed), first.binning, edges), None)
        for metric in separation_metrics(board)[0]:
            if metric.observable in values:
                values[metric.observable].append(metric.value)
                errors[metric.observable].append(metric.error)
    for name, seen in values.items():
        # Cautious is allowed: a mean over layers counts them as one.
        assert 0.6 < np.mean(errors[name]) / np.std(seen, ddof=1) < 8, name


def test_whole_files_are_quoted_and_halves_are_judged(boards):
    whole = {m.observable: m for m in separation_metrics(boards["halves"])[0]}["challenge_layer"]
    assert whole.matched > whole.value, "a distance of smaller samples is larger"
    own = {m.observable: m for m in separation_metrics(boards["same"])[0]}["challenge_layer"]
    assert own.matched == own.value


def test_distances_tell_equal_from_dimmer_and_floors_are_remembered(boards, monkeypatch):
    same = {m.observable: m for m in distance_metrics(boards["same"])}
    assert all(m.sigmas < 3 for m in same.values())
    calls = []
    other = replace(boards["dim"], memo=boards["same"].memo)
    dim = {m.observable: m for m in distance_metrics(other, calls.append)}
    assert len(calls) == 2, "the floors are those of the first model"
    assert dim["fpd"].floor == same["fpd"].floor
    assert dim["fpd"].sigmas > 3 and dim["kpd"].sigmas > 3


def test_neighbours_fall_for_showers_that_are_not_geant4(features, boards):
    samples, _ = features
    same = {
        m.observable: m for m in neighbour_metrics(boards["same"], (*samples[:2], samples[3]), 300)
    }
    assert set(same) == {"precision", "recall", "density", "coverage"}
    assert all(abs(m.sigmas) < 4 for m in same.values())
    dim = {m.observable: m for m in neighbour_metrics(
        replace(boards["dim"], memo={}), (samples[0], samples[2], samples[3]), 300)}  # fmt: skip
    assert dim["coverage"].sigmas < -3


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"trees"}))
def test_every_network_sees_dimmer_showers(name, features, boards, monkeypatch):
    from caloforge.evaluate import contest, networks

    monkeypatch.setattr(contest, "EPOCHS", 12)
    monkeypatch.setattr(networks, "_BATCH", 100)
    monkeypatch.setattr(networks, "_RATE", 1e-3)
    monkeypatch.setattr(networks, "_WIDTH", 128)
    samples, _ = features
    trio = (samples[0], samples[2], samples[3])
    (metric,) = network_metrics(name, replace(boards["dim"], memo={}), trio, 1)
    assert metric.name == f"classifier_{name}.auc" and metric.value > 0.75
    assert abs(metric.floor - 0.5) < 4 * metric.floor_error
    assert metric.sigmas > 2 and " s)" in metric.definition


def test_the_posterior_prefers_the_better_model(features, monkeypatch):
    from caloforge.evaluate import contest, networks

    monkeypatch.setattr(contest, "EPOCHS", 12)
    monkeypatch.setattr(networks, "_BATCH", 100)
    monkeypatch.setattr(networks, "_RATE", 1e-3)
    monkeypatch.setattr(networks, "_WIDTH", 128)
    _, (first, same, dim, floor) = features
    found = posterior([first, same, dim, floor], ["Geant4", "good", "dim"], Options(trainings=1))
    assert found["chance"].value == pytest.approx(-np.log(2))
    assert found["good"].value > found["chance"].value > found["dim"].value
