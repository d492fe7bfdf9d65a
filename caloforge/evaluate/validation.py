"""A validation: generated samples against Geant4, measured, compared, judged, drawn and written.

`validate` is the verb. It reads every file in blocks, compares each generated sample with the
reference beside the floor, scores it as the CaloChallenge does, and writes ``metrics.json`` (every
number, energies in MeV, lengths in mm, angles in rad) and ``report.html`` (for a reader). Both
files appear together and whole, or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.errors import RequestError
from caloforge.evaluate.binning import Binning
from caloforge.evaluate.cells import CellMetrics, in_cells
from caloforge.evaluate.challenge import ChallengeFeatures, challenge_features, voxel_edges
from caloforge.evaluate.compare import MIN_SHOWERS, Comparison, compare, trees_metric
from caloforge.evaluate.contest import CLASSIFIERS, network_metrics, posterior
from caloforge.evaluate.metric import Metric
from caloforge.evaluate.observables import CUT_MEV, Observables, measure
from caloforge.evaluate.samples import choose
from caloforge.evaluate.scoreboard import (
    Board,
    distance_metrics,
    neighbour_metrics,
    separation_metrics,
)
from caloforge.evaluate.trust import TOLERANCES, TrustMap, chart
from caloforge.evaluate.verdict import THRESHOLD, Verdict, conditions, judge, judge_all
from caloforge.files import atomic_path, claimed_folder
from caloforge.progress import progress

if TYPE_CHECKING:
    from caloforge.evaluate.metrics import Estimate
    from caloforge.showers.native import ShowerSource

__all__ = ["FORMAT", "Clock", "Judged", "Options", "model_record", "named_classifiers", "validate",
           "write"]  # fmt: skip

FORMAT = 2  # of metrics.json


@dataclass(frozen=True)
class Options:
    """What to do, and how.

    seed: of subsets, bootstrap, folds and networks; cut_mev: deposits below it (MeV) count as
    empty; classifiers: of `CLASSIFIERS`; trainings: networks a classifier is a mean over;
    neighbours: most showers for precision, recall, density and coverage, 0 for none; tolerances: of
    the map of trust, relative. Raises `RequestError` for what is not possible.
    """

    seed: int = 0
    cut_mev: float = CUT_MEV
    classifiers: tuple[str, ...] = ("trees",)
    trainings: int = 10
    neighbours: int = 5000
    tolerances: Mapping[str, float] = field(default_factory=lambda: dict(TOLERANCES))

    def __post_init__(self) -> None:
        """Refuse what is not possible."""
        if self.trainings < 1 or self.neighbours < 0:
            raise RequestError("give at least 1 training, and 0 or more showers for neighbours")


def named_classifiers(text: str) -> tuple[str, ...]:
    """Read ``trees,voxels``, ``all`` or ``none`` (no unit).

    Raises `RequestError` for a name that is none of `CLASSIFIERS`.
    """
    if text.strip() in ("all", "none"):
        return tuple(CLASSIFIERS) if text.strip() == "all" else ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in CLASSIFIERS]
    if unknown:
        known = ", ".join(CLASSIFIERS)
        raise RequestError(f"no classifier is called '{unknown[0]}'; known: {known}, all, none")
    return names


@dataclass(frozen=True, eq=False)
class Judged:
    """One generated sample with all that was found; separations and seconds as plain values."""

    label: str
    comparison: Comparison
    trust: TrustMap | None
    cells: list[CellMetrics]
    challenge: list[Metric]
    separations: list[dict[str, Any]]
    seconds: dict[str, float]
    verdict: Verdict = field(default_factory=lambda: Verdict("", "", ""))

    @property
    def metrics(self) -> list[Metric]:
        """All its numbers, those of the challenge last."""
        return [*self.comparison.metrics, *self.challenge]


def validate(
    reference: ShowerSource,
    generated: ShowerSource | Sequence[ShowerSource],
    out: Path,
    floor: ShowerSource | None = None,
    *,
    labels: Sequence[str] = ("Geant4", "generated"),
    options: Options | None = None,
    timings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare generated with reference showers; write ``metrics.json`` and ``report.html``.

    `generated`: one sample or several; `out`: the folder, made if needed; `floor`: a second Geant4
    sample (else the reference is halved); `labels` name the reference and each generated sample;
    `timings`: by label, what `caloforge timing` wrote (ms per shower). Returns what
    ``metrics.json`` holds: energies in MeV, lengths in mm, angles in rad. Raises `RequestError` for
    files on different meshes, too few showers, or a folder that cannot be written; nothing is left
    behind then.
    """
    from caloforge.evaluate.report import page

    wanted = options or Options()
    several = list(generated) if isinstance(generated, Sequence) else [generated]
    _check(reference, several, floor, labels)
    with claimed_folder(Path(out)):
        work = _Work(reference, several, floor, labels, wanted)
        judged, warnings = work.judged(), work.warnings()
        contest = work.contest(judged)
        judged = [_with_verdict(j, work, warnings) for j in judged]
        verdict = judge_all(judged, labels[0], contest)
        record = _record(work, judged, verdict, warnings, contest, timings or {})
        write(Path(out), record, page(record, work.sources, work.samples, judged, work.floor_own))
    return record


