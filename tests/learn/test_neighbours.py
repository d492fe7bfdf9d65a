"""Neighbours: those of a search by hand, around the axis, whatever the order and the padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.learn.neighbours import Graph, nearest, places, ranked

K = 4


def cells(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers r, phi, z (n,) of different cells of 5 x 8 x 12."""
    draw = torch.Generator().manual_seed(seed)
    flat = torch.randperm(5 * 8 * 12, generator=draw)[:n]
    return flat // 96, flat // 12 % 8, flat % 12


def place_of(r: torch.Tensor, phi: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return places(r, phi, z, torch.tensor([[0.5, 0.8]]).expand(len(r), 2), 8)


def told(graph: Graph, values: torch.Tensor) -> torch.Tensor:
    """What hits (n,) hear if each says its value (n,) and the distance counts too."""
    source, hit = graph.edges
    sent = graph.weight * (values[source] + graph.way[:, 0])
    return torch.zeros_like(values).index_add(0, hit, sent)


def test_they_are_those_of_a_search_by_hand() -> None:
    place = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    graph = nearest(place, torch.tensor([40]), K)
    far = np.linalg.norm(place.numpy()[:, None] - place.numpy(), axis=2)
    expected = np.argsort(far, axis=1)[:, 1 : K + 1]
    assert np.array_equal(graph.edges[0].reshape(40, K).numpy(), expected)
    assert np.allclose(graph.reach.numpy(), np.sort(far, axis=1)[:, K + 1])
    weight = graph.weight.reshape(40, K)
    assert torch.allclose(weight.sum(1), torch.ones(40))
    assert (weight.diff(dim=1) <= 0).all()  # the nearer, the more


def test_neighbours_stand_across_the_end_of_phi() -> None:
    """Bin 0 begins at -pi and the last one ends at pi: they touch."""
    r, z = torch.tensor([4, 4, 4]), torch.tensor([3, 3, 3])
    graph = nearest(place_of(r, torch.tensor([0, 7, 2]), z), torch.tensor([3]), 1)
    assert graph.edges[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("turn", [1, 3, 5])
def test_a_turn_by_whole_cells_and_a_mirror_change_nothing(turn: int) -> None:
    r, phi, z = cells(60)
    values = torch.rand(60, generator=torch.Generator().manual_seed(2))
    here = told(nearest(place_of(r, phi, z), torch.tensor([60]), K), values)
    for moved in ((phi + turn) % 8, 7 - phi):
        graph = nearest(place_of(r, moved, z), torch.tensor([60]), K)
        assert torch.allclose(told(graph, values), here, atol=2e-5)


def test_the_order_of_hits_does_not_matter() -> None:
    """On a lattice many are equally far; which of them is listed first must not count."""
    r, phi, z = cells(200)
    values = torch.rand(200, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    size = torch.tensor([200])
    here = told(nearest(place_of(r, phi, z), size, K), values)
    there = told(nearest(place_of(r[order], phi[order], z[order]), size, K), values[order])
    assert torch.allclose(there, here[order], atol=2e-5)


def test_one_that_is_as_far_as_the_next_counts_nothing() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 0.5, 0]])
    graph = nearest(line, torch.tensor([4]), 2)
    assert graph.edges[0].reshape(4, 2)[0, 0] == 3
    assert graph.weight.reshape(4, 2)[0].tolist() == [1.0, 0.0]


def test_padding_changes_nothing() -> None:
    place = torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(1))
    number, far = ranked(place, torch.ones(1, 30, dtype=torch.bool), K)
    padded = torch.cat([place, place[:, :7]], dim=1)  # in the same places, but not there
    present = torch.arange(37)[None] < 30
    again, further = ranked(padded, present, K)
    assert torch.equal(again[:, :30], number)
    assert torch.equal(further[:, :30], far)


def test_showers_together_are_each_alone() -> None:
    sizes = [30, 0, 3, 1, 55]
    place = torch.cat([place_of(*cells(n, seed=n)) for n in sizes])
    values = torch.rand(len(place), generator=torch.Generator().manual_seed(2))
    whole = nearest(place, torch.tensor(sizes), K)
    heard, at = told(whole, values), 0
    for n in sizes:
        part = slice(at, at + n)
        alone = nearest(place[part], torch.tensor([n]), K)
        assert torch.allclose(told(alone, values[part]), heard[part], atol=1e-6)
        assert torch.allclose(alone.reach, whole.reach[part])
        at += n


def test_too_few_hits_have_as_many_neighbours_as_there_are() -> None:
    graph = nearest(torch.rand(3, 3, generator=torch.Generator().manual_seed(0)),
                    torch.tensor([3]), K)  # fmt: skip
    assert ((graph.weight.reshape(3, K) > 0).sum(1) == 2).all()
    assert torch.allclose(graph.weight.reshape(3, K).sum(1), torch.ones(3))
    lonely = nearest(torch.rand(1, 3), torch.tensor([1]), K)
    assert float(lonely.weight.sum()) == 0 and float(lonely.reach[0]) == 0
