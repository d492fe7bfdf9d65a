"""Hits: a list of cells and back, shower by shower, the least likely left out."""

from __future__ import annotations

import torch

from caloforge.learn.hits import hits_of

SHAPE = (3, 3, 4, 10)


def filled() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.4


def test_from_cells_to_hits_and_back() -> None:
    values, where = torch.rand(SHAPE), filled()
    hits = hits_of(where, torch.ones(3, 2), values, most=100, k=3)
    assert torch.equal(hits.sizes, where.flatten(1).sum(1))
    back = hits.to_cells(hits.of(values), torch.zeros(SHAPE))
    assert torch.equal(back, torch.where(where, values, 0.0))


def test_means_are_those_of_each_shower() -> None:
    values, where = torch.rand(SHAPE), filled()
    where[1] = False
    hits = hits_of(where, torch.ones(3, 2), values, most=100, k=3)
    mean = hits.mean(hits.of(values)[:, None])[:, 0]
    for shower in (0, 2):
        assert torch.allclose(mean[shower], values[shower][where[shower]].mean())
    assert float(mean[1]) == 0
    weighed = hits.mean(hits.of(values)[:, None], hits.of(values))[:, 0]
    inside = values[0][where[0]]
    assert torch.allclose(weighed[0], inside.square().sum() / inside.sum())


def test_of_too_many_the_highest_are_kept() -> None:
    rank, where = torch.rand(SHAPE), filled()
    hits = hits_of(where, torch.ones(3, 2), rank, most=9, k=3)
    assert hits.sizes.tolist() == [9, 9, 9]
    for shower in range(3):
        best = rank[shower][where[shower]].sort(descending=True).values[:9]
        assert torch.allclose(
            hits.of(rank)[hits.shower == shower].sort(descending=True).values, best
        )
