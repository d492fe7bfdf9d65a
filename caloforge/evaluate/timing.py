"""Time to generate a shower, as the CaloChallenge takes it: batches of 1, 100 and 10,000.

The model is loaded and warmed up once; then every size is called a number of times, each call with
primaries of its own, and timed from conditions in memory to showers in memory (arXiv:2410.21611).
Times are ms of wall-clock time per shower. A size whose calls would take longer than a limit is
called less often, or not at all, and the result says so. One core of a CPU is what an event loop
has, and the default.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.progress import progress

if TYPE_CHECKING:
    from caloforge.detector.detector import Detector
    from caloforge.generate import Generator
    from caloforge.simulate.beam import Beam

__all__ = ["BATCHES", "Timed", "read_timing", "time_generation", "time_into"]

BATCHES = (1, 100, 10_000)
_ROWS = ("batch", "ms", "error", "repeats", "note")


@dataclass(frozen=True)
class Timed:
    """One size of batch: ms per shower (None if not measured), its error, calls made, a sentence.

    The error is the standard error of the mean over the calls.
    """

    batch: int
    ms: float | None
    error: float
    repeats: int
    note: str


def time_generation(
    model: str | Path,
    detector: Detector,
    beam: Beam,
    *,
    batches: Sequence[int] = BATCHES,
    repeats: int = 10,
    seconds: float = 300.0,
    steps: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Time a model in calls of each size; primaries come from `beam` (MeV, rad).

    `seconds`: longest time for one size. Returns plain values: rows of `Timed`, device, threads,
    model, detector, steps. Raises `RequestError` for numbers below 1 and what cannot be generated.
    """
    import torch

    from caloforge.generate import Generator

    if min([*batches, repeats, threads, 1 if steps is None else steps]) < 1 or seconds <= 0:
        raise RequestError("batches, repeats, threads, steps and minutes must be above 0")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = Generator.load(model, device)
        _call(generator, detector, beam, 1, steps, seed, 0)  # the first call sets things up
        rows: list[Timed] = []
        with progress("timing", repeats * len(batches), "calls") as advance:
            for batch in sorted(batches):
                row = _timed(generator, detector, beam, batch, repeats, seconds, steps, seed, rows)
                rows.append(row)
                advance(repeats)
    finally:
        torch.set_num_threads(before)
    where = next(generator.model.network.parameters()).device
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    return {
        "model": str(model), "detector": detector.name, "steps": steps, "threads": threads,
        "device": f"{where.type} ({name})", "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def _timed(
    generator: Generator, detector: Detector, beam: Beam, batch: int, repeats: int, seconds: float,
    steps: int | None, seed: int, before: Sequence[Timed],
) -> Timed:  # fmt: skip
    known = [row.ms for row in before if row.ms is not None]
    if known and known[-1] * batch / 1e3 > seconds:
        minutes = known[-1] * batch / 6e4
        return Timed(batch, None, 0.0, 0, f"not measured: one call takes about {minutes:.0f} min")
    times: list[float] = []
    for number in range(repeats):
        took = _call(generator, detector, beam, batch, steps, seed, 1 + number)
        times.append(1e3 * took / batch)
        if sum(times) * batch / 1e3 > seconds:
            break
    n = len(times)
    error = float(np.std(times, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    mean = float(np.mean(times))
    return Timed(batch, mean, error, n, f"{mean:.4g} +- {error:.2g} ms per shower, {n} calls")


def _call(
    generator: Generator,
    detector: Detector,
    beam: Beam,
    batch: int,
    steps: int | None,
    seed: int,
    n: int,
) -> float:
    """Seconds of one call."""
    import torch

    from caloforge.learn.models.family import Manner

    primaries = beam.primaries(seed, n * batch, batch)
    drawn = generator.stream(detector, primaries, Manner(steps), batch=batch)
    began = time.perf_counter()
    for _ in drawn:
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def time_into(path: Path, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Call `time_generation` and write what it returns (ms per shower) to a JSON file.

    Raises `RequestError` as that, and, before any work, if the file cannot be written.
    """
    with atomic_path(path) as sibling:
        result = time_generation(*arguments, **options)
        sibling.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def read_timing(path: Path) -> dict[str, Any]:
    """Read what `time_into` wrote (ms per shower).

    Raises `RequestError` if the file is missing or holds something else.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not all(set(_ROWS) <= set(row) for row in result["rows"]) or "device" not in result:
            raise ValueError("rows of something else")
    except OSError:
        raise RequestError(f"there is no file '{path}'; correct the path") from None
    except (ValueError, TypeError, KeyError, UnicodeDecodeError):
        raise RequestError(
            f"'{path}' was not written by 'caloforge timing'; make it anew"
        ) from None
    return result
