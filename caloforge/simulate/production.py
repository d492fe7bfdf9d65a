"""Many showers from many processes into one file that does not depend on how many there were.

Each event has its own seed (see `beam`), so any process may simulate any chunk of events. Finished
chunks lie as shards in ``OUT.parts/`` beside the output, each complete or absent; at the end they
are written, in the order of the events, into the one file, and the folder goes. A run killed at any
moment is resumed from the shards that are there: nothing is lost but the chunks in work, nothing is
repeated, and the arrays are those of a run that was never stopped.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from caloforge import __version__
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError, WorkError
from caloforge.files import atomic_path, claimed_folder, digest, locked
from caloforge.progress import progress
from caloforge.simulate.acceptance import check_acceptance
from caloforge.simulate.beam import Beam
from caloforge.simulate.parts import Parts, parts_folder
from caloforge.simulate.physics_data import find_data, require_packages
from caloforge.simulate.pool import work
from caloforge.simulate.worker import EngineRef, Job

__all__ = ["Summary", "simulate"]

Range = tuple[float, float]
ENGINES = {"geant4": EngineRef("geant4", geant4=True), "parametric": EngineRef("parametric")}

# Events per shard: about this much work, so that little is lost when a run is killed.
SHARD_S = 10.0
GEANT4_S_PER_MEV = 1.5e-5  # a rough mean over detectors, 2.5 GHz; only sets the size of shards
MOST_PER_SHARD = 500
FEWEST_SHARDS = 24
MOST_SHOWERS = 10**8


@dataclass(frozen=True)
class Summary:
    """What a simulation did.

    `events` in the file `path` of `size_bytes`; `new_events` of them simulated by this call in
    `wall_s` seconds; `seconds_per_event`: processor time of one event, averaged over all of them;
    `visible_fraction`: mean of visible over incident energy inside the mesh.
    """

    path: Path
    events: int
    new_events: int
    wall_s: float
    seconds_per_event: float
    visible_fraction: float
    size_bytes: int


def simulate(
    detector: Detector,
    path: str | Path,
    n: int,
    *,
    particle: str = "e-",
    energy_mev: Range = (1e3, 1e5),
    theta: Range = (0.87, 2.27),
    phi: Range = (0.0, 2 * math.pi),
    seed: int = 0,
    workers: int = 1,
    resume: bool = False,
    engine: str | EngineRef = "geant4",
    physics: str = "em0",
    dialect: str = "native",
    command: str = "",
    on_events: Callable[[int], None] | None = None,
) -> Summary:
    """Simulate `n` showers in `detector` and write them to `path`.

    Energies are log-uniform in `energy_mev` (MeV), angles uniform in `theta`, `phi` (rad); a range
    of two equal ends is one value. `engine` is ``geant4`` or ``parametric``, or refers to one of a
    room above; `physics` is a key of `geant4.PHYSICS`, `dialect` one of `formats.DIALECTS`;
    `command` is kept in the provenance. The arrays in the file depend on none of `workers`,
    `resume` and `command`. An existing file is replaced when the new one is whole. `on_events` is
    told how many events were finished, instead of a bar that shows it.

    Raises `RequestError` for a request that cannot be met, among them leftovers of an unfinished
    run without `resume` and a resumption with other settings, and `WorkError` when a worker dies or
    the run is interrupted; `resume` then goes on.
    """
    beam = Beam(particle, energy_mev, theta, phi)
    run = _Run(detector, Path(path), n, beam, seed, _engine(engine), physics)
    _check(run, workers, dialect)
    began = time.monotonic()
    finished = run.finished() if resume else None
    if finished is not None:
        return finished
    with claimed_folder(run.path.parent), _parts(run, resume) as parts:
        try:
            new_events = _fill(run, parts, workers, on_events)
            return _merge(run, parts, dialect, command, new_events, began)
        except KeyboardInterrupt:
            raise WorkError(
                f"interrupted: {parts.done()} of {n} showers are kept in '{parts.folder}'; "
                "the same command with --resume goes on"
            ) from None


def _engine(engine: str | EngineRef) -> EngineRef:
    if isinstance(engine, str) and engine not in ENGINES:
        raise RequestError(f"unknown engine '{engine}'; known are {', '.join(ENGINES)}")
    return ENGINES[engine] if isinstance(engine, str) else engine


@dataclass(frozen=True)
class _Run:
    """A checked request."""

    detector: Detector
    path: Path
    n: int
    beam: Beam
    seed: int
    engine: EngineRef
    physics: str

    def settings(self) -> dict[str, Any]:
        """Everything that the arrays depend on."""
        settings: dict[str, Any] = {
            "events": self.n, "seed": self.seed, **asdict(self.beam), "engine": self.engine.name,
            **self.engine.options, "detector": self.detector.to_toml(), "caloforge": __version__,
        }  # fmt: skip
        if self.engine.geant4:
            settings |= {"physics": self.physics, "data": find_data().source}
            settings["geant4-pybind"] = metadata.version("geant4-pybind")
            if self.detector.gdml is not None:
                settings["gdml_sha256"] = digest(self.detector.gdml.file)
        return dict(json.loads(json.dumps(settings)))

    def shard_size(self) -> int:
        """Events per shard: some seconds of work, and enough shards for many workers."""
        low, high = self.beam.energy
        mean = low if low == high else (high - low) / math.log(high / low)
        some_seconds = int(SHARD_S / (mean * GEANT4_S_PER_MEV + self.engine.seconds))
        size = some_seconds if self.engine.geant4 else MOST_PER_SHARD
        return max(1, min(MOST_PER_SHARD, size, math.ceil(self.n / FEWEST_SHARDS)))

    def finished(self) -> Summary | None:
        """Describe the output if this very run was finished before; None if there is work left."""
        if parts_folder(self.path).exists() or not self.path.exists():
            return None
        from caloforge.showers.formats import open_showers

        source = open_showers(self.path)
        try:
            if source.provenance.get("settings") != self.settings():
                raise RequestError(
                    f"'{self.path}' is finished and holds other showers; leave out --resume to "
                    "replace it"
                )
            mean_s = float(source.provenance.get("seconds_per_event", math.nan))
            visible = math.fsum(
                float((block.visible() / block.energy).sum())
                for block in (source.read(i, i + 1000) for i in range(0, self.n, 1000))
            )
        finally:
            source.close()
        size = self.path.stat().st_size
        return Summary(self.path, self.n, 0, 0.0, mean_s, visible / self.n, size)


def _check(run: _Run, workers: int, dialect: str) -> None:
    from caloforge.showers.formats import DIALECTS

    if run.n < 1:
        raise RequestError(f"the number of showers must be at least 1, not {run.n}")
    if run.n > MOST_SHOWERS:
        raise RequestError(f"at most {MOST_SHOWERS} showers a file; make several, with other seeds")
    if workers < 1:
        raise RequestError(f"the number of workers must be at least 1, not {workers}")
    if not 0 <= run.seed < 2**64:
        raise RequestError(f"the seed must be a whole number from 0 to 2^64 - 1, not {run.seed}")
    if dialect not in DIALECTS:
        raise RequestError(f"unknown dialect '{dialect}'; known are {', '.join(DIALECTS)}")
    check_acceptance(run.detector, run.beam)
    if run.engine.geant4:
        _check_geant4(run)
    if run.path.is_dir():
        raise RequestError(f"'{run.path}' is a folder; name a file for the showers")


def _check_geant4(run: _Run) -> None:
    from caloforge.simulate.geant4 import check_physics

    require_packages("geant4_pybind")
    check_physics(run.physics, find_data())
    if run.detector.gdml is not None and not run.detector.gdml.file.is_file():
        raise RequestError(f"there is no GDML file '{run.detector.gdml.file}'; correct [gdml] file")


@contextmanager
def _parts(run: _Run, resume: bool) -> Iterator[Parts]:
    """Open the folder of shards; a request refused before the first shard leaves none."""
    folder, settings = parts_folder(run.path), run.settings()
    if folder.exists() and not resume:
        raise RequestError(
            f"'{folder}' is left from an unfinished run: go on with --resume, or delete it"
        )
    if not folder.exists():
        with atomic_path(folder) as sibling:
            sibling.mkdir()
            text = json.dumps({"settings": settings, "shard": run.shard_size()}, indent=1)
            (sibling / "settings.json").write_text(text)
    with locked(folder):
        parts = Parts(folder, run.detector, settings)
        try:
            yield parts
        except RequestError:
            if not any(parts.has(start) for start in parts.starts):
                shutil.rmtree(folder)
            raise


def _fill(run: _Run, parts: Parts, workers: int, on_events: Callable[[int], None] | None) -> int:
    """Simulate the missing chunks; returns the number of events in them."""
    job = Job(
        detector=run.detector.to_toml(), beam=asdict(run.beam), seed=run.seed,
        engine=run.engine.name, physics=run.physics, parts=str(parts.folder),
        log=str(parts.folder / "worker"), options=run.engine.options, module=run.engine.module,
    )  # fmt: skip
    chunks = [(start, parts.length(start)) for start in parts.starts if not parts.has(start)]
    before = parts.done()
    shown = progress(f"simulating {run.detector.name}", run.n, "showers", before)
    with nullcontext(on_events) if on_events else shown as advance:
        for message in work(job, chunks, workers):
            if "ready" in message:
                parts.describe(message["ready"])
            if message.get("events"):
                advance(message["events"])
    return run.n - before


def _merge(
    run: _Run, parts: Parts, dialect: str, command: str, new_events: int, began: float
) -> Summary:
    """Write the shards into the one file, in order, and remove them."""
    from caloforge.showers.formats import write_showers

    record, visible = parts.totals()
    seconds = record.pop("seconds")
    mean_s = float(np.sum(seconds)) / run.n
    error_s = float(np.std(seconds)) / math.sqrt(run.n)
    parts.provenance = {
        **parts.description(), "command": command, "settings": run.settings(),
        "seconds_per_event": round(mean_s, 6), "seconds_error": round(error_s, 6),
        **asdict(run.beam), "seed": run.seed,
    }  # fmt: skip
    if record:
        parts.provenance["sums"] = {name: float(values.sum()) for name, values in record.items()}
    write_showers(parts, run.path, dialect)
    shutil.rmtree(parts.folder)
    size = run.path.stat().st_size
    wall_s = time.monotonic() - began
    return Summary(run.path, run.n, new_events, wall_s, mean_s, visible, size)
