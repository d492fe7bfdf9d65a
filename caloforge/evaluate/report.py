"""The page of a validation, for a reader: verdict first, then numbers, figures and showers.

One file that opens from disk: figures are inlined, colours follow light and dark, and the only
script turns the showers in three dimensions. Energies are in MeV unless a GeV stands beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caloforge.evaluate.cells import worst_by_observable
from caloforge.evaluate.gallery import packed_plotly, showers_3d
from caloforge.evaluate.metric import Metric
from caloforge.evaluate.observables import QUANTITIES
from caloforge.evaluate.plots import figures
from caloforge.evaluate.scoreboard import FAMILIES
from caloforge.evaluate.trust import Cell, Check
from caloforge.evaluate.verdict import THRESHOLD, with_error
from caloforge.progress import progress

if TYPE_CHECKING:
    from caloforge.evaluate.maps import Figure
    from caloforge.evaluate.observables import Observables
    from caloforge.evaluate.validation import Judged
    from caloforge.showers.native import ShowerSource

__all__ = ["page"]

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_KINDS = ("difference", "spread", "tail", "separation", "wasserstein")
_HEADS = {
    "difference": ("Difference of means", "at equal energy"),
    "spread": ("Fluctuations", "ratio at equal energy"),
    "tail": ("Tails", f"outside the central {100 - 2} %"),
    "separation": ("Separation power", "0 equal, 1 disjoint"),
    "wasserstein": ("Wasserstein distance", "in spreads of the reference, or unit"),
}
_GLANCE = (
    "classifier.auc", "classifier_features.auc", "classifier_voxels.auc", "classifier_resnet.auc",
    "response.ratio", "resolution.ratio", "hits.ratio", "z_mean.shift", "r_mean.shift",
    "cell_spectrum.separation", "fpd.distance", "kpd.distance", "precision.score", "recall.score",
    "density.score", "coverage.score",
)  # fmt: skip
_KEYS = ("classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio")
_TALL = ("layer_energy", "average_shower", "layer_correlation")


def page(
    record: dict[str, Any],
    sources: Sequence[ShowerSource],
    samples: Sequence[Observables],
    judged: Sequence[Judged],
    floor_own: bool,
) -> str:
    """Write the page of a record as `validate` makes it (energies in MeV, lengths in mm).

    `sources`, `samples`: files and what was measured of them, the reference first, a floor with a
    file of its own (`floor_own`) last.
    """
    shown = len(samples) - floor_own
    labels = [file["label"] for file in record["files"]][:shown]
    drawn = _draw(labels, samples[:shown], judged)
    turning = showers_3d(labels, sources[:shown], samples[:shown], record["cut_mev"])
    return rendered(record, labels, judged, drawn, turning)


def _draw(
    labels: Sequence[str], samples: Sequence[Observables], judged: Sequence[Judged]
) -> list[Figure]:
    first = judged[0].comparison
    bins, angles = (
        [(pairs[0][0], *(pair[1] for pair in pairs)) for pairs in zip(*rows, strict=True)]
        for rows in (
            [j.comparison.bins for j in judged],
            [j.comparison.angles for j in judged],
        )
    )
    fits = [first.fits[0], *(j.comparison.fits[1] for j in judged)]
    drawn = []
    with progress("drawing", len(QUANTITIES) + 12, "figures") as advance:
        for figure in figures(list(zip(labels, samples, strict=True)), bins, angles, fits):
            drawn.append(figure)
            advance(1)
    return drawn


def rendered(
    record: dict[str, Any], labels: Sequence[str], judged: Sequence[Judged],
    drawn: Sequence[Figure], turning: dict[str, Any] | None,
) -> str:  # fmt: skip
    """Put everything into the page; `turning`: showers (mm, MeV) to turn, None for none."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sigmas"] = lambda x: f"{x:+.1f}".replace("-", "\u2212")
    environment.filters["pretty"] = _pretty
    environment.filters["typeset"] = _typeset
    environment.filters["sentence"] = lambda x: x[:1].upper() + x[1:]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    # Safe: matplotlib writes text as outlines, and in JSON no tag can be closed.
    inlined = json.dumps(turning, ensure_ascii=False).replace("<", "\\u003c")
    return template.render(
        record=record,
        labels=labels,
        about=_about(record),
        models=[_model(j, model) for j, model in zip(judged, record["models"], strict=True)],
        glance=_glance(judged, record["log_posterior"]),
        kinds=_KINDS,
        heads=_HEADS,
        tall=_TALL,
        figures=[{**asdict(f), "svg": Markup(f.svg)} for f in drawn],
        showers=Markup(inlined) if turning else None,
        plotly=packed_plotly() if turning else "",
    )


