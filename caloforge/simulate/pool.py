"""Worker processes that simulate chunks of events, and what they say on the way.

Plain child processes with pipes rather than ``multiprocessing``: they do not import the caller's
main module again (a notebook has none), they know that their parent died when their standard input
ends, and Ctrl-C reaches only the parent (they have a session of their own).
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import caloforge
from caloforge.errors import RequestError, WorkError
from caloforge.simulate.worker import Job

__all__ = ["work"]

Message = tuple[int, dict[str, Any] | None]  # number of the worker, what it said (None: it ended)


def work(job: Job, chunks: list[tuple[int, int]], workers: int) -> Iterator[dict[str, Any]]:
    """Have `workers` processes simulate the chunks (first event, number of events).

    Yields their messages: ``ready`` with a description of the engine, ``events`` (how many more
    were simulated), ``done`` (first event of a chunk whose shard is written). Raises `RequestError`
    or `WorkError` with the reason when a worker stops before its work is done; the others are
    stopped then, and also when the caller stops listening.
    """
    said: queue.Queue[Message] = queue.Queue()
    waiting = list(reversed(chunks))
    crew = [_Worker(i, job, said) for i in range(min(workers, len(chunks)))]
    unfinished = len(chunks)
    try:
        for worker in crew:
            worker.give(waiting)
        while unfinished:
            number, message = said.get()
            if message is None:
                raise crew[number].failure()
            if "error" in message:
                raise (RequestError if message["request"] else WorkError)(message["error"])
            if "done" in message:
                unfinished -= 1
                crew[number].give(waiting)
            yield message
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """One child process and a thread that hands on what it says."""

    def __init__(self, number: int, job: Job, said: queue.Queue[Message]) -> None:
        self.number = number
        self.log = Path(job.log).with_suffix(f".{number}.log")
        command = [sys.executable, "-P", "-m", job.module]
        home = str(Path(caloforge.__file__).parent.parent)  # found there, installed or not
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            start_new_session=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        self._say(replace(job, log=str(self.log)).to_json())
        threading.Thread(target=self._listen, args=(said,), daemon=True).start()

    def give(self, waiting: list[tuple[int, int]]) -> None:
        """Hand over the next chunk, if there is one."""
        if waiting:
            start, n = waiting.pop()
            self._say(json.dumps({"start": start, "n": n}))

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # a worker that ended is noticed when its output ends
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _listen(self, said: queue.Queue[Message]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said.put((self.number, json.loads(line)))
        said.put((self.number, None))

    def failure(self) -> WorkError:
        """Say why the process ended: Geant4's own words where it left any."""
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return WorkError(f"a worker {how}{_last_words(self.log)}; --resume goes on from there")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()


def _last_words(log: Path) -> str:
    """Shorten the end of a log to one line; Geant4 says what happened after 'issued by'."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    marked = [i for i, line in enumerate(lines) if "issued by" in line]
    tail = lines[marked[-1] : marked[-1] + 3] if marked else lines[-3:]
    words = " ".join(line for line in tail if line.strip("*-= "))
    return f" ({words[:300]})" if words else ""
