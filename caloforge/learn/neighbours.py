r"""The nearest neighbours of a hit among the hits of its shower.

Hits lie at physical places: the radius in Moliere radii, the depth in radiation lengths times
`DEPTH`, phi as an angle around the axis. The distance is the straight line between two places, so
phi closes on itself exactly, and turning or mirroring a shower leaves every distance alone.

Cells stand in a lattice, and many neighbours are equally far. Which of them is the k-th would be
chance, and a network would see another graph when hits are listed in another order. A neighbour at
distance d therefore counts :math:`(1 - d^2/d_{k+1}^2)^2`, with the distance of the next one: what
is as far as that counts nothing, and the sum over neighbours is a continuous function of places
(the switching functions of atomistic networks, Schuett et al., arXiv:1706.08566, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["WAYS", "Graph", "nearest", "places", "ranked"]

DEPTH = 0.5  # Moliere radii to a radiation length: layers of the core are as near as its sectors.
WAYS = 5  # Numbers that say where a neighbour stands.
AREA = 2**21  # Distances at a time, which bounds memory.


class Graph(NamedTuple):
    """Neighbours of N hits, k for each, E = N k edges in the order of the hits.

    edges (2, E): neighbour and hit; weight (E,): how much a neighbour counts, 0 to 1, in sum 1 for
    each hit that has any; way (E, 5): distance, outward, deeper and across, and the squared
    distance, in Moliere radii; reach (N,): distance at which neighbours cease to count.
    """

    edges: Tensor
    weight: Tensor
    way: Tensor
    reach: Tensor


def places(r: Tensor, phi: Tensor, z: Tensor, pitch: Tensor, sectors: int) -> Tensor:
    """Places (N, 3) in Moliere radii of cells with numbers r, phi, z (N,) in one of `sectors`.

    pitch (N, 2): size of their cells in Moliere radii and in radiation lengths.
    """
    radius = (r + 0.5) * pitch[:, 0]
    angle = (phi + 0.5) * (2 * torch.pi / sectors)
    depth = (z + 0.5) * pitch[:, 1] * DEPTH
    return torch.stack([radius * angle.cos(), radius * angle.sin(), depth], dim=1)


def ranked(place: Tensor, present: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Numbers (B, H, k) and distances (B, H, k + 1) of the nearest hits, the nearest first.

    place (B, H, 3); what is not present (B, H) is no neighbour: infinitely far.
    """
    far = torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist")  # (B, H, H)
    far.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    far = far.masked_fill(~present[:, None, :], torch.inf)
    distance, number = far.topk(min(k + 1, far.shape[2]), dim=2, largest=False)
    short = k + 1 - distance.shape[2]
    if short:
        distance = torch.nn.functional.pad(distance, (0, short), value=torch.inf)
        number = torch.nn.functional.pad(number, (0, short))
    return number[..., :k], distance


@torch.no_grad()
def nearest(place: Tensor, count: Tensor, k: int) -> Graph:
    """Neighbours of N hits at places (N, 3), which are count (B,) for each shower in turn."""
    n, device = len(place), place.device
    source = torch.zeros(n, k, dtype=torch.long, device=device)
    distance = torch.full((n, k + 1), torch.inf, device=device, dtype=place.dtype)
    begin = count.cumsum(0) - count
    for rows in _shares(count.tolist()):
        few = torch.tensor(rows, device=device)
        slots = torch.arange(int(count[few].max()), device=device)
        present = slots < count[few][:, None]  # (b, H)
        where = begin[few][:, None] + slots.clamp(max=max(n - 1, 0))
        where = torch.where(present, where, 0)
        number, far = ranked(place[where], present, k)
        source[where[present]] = (begin[few][:, None, None] + number)[present]
        distance[where[present]] = far[present]
    return _graph(place, source, distance)


def _graph(place: Tensor, source: Tensor, distance: Tensor) -> Graph:
    n, k = source.shape
    own = torch.arange(n, device=place.device)[:, None].expand(n, k)
    there = distance[:, :k].isfinite()
    source = torch.where(there, source, own)
    reach = distance[:, k:]
    weight = (1 - (distance[:, :k] / reach).square().nan_to_num(0.0)).square()
    weight = torch.where(there, weight, 0.0)
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
    radius = place[:, :2].norm(dim=1)
    gap = place[source] - place[:, None]  # (N, k, 3)
    across = gap[..., :2].norm(dim=2)
    square = across.square() + gap[..., 2].square()
    outward = radius[source] - radius[:, None]
    way = torch.stack([square.sqrt(), outward, gap[..., 2], across, square], dim=2)
    edges = torch.stack([source.reshape(-1), own.reshape(-1)])
    last = torch.where(there, distance[:, :k], 0.0).amax(dim=1)
    reach = torch.where(reach[:, 0].isfinite(), reach[:, 0], last)
    return Graph(edges, weight.reshape(-1), way.reshape(n * k, WAYS), reach)


def _shares(count: list[int]) -> list[list[int]]:
    """Showers of about as many hits together, so that little is computed for what is not there."""
    shares: list[list[int]] = []
    for row in sorted(range(len(count)), key=lambda i: count[i], reverse=True):
        if not count[row]:
            continue
        largest = count[shares[-1][0]] if shares else 0
        if shares and (len(shares[-1]) + 1) * largest**2 <= AREA:
            shares[-1].append(row)
        else:
            shares.append([row])
    return shares
