"""Scores: known laws give known numbers; a ratio of the same answers is one without error."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from caloforge.tasks.question import Question
from caloforge.tasks.scores import compared, roc_of, score, summary

ENERGY, THETA = Question("energy"), Question("theta")
TWO = Question("particle", codes=(11, 22))


def smeared(n: int, a: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n))
    found = energy * (1 + a / np.sqrt(energy / 1e3) * rng.normal(size=n))
    return np.log(found)[:, None], energy


def test_a_resolution_that_was_put_in_comes_out() -> None:
    out, energy = smeared(4000, 0.12)
    found = score(ENERGY, out, np.log(energy), energy)
    for got in (found["scaled_resolution"], found["fit"]["stochastic"]):
        assert abs(got["value"] - 0.12) < 4 * got["error"] < 0.02
    assert all(abs(b["response"]["value"] - 1) < 4 * b["response"]["error"] for b in found["bins"])


def test_an_angle_that_is_not_known_explains_nothing() -> None:
    rng = np.random.default_rng(0)
    theta, energy = rng.uniform(0.9, 2.2, 500), np.full(500, 1e4)
    guess = np.full((500, 1), theta.mean())
    found = score(THETA, guess, theta, energy)
    assert found["explained"] == pytest.approx(0, abs=1e-9)
    assert found["resolution_rad"]["value"] == pytest.approx(theta.std())
    assert score(THETA, theta[:, None], theta, energy)["explained"] == 1


def test_the_same_answers_have_ratio_one_and_a_better_one_is_better() -> None:
    (out, energy), (worse, _) = smeared(1000, 0.10), smeared(1000, 0.20)
    parts = [summary(ENERGY, o, np.log(energy), energy) for o in (out, worse)]
    same = compared(ENERGY, parts[0], parts[0])
    assert (same.value, same.error) == (1.0, 0.0)
    double = compared(ENERGY, parts[1], parts[0])
    assert double.value == pytest.approx(2, rel=0.05) and double.error < 1e-6


def test_the_area_is_that_of_the_roc_curve_with_ties() -> None:
    rng = np.random.default_rng(0)
    signal, background = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 400).round(1)
    roc = roc_of(signal, background, ("e-", "gamma"))
    y = np.concatenate([np.ones(300), np.zeros(400)])
    assert roc.area.value == pytest.approx(roc_auc_score(y, np.concatenate([signal, background])))
    assert 0.005 < roc.area.error < 0.03


def test_a_rejection_is_one_over_what_passes_at_90_per_cent() -> None:
    signal, background = np.linspace(0, 1, 1001), np.linspace(-0.9, 0.1999, 1001)
    roc = roc_of(signal, background, ("e-", "gamma"))
    assert roc.passed.value == pytest.approx(0.0999 / 1.1, abs=2e-3)
    assert roc.rejection is not None
    assert roc.rejection.value == pytest.approx(11, abs=0.3)
    clean = roc_of(signal + 5, background, ("e-", "mu-"))
    assert clean.rejection is None and clean.passed.error == pytest.approx(1 / 1001)


def test_accuracy_and_pairs_of_classes() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 400)
    right = np.where(rng.random(400) < 0.8, target, 1 - target)
    out = np.log(np.where(np.arange(2) == right[:, None], 0.7, 0.3))
    found = score(TWO, out, target, np.full(400, 1e4))
    assert found["accuracy"]["value"] == pytest.approx((right == target).mean())
    assert abs(found["accuracy"]["value"] - 0.8) < 4 * found["accuracy"]["error"]
    (pair,) = found["pairs"]
    assert pair["signal"] == "e-" and 0.7 < pair["auc"]["value"] < 0.9
