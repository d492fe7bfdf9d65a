"""Labelled showers, and which of them teach, which choose, and which judge.

The splits are by event. Labels are counted honestly: of n labels a fifth chooses (regularisation,
when to stop, the correction of the response) and the rest teaches, for every method alike. Few
labels are the first of many: the hundred of a few-shot curve are among its thousand. Showers that
judge never do anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.showers.formats import open_showers
from caloforge.showers.showers import Showers, concatenate
from caloforge.tasks.question import Question

__all__ = ["LEAST", "Deal", "deal", "read_all"]

Array = NDArray[Any]
TEST = 0.2  # Share of the showers that judge, where no others do.
CHOOSING = 5  # One label in so many chooses.
LEAST = 20  # Labels, or labels of a class.


@dataclass(frozen=True)
class Deal:
    """Numbers of the showers that teach (`train`), choose (`choose`) and judge (`test`), (M,) each.

    They are disjoint, which is asserted.
    """

    train: Array
    choose: Array
    test: Array

    def __post_init__(self) -> None:
        """Assert that no shower does two things."""
        every = np.concatenate([self.train, self.choose, self.test])
        assert len(np.unique(every)) == len(every), "the splits overlap"


def read_all(paths: Sequence[Path]) -> Showers:
    """Read the showers of files of any dialect, one after the other; energies in MeV.

    Raises `RequestError` for no files, files of different detectors or meshes, and a file that
    does not say its detector or holds no showers.
    """
    if not paths:
        raise RequestError("name at least one file of showers")
    parts = []
    for path in paths:
        with closing(open_showers(path)) as source:
            if source.detector is None:
                raise RequestError(f"'{path}' does not say its detector; convert it with "
                                   "--detector")  # fmt: skip
            if len(source) == 0:
                raise RequestError(f"'{path}' holds no showers; give another")
            parts.append(source.read(0, len(source)))
        first, last = parts[0].detector, parts[-1].detector
        assert first is not None and last is not None
        same = (first.stack, first.mesh, first.gdml) == (last.stack, last.mesh, last.gdml)
        if not same:
            raise RequestError(
                f"'{path}' is of '{last.name}', the others of '{first.name}': a task is learned "
                "for one detector; leave it out"
            )
    return concatenate(parts)


def deal(
    question: Question, showers: Showers, *, labels: int | None = None, tested: int = 0,
    seed: int = 0,
) -> Deal:  # fmt: skip
    """Deal N showers; the last `tested` of them judge, or a fifth of all if there are none such.

    `labels`: how many are used to learn, of each class if classes are asked for; all by default.
    Raises `RequestError` if there are too few, or one event both teaches and judges.
    """
    target, n = question.target(showers), len(showers)
    order = np.random.default_rng([seed, 1]).permutation(n - tested)
    if tested:
        test = np.arange(n - tested, n)
        _refuse_twins(showers, n - tested)
    else:
        ends = round(TEST * n)
        test, order = np.sort(order[:ends]), order[ends:]
    test, order = test[target[test] != -1], order[target[order] != -1]
    groups = [order]
    if question.classes:
        groups = [order[target[order] == k] for k in range(question.outputs)]
    teach, choose = [], []
    for number, group in enumerate(groups):
        _check(question, number, len(group), labels)
        some = group[:labels]
        # One in so many chooses, so that fewer labels are always the first of more.
        chooses = np.arange(len(some)) % CHOOSING == 0
        teach.append(some[~chooses])
        choose.append(some[chooses])
    if len(test) < LEAST:
        raise RequestError(f"{len(test)} showers to judge with are too few; give {LEAST} or more")
    return Deal(np.sort(np.concatenate(teach)), np.sort(np.concatenate(choose)), test)


def _check(question: Question, number: int, there: int, labels: int | None) -> None:
    what = f" of {question.classes[number]}" if question.classes else ""
    wanted = labels if labels is not None else LEAST
    if labels is not None and labels < LEAST:
        raise RequestError(f"{labels} labels are too few to learn from; take {LEAST} or more")
    if there < wanted:
        raise RequestError(f"{there} showers{what} are left to learn from, not {wanted}; give "
                           "more, or fewer --labels")  # fmt: skip


def _refuse_twins(showers: Showers, learned: int) -> None:
    """An event is known by its seed and primary; one that taught cannot judge."""
    key = [f"{s}/{e:.6g}/{t:.6g}" for s, e, t in zip(
        showers.seed, showers.energy, showers.theta, strict=True)]  # fmt: skip
    both = set(key[:learned]) & set(key[learned:])
    if both:
        raise RequestError(f"{len(both)} events of --test are among the showers to learn from; "
                           "judge with others")  # fmt: skip
