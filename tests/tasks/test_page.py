"""The page and the card: every method has its row and its curve, and nothing unsafe gets in."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.tasks.figures import figures
from caloforge.tasks.page import card, number, page, table
from caloforge.tasks.question import Question
from caloforge.tasks.scores import pairs, score

THREE = Question("particle", codes=(11, 22, 13))


@pytest.fixture(scope="module")
def judged() -> tuple[dict, dict]:
    """Scores and ROC curves of a perfect answer and of a guess."""
    rng = np.random.default_rng(0)
    target = np.arange(90) % 3
    energy = np.full(90, 1e4)
    perfect = np.log(np.where(np.arange(3) == target[:, None], 0.98, 0.01))
    named = {"perfect": perfect, "a <guess>": np.log(rng.dirichlet(np.ones(3), 90))}
    return (
        {n: score(THREE, out, target, energy) for n, out in named.items()},
        {n: pairs(THREE, out, target) for n, out in named.items()},
    )


def test_a_number_has_its_error_and_nothing_is_a_dash() -> None:
    assert number({"value": 0.12345, "error": 0.01}, 100) == "12.35 ± 1.00"
    assert number(None) == "-"


def test_every_method_has_a_row_as_long_as_the_head(judged: tuple[dict, dict]) -> None:
    ratios = {"a <guess>": {"value": 0.34, "error": 0.02}}
    rows = table(THREE, judged[0], ratios)
    assert [row[0] for row in rows[1:]] == ["perfect", "a <guess>"]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[1][-1] == "1" and rows[2][-1] == "0.340 ± 0.020"
    assert "> 30" in rows[1], "none of 30 passed: the rejection is a limit"


def test_a_figure_for_each_pair_with_a_curve_for_each_method(judged: tuple[dict, dict]) -> None:
    drawn = list(figures("particle", *judged))
    assert [f.title for f in drawn] == [
        "e- against gamma", "e- against mu-", "gamma against mu-"
    ]  # fmt: skip
    assert all("var(--curve-1)" in f.svg for f in drawn)


def test_text_is_escaped_and_the_card_says_the_same(judged: tuple[dict, dict]) -> None:
    notes = {"command": "caloforge task train <x>"}
    text = page(THREE, judged[0], {}, judged[1], notes)
    assert "a &lt;guess&gt;" in text and "<guess>" not in text and "<x>" not in text
    assert "100.0 ± 0.0 % right" in text and "100.0 ± 0.0 % right" in card(
        THREE, judged[0], {}, notes
    )
