"""What is read off hits: nothing of what is to be found, the same for a turned shower, learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("torch_geometric")

from caloforge.detector.detector import Detector
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.models.hitgraph import GraphNetwork, config_of
from caloforge.learn.models.reader import Reader, features, length

SHAPE = (3, 4, 10)
Batch = tuple[torch.Tensor, Conditions]


@pytest.fixture(scope="module")
def batch(toy_batch: Callable[[int], Batch]) -> Batch:
    return toy_batch(64)


def awake() -> GraphNetwork:
    torch.manual_seed(0)
    net = GraphNetwork(config_of("micro", SHAPE))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    net.levels.copy_(torch.tensor([4.0, 2.0]))
    return net


def test_features_do_not_know_the_primary(batch: Batch, small_detector: Detector) -> None:
    voxels, given = batch
    net = awake()
    other = conditions([small_detector], np.zeros(64, np.int64), np.full(64, 7e3),
                       np.full(64, 1.0), np.full(64, 22))  # fmt: skip
    here = features(net, voxels, given)
    assert here.shape == (64, length(net)) and torch.isfinite(here).all()
    assert torch.equal(here, features(net, voxels, other))
    assert not torch.allclose(here, features(net, 2 * voxels, given))


def test_a_turned_or_mirrored_shower_has_the_same_features(batch: Batch) -> None:
    voxels, given = batch
    net = awake()
    here = features(net, voxels, given)
    for moved in (voxels.roll(1, 2), voxels.flip(2)):
        assert torch.allclose(features(net, moved, given), here, atol=1e-4)
    assert not torch.allclose(features(net, voxels.roll(1, 3), given), here, atol=1e-2)


def test_an_empty_shower_and_cells_below_the_cut_are_read(batch: Batch) -> None:
    voxels, given = batch
    net = awake()
    nothing = voxels.clone()
    nothing[0] = 0.0
    assert torch.isfinite(features(net, nothing, given)).all()
    faint = torch.where(voxels > 0, voxels, 1e-4)
    assert torch.equal(features(net, faint, given), features(net, voxels, given))


def test_it_begins_linear_and_learns(batch: Batch) -> None:
    voxels, given = batch
    torch.manual_seed(0)
    reader = Reader(GraphNetwork(config_of("micro", SHAPE)), 1)
    behind = voxels[..., 5:].sum((1, 2, 3)) / voxels.sum((1, 2, 3))
    wanted = (behind + 1e-3).logit()[:, None]  # how deep a shower reaches
    with torch.no_grad():
        found = features(reader.network, voxels, given)
        reader.fit(found, wanted, ridge=1.0)
        x = ((found - reader.mean) / reader.spread).double()
        gram = x.T @ x / 64 + torch.eye(x.shape[1])
        best = x @ torch.linalg.solve(gram, x.T @ (wanted - wanted.mean()).double() / 64)
        assert torch.allclose(reader(voxels, given), best.float() + wanted.mean(), atol=1e-3)
    optimiser = torch.optim.Adam(reader.parameters(), 3e-3)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = (reader(voxels, given) - wanted).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None for p in reader.bent.parameters())
