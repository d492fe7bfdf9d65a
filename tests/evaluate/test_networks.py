import numpy as np
import pytest
import torch

from caloforge.evaluate import networks
from caloforge.evaluate.networks import as_rows, perceptron, residual_network, scored, whose


@pytest.fixture
def small(monkeypatch):
    """Small batches and a larger rate: the laws do not depend on the size."""
    monkeypatch.setattr(networks, "_BATCH", 64)
    monkeypatch.setattr(networks, "_RATE", 2e-3)


def gaussians(shift, n=600, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 5)), rng.normal(size=(n, 5)) + shift]


def labels_of(parts):
    return np.concatenate([np.full(len(p), k) for k, p in enumerate(parts)])


def test_one_law_gives_a_half_and_two_their_area(small):
    for shift, expected in ((0.0, 0.5), (0.5, 0.785)):  # Phi(0.5 sqrt(5)/sqrt(2)) = 0.785
        parts = gaussians(shift)
        seen = scored(lambda: perceptron(5, width=32), as_rows(parts), labels_of(parts),
                      trainings=3, epochs=8)  # fmt: skip
        assert abs(seen.area.value - expected) < 4 * seen.area.error
        assert 0.01 < seen.area.error < 0.06 and seen.seconds > 0


def test_the_seed_repeats_and_leaves_others_alone(small):
    parts = gaussians(0.3)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (
        scored(lambda: perceptron(5, width=16), as_rows(parts), labels_of(parts), trainings=1,
               epochs=3, seed=seed).area
        for seed in (1, 1, 2)
    )  # fmt: skip
    assert first == second != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_splits_are_disjoint_whole_and_stratified():
    labels = np.repeat([0, 1], [500, 300])
    train, choose, judge = networks._split(labels, 3)
    assert sorted(np.concatenate([train, choose, judge])) == list(range(800))
    assert [len(part) for part in (train, choose, judge)] == [480, 160, 160]
    assert (labels[judge] == 0).sum() == 100


def test_the_residual_network_sees_where_the_energy_is(small):
    """Two samples that differ only in the layer of one bright voxel."""
    rng = np.random.default_rng(0)
    voxels = rng.random((2, 150, 8, 4, 3)).astype(np.float32) * 0.1
    voxels[0, :, 1] += 1.0
    voxels[1, :, 6] += 1.0
    energy = rng.random((2, 150, 1)).astype(np.float32)
    parts = [np.concatenate([energy[k], voxels[k].reshape(150, -1)], axis=1) for k in (0, 1)]
    seen = scored(lambda: residual_network((8, 4, 3)), as_rows(parts), labels_of(parts),
                  trainings=1, epochs=20)  # fmt: skip
    assert seen.area.value > 0.95


def test_networks_have_the_published_shape_and_finite_gradients():
    network = perceptron(362)
    assert [m.out_features for m in network if hasattr(m, "out_features")] == [2048, 2048, 2048, 1]
    network = residual_network((45, 16, 9), 3)
    out = network(torch.randn(4, 1 + 6480))
    assert out.shape == (4, 3)
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_geant4_is_taken_for_the_nearest_model(small):
    rng = np.random.default_rng(1)
    geant4 = rng.normal(size=(400, 4))
    parts = [rng.normal(size=(400, 4)) + 0.1, rng.normal(size=(400, 4)) + 1.0, geant4]
    labels = labels_of(parts)
    labels[labels == 2] = -1
    found, _ = whose(lambda: perceptron(4, 2, width=32), as_rows(parts), labels,
                     np.flatnonzero(labels == -1), trainings=2, epochs=8)  # fmt: skip
    assert found[0].value > -np.log(2) > found[1].value
    same = [rng.normal(size=(400, 4)) for _ in range(3)]
    found, _ = whose(lambda: perceptron(4, 2, width=32), as_rows(same), labels,
                     np.flatnonzero(labels == -1), trainings=2, epochs=3)  # fmt: skip
    assert all(abs(f.value + np.log(2)) < 0.1 for f in found)
