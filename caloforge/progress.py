"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["clock", "progress"]

LINE_EVERY_S = 5.0


def clock(seconds: float) -> str:
    """Write a duration in s as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress(what: str, total: int, unit: str, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far `what` has come; yields ``advance(n)``, to be called after n more units.

    `start` units of `total` were done before (a resumed run); they do not count in the rate.
    """
    bar = _bar if sys.stderr.isatty() else _lines
    with bar(what, total, unit, start) as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int, unit: str, start: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    state = TextColumn("{task.fields[state]}")
    began = time.monotonic()
    with Progress(*columns, state, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=total, completed=start, state=unit)

        def advance(n: int) -> None:
            bars.advance(task, n)
            done = int(bars.tasks[0].completed)
            bars.update(task, state=_state(done, total, start, unit, began))

        yield advance


@contextmanager
def _lines(what: str, total: int, unit: str, start: int) -> Iterator[Callable[[int], None]]:
    began = last = time.monotonic()
    done = start

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= LINE_EVERY_S or (done >= total and n):
            last = now
            state = _state(done, total, start, unit, began)
            sys.stderr.write(f"{what}: {done}/{total} {state}\n")
            sys.stderr.flush()

    yield advance


def _state(done: int, total: int, start: int, unit: str, began: float) -> str:
    rate = (done - start) / max(time.monotonic() - began, 1e-9)
    left = clock((total - done) / rate) if rate > 0 else "?"
    return f"{unit}, {rate:.3g}/s, {left} left"
