"""The page and the card of a task: what was asked, how well it is answered, beside what else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caloforge.tasks.figures import figures
from caloforge.tasks.question import QUESTIONS, Question
from caloforge.tasks.scores import Roc

__all__ = ["card", "headline", "number", "page", "table"]

Scores = Mapping[str, Mapping[str, Any]]


def number(estimate: Mapping[str, float] | None, scale: float = 1.0, digits: int = 2) -> str:
    """A value with its error, both times `scale`, without unit; a dash for none."""
    if estimate is None:
        return "-"
    return f"{scale * estimate['value']:.{digits}f} ± {scale * estimate['error']:.{digits}f}"


def table(question: Question, scores: Scores, ratios: Mapping[str, Any]) -> list[list[str]]:
    """Rows of text, the head first: one for each method; energies' resolutions in % sqrt(GeV)."""
    if question.name == "energy":
        head = ["method", "scaled resolution [% √GeV]", "a [% √GeV]", "b [%]",
                "worst bin of E_reco/E", "ratio to the model's"]  # fmt: skip
        rows = [
            [number(s["scaled_resolution"], 100),
             *(number(s["fit"][k] if s["fit"] else None, 100) for k in ("stochastic", "constant")),
             number(s["worst_linearity"], 1, 4)]
            for s in scores.values()
        ]  # fmt: skip
    elif question.name == "theta":
        head = ["method", "σ of θ [rad]", "bias [rad]", "explained variance", "ratio to the "
                "model's"]  # fmt: skip
        rows = [
            [number(s["resolution_rad"], 1, 4), f"{s['bias_rad']:+.4f}", f"{s['explained']:.2f}"]
            for s in scores.values()
        ]
    else:
        first = next(iter(scores.values()))["pairs"]
        named = [f"{p['signal']} / {p['background']}" for p in first]
        head = ["method", "accuracy [%]", *(f"AUC {n}" for n in named),
                *(f"rejection at 90 % {n}" for n in named), "ratio to the model's"]  # fmt: skip
        rows = [
            [number(s["accuracy"], 100), *(number(p["auc"], 1, 4) for p in s["pairs"]),
             *(_rejection(p) for p in s["pairs"])]
            for s in scores.values()
        ]  # fmt: skip
    return [head] + [
        [name, *row, number(ratios[name], 1, 3) if name in ratios else "1"]
        for name, row in zip(scores, rows, strict=True)
    ]


def _rejection(pair: Mapping[str, Any]) -> str:
    if pair["rejection_at_90"] is None:
        return f"> {pair['showers']}"
    return number(pair["rejection_at_90"], 1, 1)


def headline(question: Question, score: Mapping[str, Any]) -> str:
    """One line that says how good it is; energies in GeV."""
    if question.name == "energy":
        return f"Energy: resolution {number(score['scaled_resolution'], 100)} % √(GeV/E)"
    if question.name == "theta":
        return (f"Theta: resolution {number(score['resolution_rad'], 1, 4)} rad, "
                f"{100 * score['explained']:.0f} % of the variance explained")  # fmt: skip
    return f"{question.name.capitalize()}: {number(score['accuracy'], 100, 1)} % right"


def card(question: Question, scores: Scores, ratios: Mapping[str, Any], notes: Mapping[str, Any]
         ) -> str:  # fmt: skip
    """The card of a task model as Markdown; energies in GeV."""
    rows = table(question, scores, ratios)
    lines = [
        f"# {question.name}", "", f"{headline(question, next(iter(scores.values())))}.", "",
        f"Asked: {QUESTIONS[question.name]}"
        + (f" ({', '.join(question.classes)})." if question.classes else "."), "",
        "## Measured", "", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(row)} |" for row in rows[1:]), "",
        "Errors: bootstrap over the showers that judge; ratios are between answers to the same "
        "showers. The first row is this model.", "", "## How it was made", "",
        *(f"- {key}: {value}" for key, value in notes.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def page(
    question: Question, scores: Scores, ratios: Mapping[str, Any],
    rocs: Mapping[str, Sequence[Roc]], notes: Mapping[str, Any],
) -> str:  # fmt: skip
    """One HTML file of everything, without network or scripts; energies in GeV."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = Path(__file__).with_name("page.html.j2").read_text("utf-8")
    first, score = next(iter(scores.items()))
    title = QUESTIONS[question.name]
    return environment.from_string(text).render(
        title=title[:1].upper() + title[1:],
        headline=headline(question, score) + ".",
        about=f"Answered by {first}; beside it what needs no pretraining, taught with the same "
        "labels.",
        table=table(question, scores, ratios),
        figures=[asdict(figure) for figure in figures(question.name, scores, rocs)],
        made=list(notes.items()),
    )
