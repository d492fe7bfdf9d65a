"""Heads: linear laws are found, others need the small network; the response is put right."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.tasks.head import BUDGET, Head, Lesson, Response, answers, fit_linear, fit_small
from caloforge.tasks.question import Question

ENERGY, THETA = Question("energy"), Question("theta")
TWO, THREE = Question("particle", codes=(11, 22)), Question("particle", codes=(11, 22, 13))


def rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def lessons(question: Question, law: object, n: int = 600) -> tuple[Lesson, Lesson, np.ndarray]:
    parts = [rows(n, seed) for seed in (0, 1, 2)]
    teach, choose = (Lesson.of(question, x, law(x)) for x in parts[:2])  # type: ignore[operator]
    return teach, choose, parts[2]


def test_ridge_finds_a_linear_law() -> None:
    slope = np.array([0.3, 0, -0.2, 0, 0.1, 0])
    teach, choose, x = lessons(THETA, lambda x: 1.5 + x @ slope)
    head = fit_linear(THETA, teach, choose)
    assert head.answer(x)[:, 0] == pytest.approx(1.5 + x @ slope, abs=2e-3)


def test_an_energy_is_found_whatever_its_size() -> None:
    """What is missing to the suggested energy goes with its root: one linear layer serves all."""

    def law(x: np.ndarray) -> np.ndarray:
        return x[:, 0] + np.log(1e3) + 0.1 * x[:, 3] * np.exp(-x[:, 0] / 2)

    teach, choose, x = lessons(ENERGY, law)
    found = answers(ENERGY, x, fit_linear(ENERGY, teach, choose).answer(x))
    assert found[:, 0] == pytest.approx(law(x), abs=3e-3)


def test_useless_features_are_shrunk_away() -> None:
    noise = np.random.default_rng(7)
    teach, choose, x = lessons(THETA, lambda x: noise.normal(size=len(x)), n=40)
    out = fit_linear(THETA, teach, choose).answer(x)
    assert out.std() < 0.35, "ordinary least squares would say 0.4 and more"


@pytest.mark.parametrize("question", [TWO, THREE])
def test_classes_that_a_plane_divides_are_told_apart(question: Question) -> None:
    def law(x: np.ndarray) -> np.ndarray:
        return np.digitize(x[:, 1] + x[:, 2], [0.0, 1.5][: question.outputs - 1])

    teach, choose, x = lessons(question, law)
    out = answers(question, x, fit_linear(question, teach, choose).answer(x))
    assert np.exp(out).sum(axis=1) == pytest.approx(1.0)
    assert (out.argmax(axis=1) == law(x)).mean() > 0.93


def test_a_small_network_bends_where_a_line_cannot() -> None:
    def law(x: np.ndarray) -> np.ndarray:
        return (x[:, 1] * x[:, 2] > 0).astype(int)

    teach, choose, x = lessons(TWO, law, n=1500)
    bent, straight = (fit(TWO, teach, choose) for fit in (fit_small, fit_linear))
    right = [(h.answer(x).argmax(axis=1) == law(x)).mean() for h in (bent, straight)]
    assert right[0] > 0.85 > 0.6 > right[1]


def test_the_same_seed_gives_the_same_head() -> None:
    teach, choose, x = lessons(THETA, lambda x: x[:, 0] ** 2, n=100)
    one, same, other = (fit_small(THETA, teach, choose, seed=s) for s in (0, 0, 1))
    assert (one.answer(x) == same.answer(x)).all() and (one.answer(x) != other.answer(x)).any()


def test_a_feature_that_never_varied_does_no_harm() -> None:
    x = rows(50, 0)
    x[:, 2] = 3.0
    head = Head(6, 1)
    head.fit_scale(x)
    x[0, 2] = 1e9
    assert np.isfinite(head.answer(x)).all()


def test_a_known_response_is_taken_back() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(np.log(1e3), np.log(1e5), 4000)
    x = true - np.log(1e3)
    found = true + 0.05 - 0.03 * x + 0.004 * x**2 + rng.normal(0, 0.02, 4000)
    fit = Response.fit(found[:2000], true[:2000], np.exp(x[:2000] / 2))
    left = fit.corrected(found[2000:]) - true[2000:]
    for low, high in ((0, 1.5), (1.5, 3), (3, 4.7)):
        here = (x[2000:] >= low) & (x[2000:] < high)
        assert left[here].mean() == pytest.approx(0, abs=4 * 0.02 / here.sum() ** 0.5)


def test_beyond_its_ends_a_response_stays_what_it_was() -> None:
    fit = Response([0.0, 0.1, 0.0, 0.0], [2.0, 50.0])
    at = np.log(1e3 * np.array([50.0, 5000.0]))
    assert fit.mean(at)[0] == fit.mean(at)[1]


def test_budgets_grow_with_the_labels_and_have_an_end() -> None:
    for budget in BUDGET.values():
        steps = [budget.steps(n) for n in (80, 1000, 16_000, 10**6)]
        assert steps == sorted(steps) and steps[0] == budget.least and steps[-1] == budget.most