def _about(record: dict[str, Any]) -> str:
    """One line on the reference and the number of showers in every file; energies in GeV."""
    first = record["files"][0]
    energy = " to ".join(f"{e / 1e3:.3g}" for e in first["energy_mev"])
    theta = " to ".join(f"{angle:.3g}" for angle in first["theta_rad"])
    counts = ", ".join(
        f"{f['showers']} {f['label']}"
        + (f" by the model {model}" if (model := f["provenance"].get("model")) else "")
        for f in record["files"]
    )
    codes = ", ".join(map(str, first["pdg"]))
    what = f", PDG code {codes}" if codes else ""
    where = f", theta {theta} rad" if theta else ""
    name = first["detector"] or "Unnamed detector"
    return f"{name}{what}, {energy} GeV{where}; showers: {counts}."


def _model(judged: Judged, record: dict[str, Any]) -> dict[str, Any]:
    """Everything of one generated sample that the page shows."""
    named = {m.name: m for m in judged.metrics}
    classifiers = [m for m in judged.metrics if m.kind == "classifier"]
    keys = [named[name] for name in _KEYS if name in named]
    keys += [m for m in classifiers if m not in keys]
    return {
        "label": judged.label,
        "verdict": judged.verdict,
        "keys": [_cell(m) for m in keys],
        "rows": _rows(judged.comparison.metrics),
        "challenge": [_cell(m) for m in judged.challenge],
        "trust": _trust(judged) if judged.trust else None,
        "ranges": _ranges(judged) if judged.cells else None,
        "definitions": judged.metrics,
        "seconds": record["seconds"],
        "timing": record["timing"],
        "families": FAMILIES,
    }


