"""Baselines: exact where the law is theirs, and blind to the primary where they should be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.showers.showers import Showers
from caloforge.tasks.baselines import calibrated_sum, shower_features, trees
from caloforge.tasks.events import Deal
from caloforge.tasks.head import Lesson
from caloforge.tasks.question import Question

Toy = Callable[..., Showers]


def test_the_sum_with_the_angle_is_exact_where_the_response_goes_with_the_angle(
    toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 200)
    visible = showers.visible()
    energy = 30 * visible**1.02 * np.exp(0.1 * np.cos(showers.theta) ** 2)
    showers = showers.with_(energy=energy)
    deal, rough = Deal(np.arange(100), np.arange(100, 120), np.arange(120, 200)), np.log(energy)
    with_angle, without = (calibrated_sum(showers, deal, rough, angle=a) for a in (True, False))
    assert with_angle == pytest.approx(np.log(showers.energy), abs=1e-4)
    assert np.abs(without - np.log(showers.energy))[120:].max() > 0.005


def test_features_of_trees_do_not_know_the_primary(toy: Toy, small_detector: Detector) -> None:
    showers = toy(small_detector, 20)
    other = showers.with_(
        energy=2 * showers.energy, theta=np.full(20, 1.0), pdg=np.full(20, 22), phi=np.zeros(20)
    )
    rows = shower_features(showers)
    assert np.isfinite(rows).all() and (rows == shower_features(other)).all()


def test_trees_find_a_step_and_a_ring() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(600, 3)).astype(np.float32) for _ in range(3)]

    def step(x: np.ndarray) -> np.ndarray:
        return np.where(x[:, 0] > 0, 2.0, -1.0)

    def ring(x: np.ndarray) -> np.ndarray:
        return (np.hypot(x[:, 0], x[:, 1]) > 1.2).astype(int)

    lessons = [Lesson(x, step(x)) for x in parts[:2]]
    out = trees(Question("theta"), *lessons, parts[2])[:, 0]
    assert np.mean((out - step(parts[2])) ** 2) < 0.1
    lessons = [Lesson(x, ring(x)) for x in parts[:2]]
    out = trees(Question("particle", codes=(11, 22)), *lessons, parts[2])
    assert (out.argmax(axis=1) == ring(parts[2])).mean() > 0.9