def _check(
    reference: ShowerSource, generated: Sequence[ShowerSource], floor: ShowerSource | None,
    labels: Sequence[str],
) -> None:  # fmt: skip
    """Refuse what cannot be compared before any work is done."""
    if not generated:
        raise RequestError("name at least one file of generated showers")
    if len(labels) != 1 + len(generated) or len(set(labels)) != len(labels):
        raise RequestError(
            f"{1 + len(generated)} samples need as many different labels, not "
            f"{', '.join(labels)}; name the generated ones with --label"
        )
    least = 2 * MIN_SHOWERS if floor is None else MIN_SHOWERS
    named = [("reference", reference), *(("generated", g) for g in generated)]
    for name, source in [*named, *([("floor", floor)] if floor is not None else [])]:
        if source.mesh != reference.mesh:
            raise RequestError(
                f"the {name} showers are on a mesh of {_mesh(source)}, the reference on "
                f"{_mesh(reference)}; compare files of one mesh"
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


class _Work:
    """All samples of a validation, measured once: the reference first, the floor last."""

    def __init__(
        self, reference: ShowerSource, generated: Sequence[ShowerSource],
        floor: ShowerSource | None, labels: Sequence[str], options: Options,
    ) -> None:  # fmt: skip
        self.labels, self.options = list(labels), options
        self.floor_own = floor is not None
        self.sources = [reference, *generated, *([floor] if floor is not None else [])]
        self.names = [*labels, f"{labels[0]} (floor)"][: len(self.sources)]
        self.samples = [self._measured(k) for k in range(len(self.sources))]
        self.binning = Binning.of_mesh(reference.mesh, options.cut_mev)
        edges = voxel_edges(reference, self.binning)
        self.features = [self._featured(k, edges) for k in range(len(self.sources))]
        self.memo: dict[tuple[str, int], Any] = {}

    def _measured(self, k: int) -> Observables:
        with progress(f"measuring {self.names[k]}", len(self.sources[k]), "showers") as advance:
            return measure(self.sources[k], self.options.cut_mev, advance=advance)

    def _featured(self, k: int, edges: Any) -> ChallengeFeatures:
        what = f"features of {self.names[k]}"
        with progress(what, len(self.sources[k]), "showers") as advance:
            return challenge_features(self.sources[k], self.binning, edges, advance)

    @property
    def floor(self) -> Observables | None:
        """The floor's sample where it has a file of its own."""
        return self.samples[-1] if self.floor_own else None

    def board(self, k: int) -> Board:
        """Features for the challenge's numbers of the k-th sample."""
        floor = self.features[-1] if self.floor_own else None
        return Board(self.features[0], self.features[k], floor, self.options.seed, memo=self.memo)

    def judged(self) -> list[Judged]:
        """Compare every generated sample."""
        return [self._judge(k) for k in range(1, len(self.labels))]

    def _judge(self, k: int) -> Judged:
        options, clock = self.options, Clock()
        first, second = self.samples[0], self.samples[k]
        board, sources = self.board(k), self._trio(k)
        with progress(f"comparing {self.labels[k]}", 5, "parts") as advance:
            comparison = compare(first, second, self.floor, seed=options.seed, trees=False)
            clock.lap("observables", advance)
            setting = choose(first, second, self.floor, options.seed, 0)
            trust = chart(setting, options.tolerances)
            cells = in_cells(first, second, self.floor, trust.cells, options.seed)
            clock.lap("ranges of energy and angle", advance)
            found, single = separation_metrics(board)
            clock.lap("histograms of the challenge", advance)
            found += distance_metrics(board)
            clock.lap("FPD and KPD", advance)
            if options.neighbours:
                found += neighbour_metrics(board, sources, options.neighbours)
            clock.lap("neighbours", advance)
        for name in options.classifiers:
            if name == "trees":
                trees = trees_metric(setting, seed=options.seed)
                comparison = replace(comparison, metrics=[trees, *comparison.metrics])
            else:
                found += network_metrics(name, board, sources, options.trainings)
            clock.lap(f"classifier on {name}")
        return Judged(self.labels[k], comparison, trust, cells, found, single, clock.seconds)

    def _trio(self, k: int) -> tuple[ShowerSource, ShowerSource, ShowerSource | None]:
        return self.sources[0], self.sources[k], self.sources[-1] if self.floor_own else None

    def contest(self, judged: Sequence[Judged]) -> dict[str, Estimate]:
        """Mean log-posterior of every sample for Geant4 showers; empty with a single one."""
        if len(judged) < 2:
            return {}
        return posterior(self.features, self.labels, self.options)

    def warnings(self) -> list[str]:
        """Sentences on everything but the physics that differs between the files."""
        found = []
        for k in range(1, len(self.sources)):
            first, second = self.sources[0].detector, self.sources[k].detector
            name = "floor" if k >= len(self.labels) else self.labels[k]
            if first is not None and second is not None and first != second:
                same = " (same name, other contents)" * (first.name == second.name)
                found.append(
                    f"The {name} showers are of detector '{second.name}', the reference of "
                    f"'{first.name}'{same}."
                )
            found += _made(self.sources[0].provenance, self.sources[k].provenance, name)
            found += conditions(self.samples[0], self.samples[k], name)
        return found


_SIMULATION = {"geant4": "Geant4", "physics": "physics", "data": "data sets", "cut_mm": "cuts (mm)"}


def _made(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> list[str]:
    """Sentences on how two Geant4 samples were simulated otherwise, where both say it."""
    return [
        f"The {name} showers were made with {what} '{second[key]}', the reference with "
        f"'{first[key]}'."
        for key, what in _SIMULATION.items()
        if key in first and key in second and first[key] != second[key]
    ]


class Clock:
    """Seconds of each part of the work, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, what: str, advance: Any = None) -> None:
        """Note the seconds since the last lap under a name; call `advance(1)` if there is one."""
        now = time.monotonic()
        self.seconds[what] = round(now - self._last, 3)
        self._last = now
        if advance is not None:
            advance(1)


def _with_verdict(judged: Judged, work: _Work, warnings: Sequence[str]) -> Judged:
    verdict = judge(
        judged.comparison, (work.labels[0], judged.label), judged.trust, judged.challenge,
        about=about(work.sources[0], work.samples[0]), warned=bool(warnings),
    )  # fmt: skip
    return replace(judged, verdict=verdict)


def about(source: ShowerSource, sample: Observables) -> str:
    """One line on a sample: detector, particles, energies in GeV, theta in rad."""
    energy = "-".join(dict.fromkeys(f"{e / 1e3:.3g}" for e in _ends(sample.energy)))
    theta = "-".join(dict.fromkeys(f"{angle:.3g}" for angle in _ends(sample.theta)))
    codes = ", ".join(str(int(code)) for code in np.unique(sample.pdg))
    names = {"11": "e-", "-11": "e+", "22": "photons"}
    name = source.detector.name if source.detector is not None else "unnamed detector"
    return f"{name}, {names.get(codes, f'PDG code {codes}')} of {energy} GeV, theta {theta} rad"


def _ends(values: Any) -> tuple[float, float]:
    return float(values.min()), float(values.max())


# --- for a machine ----------------------------------------------------------------------------


def _record(
    work: _Work, judged: Sequence[Judged], verdict: Verdict, warnings: Sequence[str],
    contest: Mapping[str, Estimate], timings: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Everything as plain JSON values."""
    first = judged[0].comparison
    return {
        "format": FORMAT,
        "verdict": asdict(verdict),
        "warnings": list(warnings),
        "seed": work.options.seed,
        "cut_mev": work.options.cut_mev,
        "sample_size": first.size,
        "floor": first.floor_from,
        "threshold_sigmas": THRESHOLD,
        "tolerances": dict(work.options.tolerances),
        "models": [model_record(j, timings.get(j.label)) for j in judged],
        "log_posterior": {name: asdict(value) for name, value in contest.items()},
        "files": [
            _file(name, source, sample)
            for name, source, sample in zip(work.names, work.sources, work.samples, strict=True)
        ],
    }


def model_record(judged: Judged, timing: Any) -> dict[str, Any]:
    """Everything of one generated sample as plain JSON values (MeV, rad; timing in ms)."""
    comparison = judged.comparison
    return {
        "label": judged.label,
        "verdict": asdict(judged.verdict),
        "metrics": [asdict(m) for m in judged.metrics],
        "layers": [asdict(m) for m in comparison.layers],
        "energy_bins": [_bin(pair, "mev") for pair in comparison.bins],
        "angle_bins": [_bin(pair, "rad") for pair in comparison.angles],
        "resolution_fit": {
            name: None if fit is None else asdict(fit)
            for name, fit in zip(("reference", "generated"), comparison.fits, strict=True)
        },
        "trust": asdict(judged.trust) if judged.trust else None,
        "cells": [asdict(cell) for cell in judged.cells],
        "challenge_separations": judged.separations,
        "seconds": judged.seconds,
        "timing": timing,
    }


def _bin(pair: tuple[Any, Any], unit: str) -> dict[str, Any]:
    first, second = pair
    ends = {f"low_{unit}": first.low, f"high_{unit}": first.high}
    return {**ends, "reference": asdict(first), "generated": asdict(second)}


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


def write(out: Path, record: dict[str, Any], page: str) -> None:
    """Write ``metrics.json`` and ``report.html`` (no unit) together and whole."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_path(out / "report.html") as html, atomic_path(out / "metrics.json") as numbers:
        html.write_text(page, encoding="utf-8")
        numbers.write_text(text + "\n", encoding="utf-8")
