"""Toy showers that behave like an electromagnetic shower, made with numpy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detector.mesh import Mesh
from caloforge.evaluate.observables import Observables, measure
from caloforge.showers.showers import Showers

MESH = Mesh(n_r=5, n_phi=8, n_z=12, cell_r_mm=5.0, cell_z_mm=12.0)


def make_showers(n: int, seed: int, mesh: Mesh = MESH) -> Showers:
    """Spots of about 2 MeV: gamma profile in depth, exponential in r, a lean somewhere in phi."""
    rng = np.random.default_rng(seed)
    energy = 10 ** rng.uniform(3, 5, n)
    depth = 3.0 + 0.5 * np.log(energy / 1e3)[:, None] + 0.4 * rng.normal(size=(n, 1))
    z = mesh.centres_z / 9.0  # all but a thousandth stays inside
    along = z ** (depth - 1) * np.exp(-z)
    ring = np.diff(1 - np.exp(-mesh.edges_r / 6.0))
    around = 1 + 0.6 * np.cos(mesh.centres_phi - rng.uniform(-np.pi, np.pi, (n, 1)))
    density = along[:, None, None, :] * ring[:, None, None] * around[:, None, :, None]
    density = (density / density.sum(axis=(1, 2, 3), keepdims=True)).reshape(n, -1)
    spots = rng.poisson(0.032 * energy / 2.0)
    counts = rng.multinomial(spots, density)
    voxels = 2.0 * counts * rng.lognormal(0, 0.2, counts.shape)
    return Showers.from_dense(
        voxels.reshape(n, *mesh.shape),
        mesh=mesh,
        energy=energy,
        theta=rng.uniform(0.9, 2.2, n),
        phi=0.0,
    )


def with_voxels(showers: Showers, voxels: np.ndarray) -> Showers:
    """Put other voxels into the same showers."""
    return Showers.from_dense(
        voxels,
        mesh=showers.mesh,
        energy=showers.energy,
        theta=showers.theta,
        phi=showers.phi,
    )


@pytest.fixture(scope="session")
def toy() -> Callable[[int, int], Showers]:
    """A cached maker of toy showers: toy(n, seed)."""
    kept: dict[tuple[int, int], Showers] = {}

    def make(n: int, seed: int) -> Showers:
        if (n, seed) not in kept:
            kept[n, seed] = make_showers(n, seed)
        return kept[n, seed]

    return make


@pytest.fixture(scope="session")
def reference(toy: Callable[[int, int], Showers]) -> Observables:
    """Observables of the sample everything is compared with."""
    return measure(toy(800, 1))


@pytest.fixture(scope="session")
def alter() -> Callable[[Showers, np.ndarray], Showers]:
    """Put other voxels into the same showers."""
    return with_voxels
