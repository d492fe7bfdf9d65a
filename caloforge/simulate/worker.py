"""A worker process: simulates chunks of events that it is told, and writes each as one shard.

Started by `production` as ``python -m caloforge.simulate.worker``, or as a module of a room above
that calls `serve` with engines of its own. One JSON object a line goes in on standard input (first
the `Job`, then chunks), one a line comes out on the standard output it was born with; what Geant4
prints goes to the log it was given instead. When standard input ends, its parent has finished or
died, and the worker stops at once, in the middle of an event if need be.
"""

from __future__ import annotations

import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.detector.detector import Detector, parse_detector
from caloforge.errors import RequestError, WorkError
from caloforge.files import atomic_path
from caloforge.showers.showers import PER_SHOWER, Showers
from caloforge.simulate.beam import Beam, Primaries

__all__ = ["ENGINES", "Engine", "EngineRef", "Job", "Record", "read_shard", "serve", "shard_path",
           "write_shard"]  # fmt: skip

PROGRESS_EVERY_S = 0.5
Record = Mapping[str, NDArray[np.float64]]  # of N events: `seconds` (N,), other counts (N,)


class Engine(Protocol):
    """What makes showers: Geant4, the parametrisation, or an engine of a room above."""

    info: dict[str, Any]

    def run(self, primaries: Primaries, on_event: Callable[[], None]) -> tuple[Showers, Record]:
        """Return the showers of the primaries and a record of the events.

        The record holds ``seconds`` (N,), the processor time of each, and what else is counted.
        """


@dataclass(frozen=True)
class EngineRef:
    """Which engine makes the showers: its name, the module its workers run, what it is told.

    `options` are plain values that the showers depend on. `geant4`: whether it runs Geant4;
    `seconds`: roughly what an event costs beside that.
    """

    name: str
    module: str = "caloforge.simulate.worker"
    options: dict[str, Any] = field(default_factory=dict)
    geant4: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told: detector (TOML text), beam (MeV, rad), seed, engine.

    `parts` is the folder of the shards, `log` the file for what Geant4 prints, `options` what else
    the engine is told, `module` what the worker runs.
    """

    detector: str
    beam: dict[str, Any]
    seed: int
    engine: str
    physics: str
    parts: str
    log: str
    options: dict[str, Any] = field(default_factory=dict)
    module: str = "caloforge.simulate.worker"

    def to_json(self) -> str:
        """Write the job as one line."""
        return json.dumps(asdict(self))


class _Parametric:
    """The parametrised engine behind the same interface as Geant4."""

    def __init__(self, detector: Detector, _: Job) -> None:
        self.detector = detector
        self.info: dict[str, Any] = {"physics": "parametrised (hep-ex/0001020)"}

    def run(self, primaries: Primaries, on_event: Callable[[], None]) -> tuple[Showers, Record]:
        from caloforge.simulate.parametric import parametric_showers

        began = time.process_time()
        p = primaries
        showers = parametric_showers(self.detector, p.energy, p.theta, p.phi, p.pdg, p.seed)
        for _ in range(len(p)):
            on_event()
        each = (time.process_time() - began) / max(len(p), 1)
        return showers, {"seconds": np.full(len(p), each)}


def _geant4(detector: Detector, job: Job) -> Engine:
    from caloforge.simulate.geant4 import Geant4Engine

    return Geant4Engine(detector, job.physics)


ENGINES: dict[str, Callable[[Detector, Job], Engine]] = {
    "geant4": _geant4,
    "parametric": _Parametric,
}


_ARRAYS = (*PER_SHOWER, "offsets", "cell", "deposit")
_OF_EVENTS = "event_"  # before the names of a record, so that they cannot clash with the others


def shard_path(parts: Path, start: int) -> Path:
    """Name of the shard whose first event is `start`."""
    return parts / f"events-{start:010d}.npz"


def write_shard(path: Path, showers: Showers, record: Record) -> None:
    """Write a chunk of showers and the record (N,) of its events; atomic."""
    arrays = {name: getattr(showers, name) for name in _ARRAYS}
    arrays |= {f"{_OF_EVENTS}{name}": values for name, values in record.items()}
    with atomic_path(path) as sibling, sibling.open("wb") as stream:
        np.savez(stream, **arrays)


def read_shard(path: Path, detector: Detector) -> tuple[Showers, Record]:
    """Read what `write_shard` wrote: showers, and the record (N,) of the events.

    Raises `WorkError` for a damaged shard.
    """
    try:
        with path.open("rb") as stream, np.load(stream) as arrays:
            found = {name: arrays[name] for name in arrays.files}
            showers = {name: found.pop(name) for name in _ARRAYS}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise WorkError(f"'{path}' is damaged ({error}); delete it and use --resume") from None
    record = {name.removeprefix(_OF_EVENTS): values for name, values in found.items()}
    return Showers(**showers, mesh=detector.mesh, detector=detector), record


def serve(engines: Mapping[str, Callable[[Detector, Job], Engine]]) -> None:
    """Do with these engines what standard input says until it ends; the process ends with it."""
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    job = Job(**orders.get())
    replies = _silence(Path(job.log))

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        _work(job, engines[job.engine], orders, reply)
    except (RequestError, WorkError) as error:
        reply(error=str(error), request=isinstance(error, RequestError))
    except BaseException as error:
        reply(error=f"{type(error).__name__}: {error}", request=False)
    os._exit(1)


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    """Queue the lines of standard input; at its end, end the process."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


def _silence(log: Path) -> io.TextIOWrapper:
    """Turn standard output and error into the log; return the old output as a stream."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    return replies


def _work(
    job: Job, make: Callable[[Detector, Job], Engine], orders: queue.Queue[dict[str, Any]],
    reply: Callable[..., None],
) -> None:  # fmt: skip
    detector = parse_detector(job.detector)
    beam = Beam(**{name: _pair(value) for name, value in job.beam.items()})
    engine = make(detector, job)
    reply(ready={"caloforge": __version__, "engine": job.engine, **engine.info})
    while True:
        order = orders.get()
        start, n = order["start"], order["n"]
        progress = _Progress(reply)
        showers, record = engine.run(beam.primaries(job.seed, start, n), progress)
        write_shard(shard_path(Path(job.parts), start), showers, record)
        reply(events=progress.unsaid, done=start)


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Progress:
    """Tells the parent of events at most twice a second."""

    def __init__(self, reply: Callable[..., None]) -> None:
        self.reply, self.unsaid, self.last = reply, 0, time.monotonic()

    def __call__(self) -> None:
        self.unsaid += 1
        if time.monotonic() - self.last > PROGRESS_EVERY_S:
            self.reply(events=self.unsaid)
            self.unsaid, self.last = 0, time.monotonic()


if __name__ == "__main__":
    serve(ENGINES)
