"""What a training run is fed: batches of showers with their conditions, on the device that learns.

`Streamed` reads while the step before is learned, and holds little: for data of any size, and for a
CPU, which reads as fast as it learns. A GPU learns a hundred times faster than files are read; as
long as all showers fit into its memory they are kept there (`Resident`), and an epoch is one
permutation of all of them. Either way the batch of a step is a function of (seed, step), and each
shower of it is mirrored in either mirror of a barrel in one half of the cases (`mirrors`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.mirrors import mirrored
from caloforge.showers.dataset import Sample, ShowerStream

__all__ = ["Feed", "Resident", "Streamed", "conditions_of", "feed"]

FREE = 0.15  # Share of a GPU's free memory that showers may take; others may work on it too.
CHUNK = 512  # Showers of a part of all of them.

Batch = tuple[Tensor, Conditions]


def conditions_of(stream: ShowerStream, sample: Sample) -> Conditions:
    """Return what a model is told of the B showers of a sample of `stream`."""
    return conditions(stream.detectors, sample.detector, sample.energy, sample.theta, sample.pdg)


class Streamed:
    """Feeds from files, as they are read."""

    def __init__(self, stream: ShowerStream, device: torch.device) -> None:
        self.stream, self.device = stream, device

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self.stream)

    def batches(self, step: int = 0) -> Generator[Batch]:
        """Yield voxels (B, R, PHI, Z) in MeV and conditions from a step on, without end; each
        batch is prepared while the one before is learned.
        """
        source = enumerate(self.stream.batches(step), step)

        def prepare() -> Batch:
            step, sample = next(source)
            batch = torch.from_numpy(sample.voxels), conditions_of(self.stream, sample)
            return mirrored(*batch, *_chosen(self.stream.seed, step, len(sample)))

        with ThreadPoolExecutor(1) as worker:
            ahead = worker.submit(prepare)
            while True:
                (voxels, given), ahead = ahead.result(), worker.submit(prepare)
                yield voxels.to(self.device), given.to(self.device)

    def all(self) -> Iterator[Batch]:
        """Yield every shower once, as it is, in parts."""
        for sample in self.stream.all():
            given = conditions_of(self.stream, sample).to(self.device)
            yield torch.from_numpy(sample.voxels).to(self.device), given


class Resident:
    """Feeds from the memory of the device, where all showers are."""

    def __init__(self, stream: ShowerStream, device: torch.device) -> None:
        self.seed, self.batch = stream.seed, stream.batch
        parts = list(Streamed(stream, device).all())
        self.voxels = torch.cat([voxels for voxels, _ in parts])
        told = zip(*(given for _, given in parts), strict=True)
        self.given = Conditions(*(torch.cat(tensors) for tensors in told))

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self.voxels)

    def batches(self, step: int = 0) -> Generator[Batch]:
        """Yield voxels (B, R, PHI, Z) in MeV and conditions from a step on, without end."""
        each = len(self) // self.batch
        while True:
            epoch, first = divmod(step, each)
            order = torch.from_numpy(
                np.random.default_rng([self.seed, epoch]).permutation(len(self))
            )
            order = order.to(self.voxels.device)
            for k in range(first, each):
                rows = order[k * self.batch : (k + 1) * self.batch]
                chosen = _chosen(self.seed, step, self.batch).to(rows.device)
                yield mirrored(self.voxels[rows], self.given.at(rows), *chosen)
                step += 1

    def all(self) -> Iterator[Batch]:
        """Yield every shower once, as it is, in parts."""
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            yield self.voxels[part], self.given.at(part)


Feed = Streamed | Resident


def feed(stream: ShowerStream, device: torch.device) -> Feed:
    """Return what suits the device and the size of a split."""
    if device.type == "cuda" and not stream.together:
        bytes_of = 3 * 4 * math.prod(stream.detectors[0].mesh.shape)  # voxels and two maps
        if len(stream) * bytes_of < FREE * torch.cuda.mem_get_info(device)[0]:
            return Resident(stream, device)
    return Streamed(stream, device)


def _chosen(seed: int, step: int, showers: int) -> Tensor:
    """Which showers of the batch of a step are mirrored, across and along the beam (2, B)."""
    return torch.from_numpy(np.random.default_rng([seed, step]).random((2, showers)) < 0.5)
