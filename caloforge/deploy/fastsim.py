"""The fast simulation: a Geant4 event loop in which a model makes the electromagnetic showers.

Primaries start at the origin as in `caloforge simulate`, with the same seeds. Electrons, positrons
and photons in the model's range are stopped where they enter the calorimeter, generated in one
batch an event, and their energies scored with those that Geant4 leaves itself (see `gate`).
Everybody else is simulated in full, in the same event. The run's seed determines the file: neither
workers nor interruptions matter. Beside the file a summary is written: every particle that entered
and its energy, by what became of it. With `compare` the same events are simulated in full in the
same run, for a ratio of processor times and a validation.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.deploy.against import agreement, ratio, totals
from caloforge.deploy.books import read
from caloforge.deploy.maker import open_maker
from caloforge.deploy.worker import NAME
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.showers.native import ShowerFile, ShowerSource
from caloforge.showers.showers import concatenate
from caloforge.simulate.beam import NAMES, Beam
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.production import Summary, simulate
from caloforge.simulate.worker import EngineRef

__all__ = ["Places", "fastsim", "lines"]

SECONDS = 0.1  # a shower from a model, roughly; only sets the size of shards
FEWEST = 40  # events that a validation needs


@dataclass(frozen=True)
class Places:
    """The files of a run, named after its showers."""

    out: Path

    @property
    def summary(self) -> Path:
        """The books, in JSON."""
        return self.out.with_name(f"{self.out.stem}.json")

    @property
    def full(self) -> Path:
        """The same events, simulated in full."""
        return self.out.with_name(f"{self.out.stem}-full.h5")

    @property
    def report(self) -> Path:
        """Folder of the validation."""
        return self.out.with_name(f"{self.out.stem}-report")


def fastsim(
    model: str | Path,
    detector: Detector,
    out: Path,
    n: int,
    beam: Beam,
    *,
    seed: int = 0,
    steps: int | None = None,
    above_mev: float = 0.0,
    workers: int = 1,
    resume: bool = False,
    extrapolate: bool = False,
    compare: bool = False,
    physics: str = "em0",
    command: str = "",
) -> dict[str, Any]:
    """Simulate `n` events of `beam` in `detector` with a model in Geant4's event loop.

    `model`: a shipped one, a checkpoint folder or an exported ``.onnx`` file; `steps` of its
    sampler; `above_mev`: particles below stay with Geant4; `extrapolate`: allow a detector unlike
    those trained on (a particle out of range stays with Geant4 all the same); `physics` and the
    rest as in `simulate`. Returns the summary that is written beside `out`: energies in MeV, times
    in s. Raises `RequestError` for what cannot be done, before anything runs, and `WorkError` when
    a worker dies; `resume` then goes on.
    """
    if detector.gdml is not None:
        raise RequestError(
            f"'{detector.name}' is a GDML geometry; fastsim places showers in cylinders: leave "
            "[gdml] out and describe it as a [stack]"
        )
    if compare and n < FEWEST:
        raise RequestError(f"a validation needs at least {FEWEST} events, not {n}")
    if above_mev < 0 or not np.isfinite(above_mev):
        raise RequestError("the energy from which the model is used must not be negative")
    _check_places(Places(out), compare, resume)
    maker = open_maker(model, steps)
    maker.check(detector, extrapolate)
    told = {**maker.info, "steps": steps, "above_mev": above_mev}
    engine = EngineRef(NAME, "caloforge.deploy.worker", told, geant4=True, seconds=SECONDS)
    common: dict[str, Any] = dict(
        particle=beam.particle, energy_mev=beam.energy, theta=beam.theta, phi=beam.phi, seed=seed,
        workers=workers, physics=physics, command=command,
    )  # fmt: skip
    fast = simulate(detector, out, n, engine=engine, resume=resume, **common)
    found = _summary(fast)
    if compare:
        full = simulate(detector, Places(out).full, n, engine="geant4", resume=resume, **common)
        found["compared"] = _compared(Places(out), found, full, seed)
    with atomic_path(Places(out).summary) as sibling:
        sibling.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


def _check_places(places: Places, compare: bool, resume: bool) -> None:
    """Refuse places that could not be written in the end."""
    wanted = [places.summary, *([places.full, places.report] if compare else [])]
    if places.out in wanted:
        raise RequestError(f"'{places.out}' is for the showers: give it the ending .h5")
    for path in wanted[:2]:
        if path.is_dir():
            raise RequestError(f"'{path}' is a folder; it would be written as a file")
    left = parts_folder(places.full)
    if compare and left.exists() and not resume:
        raise RequestError(
            f"'{left}' is left from an unfinished run: go on with --resume, or delete it"
        )


def _summary(fast: Summary) -> dict[str, Any]:
    """The books and the time of a run, from the provenance of its file."""
    with ShowerFile(fast.path) as file:
        told = file.provenance
    kept = ("model", "model_sha256", "steps", "above_mev", "seed")
    settings = {key: told["settings"][key] for key in kept if key in told["settings"]}
    return {
        "file": str(fast.path), "events": fast.events, **settings,
        "seconds_per_event": _time(told), "books": told["sums"],
    }  # fmt: skip


def _time(provenance: dict[str, Any]) -> dict[str, float]:
    return {"value": provenance["seconds_per_event"], "error": provenance["seconds_error"]}


def _compared(places: Places, fast: dict[str, Any], full: Summary, seed: int) -> dict[str, Any]:
    """Measure a run against the full simulation of its events; writes the report."""
    with closing(ShowerFile(places.out)) as ours, closing(ShowerFile(full.path)) as theirs:
        found = totals(ours, theirs)
        chosen = np.flatnonzero(found.differ)
        verdict = _validated(ours, theirs, chosen, places.report) if len(chosen) >= FEWEST else None
        seconds = _time(theirs.provenance)
    return {
        "file": str(full.path), "seconds_per_event": seconds,
        "time_fast_over_full": ratio(fast["seconds_per_event"], seconds),
        "events_that_differ": len(chosen),
        "events_with_a_part_of_the_model": round(fast["books"]["touched"]),
        "visible_fast_over_full": agreement(found, seed),
        "report": str(places.report / "report.html") if verdict else None, "verdict": verdict,
    }  # fmt: skip


def _validated(
    ours: ShowerSource, theirs: ShowerSource, chosen: Any, report: Path
) -> dict[str, str]:
    """Validate the chosen events; returns the verdict."""
    from caloforge.evaluate.validation import validate

    fast, full = (_some(source, chosen) for source in (ours, theirs))
    record = validate(full, fast, report, labels=("Geant4", "fast simulation"))
    return dict(record["verdict"])


def _some(source: ShowerSource, chosen: Any) -> Any:
    size = 1000
    parts = [
        source.read(start, start + size)[
            chosen[(chosen >= start) & (chosen < start + size)] - start
        ]
        for start in range(0, len(source), size)
    ]
    return concatenate(parts)


def lines(found: dict[str, Any]) -> list[str]:
    """Write a summary for a reader: energies in GeV, times in s."""
    time = found["seconds_per_event"]
    said = [f"{found['events']} events in {found['file']}", *read(found["books"]),
            f"processor time: {_with_error(time)} s an event"]  # fmt: skip
    compared = found.get("compared")
    if compared is None:
        return said
    agreed = compared["visible_fast_over_full"]
    said += [
        f"full simulation of the same events: {_with_error(compared['seconds_per_event'])} s, "
        f"fast / full {_with_error(compared['time_fast_over_full'])}",
        f"events that differ: {compared['events_that_differ']}, of "
        f"{compared['events_with_a_part_of_the_model']} in which the model had a part",
    ]
    names = {"mean": "visible energy per event", "spread": "spread of the response",
             "with_leakage": "visible energy with leakage"}  # fmt: skip
    said += [f"{what}, fast / full: {_with_error(agreed[key])}"
             for key, what in names.items() if agreed[key]]  # fmt: skip
    said += [f"  {NAMES[int(code)]}: {_with_error(kind)} ({kind['events']} events)"
             for code, kind in agreed["by_particle"].items() if kind]  # fmt: skip
    if compared["verdict"] is None:
        return [*said, f"no validation: it needs {FEWEST} events with a part of the model"]
    return [*said, compared["verdict"]["headline"], f"report: {compared['report']}"]


def _with_error(number: dict[str, float]) -> str:
    return f"{number['value']:.4g} ± {number['error']:.2g}"
