"""How a question is answered: by a head on frozen features, a tuned backbone, or from scratch.

The rules are the same for all: the same labels, the same fifth of them to choose with, the budgets
of `BUDGET`, and for energies the same correction of the mean response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model, shipped_models
from caloforge.showers.showers import Showers
from caloforge.tasks.baselines import calibrated_sum, shower_features
from caloforge.tasks.events import Deal
from caloforge.tasks.features import View, cut, features
from caloforge.tasks.forest import Forest, grow
from caloforge.tasks.head import Head, Lesson, Response, answers, fit_linear, fit_small
from caloforge.tasks.question import Question
from caloforge.tasks.reader import Reader
from caloforge.tasks.tuning import tune

__all__ = ["FROZEN", "METHODS", "check_method", "learned", "sceptics", "spread_out"]

Array = NDArray[Any]

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "linear": "one linear layer on frozen features",
        "mlp": "a small network on frozen features",
        "boosted": "boosted trees on frozen features",
        "tuned": "all weights, from the pretrained ones",
        "scratch": "all weights of the same network, from random ones",
    }
)


FROZEN = ("linear", "mlp", "boosted")


def check_method(method: str) -> str:
    """Return it; raises `RequestError` if there is no such method."""
    if method not in METHODS:
        raise RequestError(f"unknown method '{method}'; known are {', '.join(METHODS)}")
    return method


def learned(
    question: Question, showers: Showers, deal: Deal, *, backbone: str, view: View,
    method: str = "linear", rows: Array | None = None, seed: int = 0, model: Model | None = None,
) -> Reader:  # fmt: skip
    """Learn to answer a question from the showers of a deal; energies in MeV.

    `rows` (N, F): features of all N showers where they are known (those that judge are not looked
    at); `model` in the place of the one called `backbone`. Raises `RequestError` for an unknown
    method, view or model.
    """
    check_method(method)
    model = model or load_model(backbone)
    view.check(model.network)
    known = backbone if backbone in shipped_models() else str(Path(backbone).resolve())
    own = method in ("tuned", "scratch")
    target = question.target(showers)
    head: Head | Forest
    if own:
        tuned = tune(question, model, showers, deal, view, manner=method, seed=seed)
        model, head, losses = tuned.model, tuned.head, tuned.losses
    else:
        used = np.concatenate([deal.train, deal.choose])
        if rows is None:
            rows = spread_out(len(showers), used, features(model, showers[used], view))
        teach, choose = (
            Lesson.of(question, rows[part], target[part]) for part in (deal.train, deal.choose)
        )
        head, losses = _head(method, question, teach, choose, seed), {}
        model = replace(model, network=cut(model.network, view.block).eval())
    notes = {"method": method, "labels": len(deal.train) + len(deal.choose), "seed": seed,
             "losses": losses}  # fmt: skip
    assert showers.detector is not None
    reader = Reader(question, model, view, head, known, own, detector=showers.detector.to_toml(),
                    notes=notes)  # fmt: skip
    if question.name != "energy":
        return reader
    x = features(model, showers[deal.choose], view) if own or rows is None else rows[deal.choose]
    return replace(reader, response=response_of(reader.outputs(x)[:, 0], target[deal.choose], x))


def _head(
    method: str, question: Question, teach: Lesson, choose: Lesson, seed: int
) -> Head | Forest:
    if method == "mlp":
        return fit_small(question, teach, choose, seed=seed)
    if method == "boosted":
        return grow(question, teach, choose, seed)
    return fit_linear(question, teach, choose)


def response_of(found: Array, true: Array, rows: Array) -> Response:
    """Correction of found energies (N,) for true ones (N,), logarithms of MeV; rows (N, F)."""
    return Response.fit(found, true, np.exp(rows[:, 0].astype(float) / 2))


def spread_out(n: int, used: Array, rows: Array) -> Array:
    """Rows (N, F) of N showers of which only `used` (M,) are known, as (M, F); others NaN."""
    whole = np.full((n, rows.shape[1]), np.nan, np.float32)
    whole[used] = rows
    return whole


def sceptics(
    question: Question, showers: Showers, deal: Deal, *, seed: int = 0, rows: Array | None = None
) -> dict[str, Array]:
    """Outputs (M, K) for the showers that judge, of what needs no pretraining; ln MeV for energies.

    `rows` (N, F): `shower_features` of all N showers, where they are known.
    """
    used = np.concatenate([deal.train, deal.choose, deal.test])
    if rows is None:
        rows = spread_out(len(showers), used, shower_features(showers[used]))
    target = question.target(showers)
    asked, sums = np.concatenate([deal.choose, deal.test]), {}
    if question.name == "energy":
        rough = rows[:, 0].astype(float) + np.log(1e3)
        for name, angle in (("sum", False), ("sum, true angle", True)):
            sums[name] = calibrated_sum(showers, deal, rough, angle=angle)[:, None]
        # The trees correct the calibrated sum, as the heads correct what the whitening suggests.
        rows = np.hstack([sums["sum"] - np.log(1e3), rows])
    teach, choose = (
        Lesson.of(question, rows[part], target[part]) for part in (deal.train, deal.choose)
    )
    out = grow(question, teach, choose, seed).answer(rows[asked])
    found = {"trees": answers(question, rows[asked], out)}
    if question.name == "energy":
        found |= {name: out[asked] for name, out in sums.items()}
        for name, out in found.items():
            first = out[: len(deal.choose), 0]
            fit = response_of(first, target[deal.choose], rows[deal.choose])
            found[name] = fit.corrected(out[:, 0])[:, None]
    return {name: out[len(deal.choose) :] for name, out in found.items()}
