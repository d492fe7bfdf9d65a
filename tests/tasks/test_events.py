"""Splits: disjoint, nested, the same for the same seed; too few labels and twins are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError
from caloforge.showers.formats import write_showers
from caloforge.showers.showers import Showers, concatenate
from caloforge.tasks.events import Deal, deal, read_all
from caloforge.tasks.question import Question

Toy = Callable[..., Showers]
ENERGY, PARTICLE = Question("energy"), Question("particle", codes=(11, 22))


@pytest.fixture(scope="module")
def mixed(toy: Toy, small_detector: Detector) -> Showers:
    return toy(small_detector, 300).with_(pdg=np.tile([11, 22, 13], 100))


def test_every_shower_does_one_thing_at_most(mixed: Showers) -> None:
    dealt = deal(ENERGY, mixed)
    every = np.concatenate([dealt.train, dealt.choose, dealt.test])
    assert sorted(every) == list(range(300))
    assert len(dealt.test) == 60 and len(dealt.choose) == 48


def test_few_labels_are_the_first_of_many(mixed: Showers) -> None:
    few, many = (deal(ENERGY, mixed, labels=n, seed=3) for n in (40, 160))
    assert set(few.train) < set(many.train) and set(few.choose) < set(many.choose)
    assert len(few.train) + len(few.choose) == 40 and len(few.choose) == 8
    assert (few.test == many.test).all(), "the same showers judge"


def test_labels_are_counted_in_each_class_and_other_classes_are_left_out(mixed: Showers) -> None:
    dealt = deal(PARTICLE, mixed, labels=30)
    taught = np.concatenate([dealt.train, dealt.choose])
    assert [(mixed.pdg[taught] == code).sum() for code in (11, 22, 13)] == [30, 30, 0]
    assert set(mixed.pdg[dealt.test]) == {11, 22}


def test_a_seed_deals_the_same_way_and_another_otherwise(mixed: Showers) -> None:
    one, same, other = (deal(ENERGY, mixed, labels=50, seed=s) for s in (0, 0, 1))
    assert (one.train == same.train).all() and not (one.train == other.train).all()


def test_showers_of_their_own_judge(toy: Toy, mixed: Showers, small_detector: Detector) -> None:
    judges = toy(small_detector, 40, seed=9)
    dealt = deal(ENERGY, concatenate([mixed, judges]), tested=40)
    assert (dealt.test == np.arange(300, 340)).all()
    assert max(dealt.train.max(), dealt.choose.max()) < 300


def test_an_event_that_teaches_cannot_judge(mixed: Showers) -> None:
    with pytest.raises(RequestError, match="20 events of --test"):
        deal(ENERGY, concatenate([mixed, mixed[:20]]), tested=20)


def test_an_overlap_is_an_error_of_ours() -> None:
    with pytest.raises(AssertionError, match="overlap"):
        Deal(np.arange(5), np.arange(4, 8), np.arange(10, 12))


@pytest.mark.parametrize(("labels", "words"), [(5, "too few"), (300, "not 300")])
def test_labels_that_are_not_there_are_refused(mixed: Showers, labels: int, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        deal(ENERGY, mixed, labels=labels)


def test_files_are_read_together_if_they_are_of_one_detector(
    toy: Toy, mixed: Showers, small_detector: Detector, tmp_path: Path
) -> None:
    write_showers(mixed, tmp_path / "a.h5")
    write_showers(toy(small_detector, 30, seed=5), tmp_path / "b.h5")
    write_showers(toy(load_detector("par04-siw"), 2), tmp_path / "c.h5")
    write_showers(mixed.with_(detector=None), tmp_path / "d.h5")
    assert len(read_all([tmp_path / "a.h5", tmp_path / "b.h5"])) == 330
    for files, words in ((["a", "c"], "leave it out"), (["d"], "its detector"), ([], "at least")):
        with pytest.raises(RequestError, match=words):
            read_all([tmp_path / f"{name}.h5" for name in files])