def _rows(metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """One row for each observable, with its metrics by kind."""
    rows: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        if metric.kind == "classifier":
            continue
        known = QUANTITIES.get(metric.observable)
        title = known.title if known is not None else metric.title
        row = rows.setdefault(metric.observable, {"title": title, "cells": {}})
        kind = "wasserstein" if metric.kind == "distance" else metric.kind
        row["cells"][kind] = _cell(metric)
    return list(rows.values())


def _ranges(judged: Judged) -> dict[str, Any]:
    """Set the most significant number of every observable in every range into a table."""
    names = {m.observable: m.title for m in judged.comparison.metrics}
    names |= {name: quantity.title for name, quantity in QUANTITIES.items()}
    heads = [f"{_two(c.energy[0] / 1e3)}–{_two(c.energy[1] / 1e3)}" for c in judged.cells]
    angles = [f"{c.theta[0]:.2f}–{c.theta[1]:.2f}" for c in judged.cells]
    rows = [
        {"title": names[name], "cells": [None if m is None else _cell(m) for m in row]}
        for name, row in worst_by_observable(judged.cells).items()
    ]
    return {"energies": heads, "angles": angles, "rows": rows}


def _cell(metric: Metric) -> dict[str, Any]:
    """Format one metric for a table, with a class for how far it lies beyond the floor."""
    level = "far" if metric.size > 5 else "off" if metric.size > THRESHOLD else "fine"
    differs = metric.matched is not None and metric.matched != metric.value
    return {
        "name": metric.name,
        "title": metric.title,
        "value": _pretty(with_error(metric.value, metric.error)),
        "matched": _pretty(f"{metric.matched:.4g}") if differs else "",
        "floor": _pretty(with_error(metric.floor, metric.floor_error)),
        "unit": "" if metric.unit == "1" else metric.unit,
        "sigmas": metric.sigmas,
        "level": level,
        "definition": metric.definition,
    }


def _glance(judged: Sequence[Judged], contest: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows of the table that sets several models side by side; empty for a single one."""
    if len(judged) < 2:
        return []
    named = [{m.name: m for m in j.metrics} for j in judged]
    rows = [
        {"title": named[0][name].title, "unit": named[0][name].unit.replace("1", ""),
         "definition": named[0][name].definition, "cells": [_cell(n[name]) for n in named]}
        for name in _GLANCE
        if name in named[0]
    ]  # fmt: skip
    numbers = [contest[j.label] for j in judged]
    chance = f"{contest['chance']['value']:.3f}"
    rows.append(
        {
            "title": "Mean log-posterior for Geant4", "unit": "",
            "definition": "a network that learnt whose a shower is, asked of Geant4 showers; "
            f"{chance} where the models cannot be told apart, and higher is better",
            "cells": [
                {"value": _pretty(with_error(x["value"], x["error"])), "matched": "",
                 "floor": _pretty(chance), "sigmas": None, "level": "fine", "unit": ""}
                for x in numbers
            ],
        }
    )  # fmt: skip
    return rows


# --- the map of trust -------------------------------------------------------------------------

_WORDS = {"yes": "agrees", "no": "out", "open": "open"}


def _trust(judged: Judged) -> dict[str, Any]:
    """Turn the map of trust into a table: columns of energy (GeV), rows of theta."""
    trust = judged.trust
    assert trust is not None
    n_rows, n_columns = trust.shape
    grid = [trust.cells[i * n_columns : (i + 1) * n_columns] for i in range(n_rows)]
    return {
        "columns": [f"{_two(c.energy[0] / 1e3)}–{_two(c.energy[1] / 1e3)} GeV" for c in grid[0]],
        "rows": [
            {"title": f"θ {row[0].theta[0]:.2f}–{row[0].theta[1]:.2f}",
             "cells": [_trust_cell(c) for c in row]}
            for row in grid
        ],
        "whole": [_check(c) for c in trust.whole.checks],
        "needed": _needed(trust.whole),
    }  # fmt: skip


def _two(value: float) -> str:
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def _trust_cell(cell: Cell) -> dict[str, Any]:
    checks = sorted(cell.checks, key=lambda c: -(abs(c.difference) / c.tolerance))
    telling = [c for c in checks if c.answer == cell.answer] or checks
    return {
        "answer": cell.answer,
        "word": _WORDS[cell.answer],
        "n": cell.n,
        "telling": [_check(c) for c in telling[:1]] if cell.answer != "yes" else [],
        "checks": [_check(c) for c in cell.checks],
    }


def _check(check: Check) -> dict[str, str]:
    sign = "+" * (check.difference >= 0)
    number = with_error(100 * check.difference, 100 * check.error)
    floor = with_error(100 * check.floor, 100 * check.floor_error)
    return {
        "title": check.title, "answer": check.answer, "word": _WORDS[check.answer],
        "number": _pretty(f"{sign}{number} %"), "floor": _pretty(f"{floor} %"),
        "tolerance": f"{100 * check.tolerance:g} %",
    }  # fmt: skip


def _needed(whole: Cell) -> str:
    """How many showers would decide what is open, if the differences stay what they are."""
    wanted = 0.0
    for check in whole.checks:
        gap = check.tolerance - abs(check.difference)
        if check.answer == "open" and check.error > 0 and gap != 0:
            wanted = max(wanted, min(whole.n) * (1.645 * check.error / gap) ** 2)
    if not 0 < wanted < 1e7:
        return ""
    return (
        f"If the differences stay what they are, about {float(f'{wanted:.2g}'):,.0f} showers in "
        "either file would decide what is open in the table; each cell of the map wants as many."
    )


# --- typography -------------------------------------------------------------------------------


def _pretty(text: object) -> str:
    """Turn the plain signs of numbers into typographic ones: minus and powers of ten."""
    power = re.compile(r"([\d)])e([-+]\d+)")
    plain = power.sub(lambda m: f"{m[1]} \u00d7 10{_raised(m[2])}", str(text))
    return re.sub(r"(?<![A-Za-z])-(?=\d)", "\u2212", _keep_together(plain))


def _raised(power: str) -> str:
    return str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


_SIGNS = {
    "sum(": "\u03a3(", "^2": "\u00b2", "_(k+1)": "\u2096\u208a\u2081", "_k": "\u2096",
    "<z>": "\u27e8z\u27e9", "<r>": "\u27e8r\u27e9", " phi": " \u03c6", " - ": " \u2212 ",
}  # fmt: skip


def _typeset(text: str) -> str:
    """Turn the plain signs of a formula into those of a book."""
    for plain, sign in _SIGNS.items():
        text = text.replace(plain, sign)
    return text


def _keep_together(text: str) -> str:
    """Let no line break fall between a number and its error or unit."""
    return re.sub(r" (±|%|sigma\b) ?", lambda m: m[0].replace(" ", "\u00a0", 1), text).replace(
        "± ", "±\u00a0"
    )
