"""Boosted trees as arrays: the answers of the library that grew them, and laws they should find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from caloforge.tasks.forest import Forest, _converted, grow
from caloforge.tasks.head import Lesson
from caloforge.tasks.question import Question

THREE = Question("particle", codes=(11, 22, 111))


def rows(seed: int, n: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


def step(x: np.ndarray) -> np.ndarray:
    return np.where(x[:, 0] > 0, 2.0, -1.0)


def ring(x: np.ndarray) -> np.ndarray:
    return (np.hypot(x[:, 0], x[:, 1]) > 1.2).astype(int)


def test_trees_find_a_step_and_a_ring() -> None:
    parts = [rows(seed) for seed in range(3)]
    out = grow(Question("theta"), *(Lesson(x, step(x)) for x in parts[:2])).answer(parts[2])
    assert np.mean((out[:, 0] - step(parts[2])) ** 2) < 0.1
    two = Question("particle", codes=(11, 22))
    out = grow(two, *(Lesson(x, ring(x)) for x in parts[:2])).answer(parts[2])
    assert (out.argmax(axis=1) == ring(parts[2])).mean() > 0.9


def test_they_answer_as_those_they_were_made_from() -> None:
    x, asked = rows(0), rows(1, 2500)
    grown = HistGradientBoostingRegressor(max_iter=30, early_stopping=False).fit(x, step(x))
    out = _converted(grown, 30, 3, 1).answer(asked)
    assert out[:, 0] == pytest.approx(grown.predict(asked), abs=1e-9)
    for classes in (ring(x), ring(x) + (x[:, 2] > 1)):
        sorter = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(x, classes)
        out = _converted(sorter, 20, 3, classes.max() + 1).answer(asked)
        chance = torch.from_numpy(out).softmax(dim=1).numpy()
        assert chance == pytest.approx(sorter.predict_proba(asked), abs=1e-9)


def test_they_are_the_same_after_they_were_saved() -> None:
    x = rows(0)
    forest = grow(THREE, Lesson(x, ring(x) + (x[:, 2] > 1)), Lesson(x, ring(x)))
    again = Forest(**forest.to_dict())
    again.load_state_dict(forest.state_dict())
    assert (again.answer(x) == forest.answer(x)).all()
