"""Training streams: disjoint splits, every event once, the same order again, memory in bounds."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.showers import dataset
from caloforge.showers.dataset import SPLITS, Sample, ShowerStream, split_events


@pytest.mark.parametrize("n", [1, 20, 1501])
def test_splits_are_disjoint_and_complete(n: int) -> None:
    splits = split_events(n, 3, "a.h5")
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(n))
    assert len(splits["train"]) == round(SPLITS["train"] * n)


def test_splits_depend_on_seed_and_file() -> None:
    def train(*what: object) -> list[int]:
        return split_events(100, *what)["train"].tolist()  # type: ignore[arg-type]

    assert train(1, "a.h5") == train(1, "a.h5")
    assert train(1, "a.h5") != train(2, "a.h5") != train(2, "b.h5")


def energies(samples: list[Sample]) -> np.ndarray:
    return np.concatenate([sample.energy for sample in samples])


def test_all_splits_together_are_the_files(toy_files: list[Path]) -> None:
    seen = [energies(list(ShowerStream(toy_files, split=s, batch=1).all())) for s in SPLITS]
    whole = [h5py.File(path)["energy"][:] for path in toy_files]
    assert np.array_equal(np.sort(np.concatenate(seen)), np.sort(np.concatenate(whole)))


def test_an_epoch_has_every_event_at_most_once(toy_files: list[Path]) -> None:
    stream = ShowerStream(toy_files, batch=10, pool=2)
    seen = energies(list(stream.epoch(0)))
    assert len(np.unique(seen)) == len(seen) == 10 * stream.batches_in(0)
    assert len(seen) > 0.9 * len(stream)


def test_a_batch_mixes_detectors_and_keeps_rows_together(toy_files: list[Path]) -> None:
    stream = ShowerStream(toy_files, batch=64)
    sample = next(stream.batches())
    assert set(sample.detector) == {0, 1}
    file = h5py.File(toy_files[sample.detector[0]])
    row = int(np.flatnonzero(file["energy"][:] == sample.energy[0])[0])
    first, last = file["offsets"][row : row + 2]
    assert sample.voxels[0].sum() == pytest.approx(file["deposit"][first:last].sum(), rel=1e-5)


@pytest.mark.parametrize("start", [0, 3, 25, 60])
def test_any_batch_can_be_found_again(toy_files: list[Path], start: int) -> None:
    stream = ShowerStream(toy_files, batch=40, seed=5)
    batches = stream.batches()
    for _ in range(start):
        next(batches)
    expected = next(batches)
    found = next(ShowerStream(toy_files, batch=40, seed=5).batches(start))
    assert np.array_equal(found.voxels, expected.voxels)
    assert np.array_equal(found.energy, expected.energy)


def test_epochs_differ(toy_files: list[Path]) -> None:
    stream = ShowerStream(toy_files, batch=40)
    assert not np.array_equal(energies(list(stream.epoch(0))), energies(list(stream.epoch(1))))


def test_memory_holds_a_pool_of_blocks_only(
    toy_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "BLOCK", 20)
    stream = ShowerStream(toy_files, batch=16, pool=3)
    largest = max(len(group) for _, group in stream._groups(0))
    assert largest == 3 and all(len(events) <= 20 for _, events in stream._blocks)
    assert sum(len(s) for s in stream.epoch(0)) > 0.7 * len(stream)


def test_refusals(toy_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="less than a batch"):
        ShowerStream(toy_files, batch=1000)
    with pytest.raises(RequestError, match="unknown split"):
        ShowerStream(toy_files, split="holdout")
    with pytest.raises(RequestError, match="there is no file"):
        ShowerStream([tmp_path / "no.h5"])


def test_batches_together_are_of_one_file(toy_files: list[Path]) -> None:
    stream = ShowerStream(toy_files, batch=16, seed=3, together=4)
    batches = list(itertools.islice(stream.batches(), 24))
    files = [set(batch.detector.tolist()) for batch in batches]
    assert all(len(seen) == 1 for seen in files)
    turns = [files[k : k + 4] for k in range(0, 24, 4)]
    assert all(turn == [turn[0]] * 4 for turn in turns)
    assert {next(iter(turn[0])) for turn in turns} == {0, 1}
    later = next(stream.batches(7))
    np.testing.assert_array_equal(later.energy, batches[7].energy)


def test_shares_decide_the_splits(toy_files: list[Path]) -> None:
    shares = {"new": 0.4, "old": 0.6}
    one, other = (ShowerStream(toy_files, split=name, batch=1, shares=shares) for name in shares)
    assert (len(one), len(other)) == (240, 360)
