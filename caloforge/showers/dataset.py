"""Training streams: showers of many files and detectors, shuffled, never a whole file in memory.

A file is read in blocks. An epoch visits all blocks in random order, a few at a time; the events of
those few are mixed and cut into batches, so memory holds `pool` blocks however large the data. The
splits are by event: each file's events are dealt to the splits by a seeded permutation, and their
disjointness is asserted. The order of everything is a function of (seed, epoch), so a stopped run
finds its place again without a saved generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.showers.formats import open_showers

__all__ = ["SPLITS", "Sample", "ShowerStream", "split_events"]

SPLITS: Mapping[str, float] = {"train": 0.85, "validation": 0.05, "test": 0.10}
BLOCK = 256


def split_events(
    n: int, seed: int, name: str, shares: Mapping[str, float] = SPLITS
) -> dict[str, NDArray[np.int64]]:
    """Deal the events 0..n-1 of the file `name` to the splits; sorted event numbers (M,) each.

    `shares` of the splits add up to one.

    Raises `AssertionError` if the splits were not disjoint and complete.
    """
    tag = [ord(letter) for letter in name]
    order = np.random.default_rng([seed, *tag]).permutation(n)
    ends = np.round(np.cumsum(list(shares.values())) * n).astype(int)
    parts = np.split(order, ends[:-1])
    splits = {split: np.sort(part) for split, part in zip(shares, parts, strict=True)}
    together = np.concatenate(list(splits.values()))
    assert len(together) == n == len(np.unique(together)), "the splits overlap"
    return splits


@dataclass(frozen=True)
class Sample:
    """A batch of B showers of several detectors on meshes of one shape.

    voxels (B, R, PHI, Z) f4 in MeV; energy (B,) in MeV; theta (B,) in rad; pdg (B,); detector (B,):
    numbers in the stream's `detectors`.
    """

    voxels: NDArray[np.float32]
    energy: NDArray[np.float32]
    theta: NDArray[np.float32]
    pdg: NDArray[np.int32]
    detector: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self.energy)

    def __getitem__(self, chosen: NDArray[np.int64] | slice) -> Sample:
        """Return the chosen showers."""
        return Sample(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def _join(samples: Sequence[Sample]) -> Sample:
    names = Sample.__dataclass_fields__
    return Sample(*(np.concatenate([getattr(s, n) for s in samples]) for n in names))


class ShowerStream:
    """Batches of one split of many files; `shares` name the splits and how much each gets.

    With `together`, so many batches in a row are drawn from one file, and then from another.

    Raises `RequestError` if there are no files, a file names no detector, the meshes differ in
    shape, or the split is smaller than a batch.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        split: str = "train",
        batch: int = 128,
        seed: int = 0,
        pool: int = 16,
        shares: Mapping[str, float] = SPLITS,
        together: int = 0,
    ) -> None:
        if split not in shares:
            raise RequestError(f"unknown split '{split}'; known are {', '.join(shares)}")
        self.shares, self.together = shares, together
        self.paths = sorted(Path(p) for p in paths)
        self.split, self.batch, self.seed, self.pool = split, batch, seed, pool
        self.detectors: list[Detector] = []
        self._events: list[NDArray[np.int64]] = []
        for path in self.paths:
            self._enter(path)
        self._blocks = [
            (file, events[start : start + BLOCK])
            for file, events in enumerate(self._events)
            for start in range(0, len(events), BLOCK)
        ]
        if len(self) < batch:
            raise RequestError(f"the {split} split has {len(self)} showers, less than a batch")

    def _enter(self, path: Path) -> None:
        source = open_showers(path)
        detector, n = source.detector, len(source)
        source.close()
        if detector is None:
            raise RequestError(f"'{path}' does not say its detector; convert it with --detector")
        if self.detectors and detector.mesh.shape != self.detectors[0].mesh.shape:
            raise RequestError(
                f"'{path}' has a mesh of {detector.mesh.shape} cells, unlike the rest"
            )
        self.detectors.append(detector)
        self._events.append(split_events(n, self.seed, path.name, self.shares)[self.split])

    def __len__(self) -> int:
        """Return the number of showers in the split."""
        return sum(len(events) for events in self._events)

    def _groups(self, epoch: int) -> Iterator[tuple[np.random.Generator, list[int]]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self._blocks))
        for group, start in enumerate(range(0, len(order), self.pool)):
            chosen = [int(b) for b in order[start : start + self.pool]]
            yield np.random.default_rng([self.seed, epoch, group]), chosen

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Sample]:
        """Yield the batches of one epoch, without reading the first `skip` of them.

        What is left of the last, incomplete batch of a group of blocks is passed over; another
        epoch groups the blocks otherwise.
        """
        for rng, group in self._groups(epoch):
            size = sum(len(self._blocks[b][1]) for b in group)
            batches = size // self.batch
            if skip >= batches:
                skip -= batches
                continue
            sample = _join([self._read(*self._blocks[b]) for b in group])
            order = rng.permutation(size)
            for k in range(skip, batches):
                yield sample[order[k * self.batch : (k + 1) * self.batch]]
            skip = 0

    def batches(self, start: int = 0) -> Iterator[Sample]:
        """Yield batches without end, from batch number `start` on."""
        if self.together:
            yield from map(self._task, itertools.count(start))
        epoch = 0
        while start >= (per_epoch := self.batches_in(epoch)):
            if per_epoch == 0:
                raise RequestError("the pool of blocks is smaller than a batch; enlarge the pool")
            start, epoch = start - per_epoch, epoch + 1
        while True:
            yield from self.epoch(epoch, start)
            start, epoch = 0, epoch + 1

    def _task(self, number: int) -> Sample:
        """Batch `number`, of the file whose turn it is."""
        turn = np.random.default_rng([self.seed, number // self.together])
        file = int(turn.integers(len(self.paths)))
        events = self._events[file]
        rng = np.random.default_rng([self.seed, number, 1])
        few = rng.choice(events, min(self.batch, len(events)), replace=False)
        return self._read(file, np.sort(few))

    def batches_in(self, epoch: int) -> int:
        """Return the number of whole batches in an epoch."""
        sizes = (sum(len(self._blocks[b][1]) for b in group) for _, group in self._groups(epoch))
        return sum(size // self.batch for size in sizes)

    def all(self) -> Iterator[Sample]:
        """Yield every shower of the split once, in the order of the files."""
        for file, events in self._blocks:
            yield self._read(file, events)

    def _read(self, file: int, events: NDArray[np.int64]) -> Sample:
        source = open_showers(self.paths[file])
        try:
            first = int(events[0])
            showers = source.read(first, int(events[-1]) + 1)[events - first]
        finally:
            source.close()
        number = np.full(len(events), file)
        return Sample(showers.dense(), showers.energy, showers.theta, showers.pdg, number)
