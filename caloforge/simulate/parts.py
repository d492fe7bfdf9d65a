"""The folder of an unfinished simulation: its settings and the shards of showers made so far.

``OUT.parts/`` holds ``settings.json`` (all that the showers depend on, and the number of events in
a shard), ``engine.json`` (how the engine described itself), logs of the workers, and a shard
``events-NNNNNNNNNN.npz`` for every finished chunk, named after its first event.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.showers.showers import Showers, concatenate
from caloforge.simulate.worker import read_shard, shard_path

__all__ = ["Parts", "parts_folder"]


def parts_folder(path: Path) -> Path:
    """Return the folder of the shards of the output `path`."""
    return path.with_name(f"{path.name}.parts")


class Parts:
    """The shards of a run, and a `ShowerSource` over all its events once they are all there.

    Raises `RequestError` when the folder was begun with other `settings`.
    """

    def __init__(self, folder: Path, detector: Detector, settings: dict[str, Any]) -> None:
        self.folder, self.detector = folder, detector
        self.provenance: dict[str, Any] = {}
        kept = _load(folder / "settings.json")
        _same(kept["settings"], settings, folder)
        self.n, self.shard = int(settings["events"]), int(kept["shard"])
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        self._open: tuple[int, Showers] | None = None

    @property
    def mesh(self) -> Mesh:
        """The mesh of all the showers."""
        return self.detector.mesh

    @property
    def starts(self) -> list[int]:
        """First event of every shard."""
        return list(range(0, self.n, self.shard))

    def length(self, start: int) -> int:
        """Return the number of events in the shard that begins with event `start`."""
        return min(self.shard, self.n - start)

    def has(self, start: int) -> bool:
        """Whether the shard that begins with event `start` is finished."""
        return shard_path(self.folder, start).exists()

    def done(self) -> int:
        """Return the number of events in finished shards."""
        return sum(self.length(start) for start in self.starts if self.has(start))

    def describe(self, engine: dict[str, Any]) -> None:
        """Keep the engine's description of itself.

        Raises `RequestError` when the shards so far came from another one.
        """
        path = self.folder / "engine.json"
        if path.exists():
            _same(_load(path), engine, self.folder)
            return
        with atomic_path(path) as sibling:
            sibling.write_text(json.dumps(engine, indent=1))

    def description(self) -> dict[str, Any]:
        """Return what `describe` kept."""
        return _load(self.folder / "engine.json")

    def totals(self) -> tuple[dict[str, NDArray[np.float64]], float]:
        """Record (N,) of all events (``seconds``: processor time of each in s, other counts), and
        the mean of visible over incident energy.
        """
        records, visible = [], 0.0
        for start in self.starts:
            showers, record = read_shard(shard_path(self.folder, start), self.detector)
            records.append(record)
            visible += float((showers.visible() / showers.energy).sum())
        whole = {name: np.concatenate([r[name] for r in records]) for name in records[0]}
        return whole, visible / self.n

    def __len__(self) -> int:
        """Return the number of showers of the finished run."""
        return self.n

    def read(self, start: int, stop: int) -> Showers:
        """Return showers start to stop, in the order of the events."""
        first = start - start % self.shard
        pieces = []
        for begin in range(first, min(stop, self.n), self.shard):
            showers = self._shard(begin)
            pieces.append(showers[max(start - begin, 0) : stop - begin])
        return concatenate(pieces)

    def _shard(self, start: int) -> Showers:
        if self._open is None or self._open[0] != start:
            showers, _ = read_shard(shard_path(self.folder, start), self.detector)
            self._open = start, showers
        return self._open[1]

    def close(self) -> None:
        """Let go of the last shard that was read."""
        self._open = None


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        raise RequestError(
            f"'{path}' is missing or damaged, so the run cannot be resumed: delete "
            f"'{path.parent}' and start anew"
        ) from None


def _same(kept: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    differing = sorted(k for k in kept | asked if kept.get(k) != asked.get(k))
    if differing:
        what = "; ".join(f"{k} was {kept.get(k)!r}, is {asked.get(k)!r}" for k in differing)
        raise RequestError(
            f"'{folder}' was begun with other settings ({what[:300]}): resume with the same ones, "
            "or delete it"
        )
