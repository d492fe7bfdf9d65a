"""Feeds: every shower of a split, batches that are a function of the step, and mirrors."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.learn.condition import FEATURE_NAMES
from caloforge.learn.feed import CHUNK, Feed, Resident, Streamed, feed
from caloforge.showers.dataset import ShowerStream

CPU = torch.device("cpu")
COSINE = FEATURE_NAMES.index("cos_theta")


def fed(kind: type, files: list[Path], **other: int) -> Feed:
    made: Feed = kind(ShowerStream(files, **{"batch": 8, "seed": 3} | other), CPU)
    return made


@pytest.mark.parametrize("kind", [Streamed, Resident])
def test_all_showers_come_once_with_what_belongs_to_them(kind: type, toy_files: list[Path]) -> None:
    made = fed(kind, toy_files)
    stream = ShowerStream(toy_files, batch=8, seed=3)
    wanted = np.concatenate([sample.voxels for sample in stream.all()])
    energy = np.concatenate([sample.energy for sample in stream.all()])
    parts = list(made.all())
    assert len(made) == len(wanted) and max(len(voxels) for voxels, _ in parts) <= CHUNK
    assert np.array_equal(torch.cat([voxels for voxels, _ in parts]).numpy(), wanted)
    assert np.array_equal(torch.cat([given.energy for _, given in parts]).numpy(), energy)


@pytest.mark.parametrize("kind", [Streamed, Resident])
def test_a_batch_is_a_function_of_the_step(kind: type, toy_files: list[Path]) -> None:
    made = fed(kind, toy_files)
    whole = list(itertools.islice(made.batches(), 3 * len(made) // 8))
    for step in (1, len(whole) // 2, len(whole) - 1):
        later = next(made.batches(step))
        assert torch.equal(later[0], whole[step][0])
        assert torch.equal(later[1].features, whole[step][1].features)


def test_an_epoch_in_memory_is_a_permutation_of_all(toy_files: list[Path]) -> None:
    made = fed(Resident, toy_files, batch=4)
    assert isinstance(made, Resident)
    each = len(made) // 4
    for epoch in range(2):
        seen = torch.cat([b[1].energy for b in itertools.islice(made.batches(epoch * each), each)])
        assert len(seen.unique()) == 4 * each
        assert set(seen.tolist()) <= set(made.given.energy.tolist())
    first, second = next(made.batches(0))[1].energy, next(made.batches(each))[1].energy
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", [Streamed, Resident])
def test_every_image_of_a_shower_comes_as_often_with_its_angle(
    kind: type, toy_files: list[Path]
) -> None:
    made = fed(kind, toy_files)
    known = {
        float(e): (v, float(f))
        for voxels, given in made.all()
        for v, e, f in zip(voxels, given.energy, given.features[:, COSINE], strict=True)
    }
    count = np.zeros(4)
    for voxels, given in itertools.islice(made.batches(), 20):
        told = given.features[:, COSINE]
        for shower, energy, cosine in zip(voxels, given.energy, told, strict=True):
            as_it_was, before = known[float(energy)]
            images = [as_it_was, as_it_was.flip(1)]
            images += [image.roll(2, 1) for image in images]  # half of four sectors
            seen = [torch.equal(shower, image) for image in images]
            assert any(seen) and float(cosine) == (before if any(seen[:2]) else -before)
            count += seen
    assert all(15 < n < 65 for n in count) and count.sum() == 160


def test_a_cpu_is_fed_from_files(toy_files: list[Path]) -> None:
    assert isinstance(feed(ShowerStream(toy_files, batch=8), CPU), Streamed)
