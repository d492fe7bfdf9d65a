"""The report of a validation: one page that opens from disk, and the same numbers for a machine.

`validate` measures, compares, draws and writes. Both files appear together and whole, or not at
all. The page needs no network and no script: figures are inlined, colours follow light and dark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.errors import RequestError
from caloforge.evaluate.compare import MIN_SHOWERS, Comparison, Metric, compare
from caloforge.evaluate.observables import CUT_MEV, QUANTITIES, Observables, measure
from caloforge.evaluate.plots import Figure, figures
from caloforge.evaluate.verdict import THRESHOLD, Verdict, conditions, judge, with_error
from caloforge.files import atomic_path, claimed_folder
from caloforge.progress import progress

if TYPE_CHECKING:
    from caloforge.showers.native import ShowerSource

__all__ = ["FORMAT", "validate"]

FORMAT = 1  # of metrics.json
_TEMPLATE = Path(__file__).with_name("report.html.j2")
_KINDS = ("difference", "separation", "wasserstein")


def validate(
    reference: ShowerSource,
    generated: ShowerSource,
    out: Path,
    floor: ShowerSource | None = None,
    *,
    seed: int = 0,
    cut_mev: float = CUT_MEV,
    labels: tuple[str, str] = ("Geant4", "generated"),
) -> dict[str, Any]:
    """Compare generated with reference showers; write ``metrics.json`` and ``report.html``.

    `out` is the folder, made if needed; `floor` a second Geant4 sample (else the reference is
    halved); deposits below `cut_mev` (MeV) count as empty; `labels` name reference and generated.
    Returns what ``metrics.json`` holds: energies in MeV, lengths in mm, angles in rad. Raises
    `RequestError` for files on different meshes, too few showers, or a folder that cannot be
    written; nothing is left behind then.
    """
    sources = [reference, generated, *([floor] if floor is not None else [])]
    _check(sources)
    with claimed_folder(Path(out)):
        names = [*labels, f"{labels[0]} (floor)"][: len(sources)]
        samples = [
            _measured(source, cut_mev, name) for source, name in zip(sources, names, strict=True)
        ]
        comparison = compare(*samples, seed=seed)
        warnings = _warnings(sources, samples)
        verdict = judge(comparison, labels, warned=bool(warnings))
        record = _record(comparison, verdict, warnings, seed, cut_mev)
        record["files"] = [
            _file(name, source, sample)
            for name, source, sample in zip(names, sources, samples, strict=True)
        ]
        drawn = _draw(list(zip(labels, samples[:2], strict=True)), comparison)
        page = _page(record, comparison, drawn, labels)
        _write(Path(out), record, page)
    return record


def _check(sources: Sequence[ShowerSource]) -> None:
    """Refuse what cannot be compared before any work is done."""
    least = MIN_SHOWERS if len(sources) == 3 else 2 * MIN_SHOWERS
    for name, source in zip(("reference", "generated", "floor"), sources, strict=False):
        if source.mesh != sources[0].mesh:
            raise RequestError(
                f"the {name} showers are on a mesh of {_mesh(source)}, the reference on "
                f"{_mesh(sources[0])}; compare files of one mesh"
            )
        wanted = least if name == "reference" else MIN_SHOWERS
        if len(source) < wanted:
            raise RequestError(
                f"{len(source)} {name} showers are too few to compare; give at least {wanted}"
                + (", or a floor file" if wanted > MIN_SHOWERS else "")
            )


def _mesh(source: ShowerSource) -> str:
    mesh = source.mesh
    shape = " x ".join(str(n) for n in mesh.shape)
    return f"{shape} cells of {mesh.cell_r_mm:g} mm (r) and {mesh.cell_z_mm:g} mm (z)"


def _measured(source: ShowerSource, cut_mev: float, name: str) -> Observables:
    with progress(f"measuring {name}", len(source), "showers") as advance:
        return measure(source, cut_mev, advance=advance)


def _draw(samples: list[tuple[str, Observables]], comparison: Comparison) -> list[Figure]:
    drawn = []
    with progress("drawing", len(QUANTITIES) + 8, "figures") as advance:
        for figure in figures(samples, comparison.bins):
            drawn.append(figure)
            advance(1)
    return drawn


def _warnings(sources: Sequence[ShowerSource], samples: Sequence[Observables]) -> list[str]:
    """Sentences on everything but the physics that differs between the files."""
    found = []
    for name, source, sample in zip(("generated", "floor"), sources[1:], samples[1:], strict=False):
        first, second = sources[0].detector, source.detector
        if first is not None and second is not None and first != second:
            found.append(
                f"The {name} showers are of detector '{second.name}', the reference of "
                f"'{first.name}'{' (same name, other contents)' * (first.name == second.name)}."
            )
        found += conditions(samples[0], sample, name)
    return found


# --- for a machine ----------------------------------------------------------------------------


def _record(
    comparison: Comparison, verdict: Verdict, warnings: list[str], seed: int, cut_mev: float
) -> dict[str, Any]:
    """Everything of the comparison as plain JSON values."""
    return {
        "format": FORMAT,
        "verdict": asdict(verdict),
        "warnings": warnings,
        "seed": seed,
        "cut_mev": cut_mev,
        "sample_size": comparison.size,
        "floor": comparison.floor_from,
        "threshold_sigmas": THRESHOLD,
        "metrics": [asdict(m) for m in comparison.metrics],
        "layers": [asdict(m) for m in comparison.layers],
        "energy_bins": [
            {"low_mev": r.low, "high_mev": r.high, "reference": asdict(r), "generated": asdict(g)}
            for r, g in comparison.bins
        ],
    }


def _file(name: str, source: ShowerSource, sample: Observables) -> dict[str, Any]:
    """Describe a file by what it says about itself."""
    path = getattr(source, "path", None)
    return {
        "label": name,
        "file": Path(path).name if path else "",
        "showers": len(sample),
        "detector": source.detector.name if source.detector is not None else "",
        "mesh": _mesh(source),
        "energy_mev": [float(sample.energy.min()), float(sample.energy.max())],
        "theta_rad": [float(sample.theta.min()), float(sample.theta.max())],
        "pdg": [int(code) for code in np.unique(sample.pdg)],
        "mean_sparsity": float(sample.sparsity.mean()),
        "provenance": json.loads(json.dumps(source.provenance, default=str)),
    }


def _write(out: Path, record: dict[str, Any], page: str) -> None:
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_path(out / "report.html") as html, atomic_path(out / "metrics.json") as numbers:
        html.write_text(page, encoding="utf-8")
        numbers.write_text(text + "\n", encoding="utf-8")


# --- for a reader -----------------------------------------------------------------------------


def _page(
    record: dict[str, Any], comparison: Comparison, drawn: list[Figure], labels: tuple[str, str]
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sigmas"] = lambda x: f"{x:+.1f}".replace("-", "\u2212")
    environment.filters["pretty"] = _pretty
    environment.filters["typeset"] = _typeset
    environment.filters["sentence"] = lambda x: x[:1].upper() + x[1:]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        record=record,
        about=_about(record["files"]),
        labels=labels,
        keys=_key_figures(comparison.metrics),
        rows=_rows(comparison.metrics),
        kinds=_KINDS,
        # Safe: matplotlib writes text as outlines and escapes what it repeats.
        figures=[{**asdict(f), "svg": Markup(f.svg)} for f in drawn],
    )


def _about(files: Sequence[dict[str, Any]]) -> str:
    """One line on what is compared: detector, particles, energies in GeV, theta in rad, numbers."""
    first = files[0]
    energy = " to ".join(f"{e / 1e3:.3g}" for e in first["energy_mev"])
    theta = " to ".join(f"{angle:.3g}" for angle in first["theta_rad"])
    counts = ", ".join(f"{f['showers']} {f['label']}" for f in files)
    model = files[1]["provenance"].get("model", "")
    codes = ", ".join(map(str, first["pdg"]))
    return (
        f"{first['detector'] or 'Unnamed detector'}, PDG code {codes}, {energy} GeV, theta {theta} "
        f"rad; showers: {counts}{f' by the model {model}' if model else ''}."
    )


def _key_figures(metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    wanted = ("classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio")
    return [_cell(m) for name in wanted for m in metrics if m.name == name]


def _rows(metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """One row for each observable, with its metrics by kind."""
    rows: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        if metric.kind == "classifier":
            continue
        known = QUANTITIES.get(metric.observable)
        title = known.title if known is not None else metric.title
        row = rows.setdefault(metric.observable, {"title": title, "cells": {}})
        row["cells"][metric.kind] = _cell(metric)
    return list(rows.values())


def _cell(metric: Metric) -> dict[str, Any]:
    """Format one metric for a table, with a class for how far it lies beyond the floor."""
    size = metric.sigmas if metric.ideal is None else abs(metric.sigmas)
    level = "far" if size > 5 else "off" if size > THRESHOLD else "fine"
    return {
        "title": metric.title,
        "value": _pretty(with_error(metric.value, metric.error)),
        "floor": _pretty(with_error(metric.floor, metric.floor_error)),
        "unit": "" if metric.unit == "1" else metric.unit,
        "sigmas": metric.sigmas,
        "level": level,
        "definition": metric.definition,
    }


def _pretty(text: object) -> str:
    """Turn the plain signs of numbers into typographic ones: minus and powers of ten."""
    plain = str(text)
    head, mark, power = plain.partition(")e")
    if mark:
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        plain = f"{head}) \u00d7 10{raised}"
    return re.sub(r"(?<![A-Za-z])-(?=\d)", "\u2212", _keep_together(plain))


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
