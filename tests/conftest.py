"""Fixtures that several rooms share: toy showers on a small mesh, and a tiny trained model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from caloforge.detector.detector import Detector, load_detector, parse_detector
from caloforge.showers.native import ShowerWriter
from caloforge.showers.showers import Showers

if TYPE_CHECKING:
    from torch import Tensor

    from caloforge.learn.checkpoint import Model
    from caloforge.learn.condition import Conditions

# Set before torch is imported: networks this small are slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = """
name = "{name}"
[stack]
inner_radius_mm = 500
layers = 20
absorber = {{ material = "G4_Pb", thickness_mm = {lead} }}
active = {{ material = "G4_Si", thickness_mm = 0.5 }}
[mesh]
n_r = 3
n_phi = 4
n_z = 10
cell_r_mm = 12
cell_z_mm = 6
"""


@pytest.fixture(scope="session")
def siw() -> Detector:
    return load_detector("par04-siw")


@pytest.fixture(scope="session")
def small_detector() -> Detector:
    return parse_detector(SMALL.format(name="small", lead=2.5))


def toy_showers(detector: Detector, n: int, seed: int = 0) -> Showers:
    """Showers with a gamma profile in depth, an exponential in radius, and holes."""
    rng = np.random.default_rng(seed)
    mesh = detector.mesh
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n))
    z, r = mesh.centres_z, mesh.centres_r
    depth = (2 + 0.5 * np.log(energy / 1e3) + rng.normal(0, 0.2, n))[:, None]
    long = (z / z[-1]) ** depth * np.exp(-4 * z / z[-1])
    lateral = np.exp(-r / r[-1] * 3)
    mean = lateral[None, :, None, None] * long[:, None, None, :] * np.ones((1, 1, mesh.n_phi, 1))
    mean *= (0.03 * energy / mean.sum((1, 2, 3)))[:, None, None, None]
    voxels = rng.poisson(mean / 0.5) * 0.5 * rng.gamma(5, 0.2, mean.shape)
    return Showers.from_dense(
        voxels, mesh=mesh, energy=energy, theta=rng.uniform(0.9, 2.2, n),
        phi=rng.uniform(0, 6.28, n), leakage=rng.uniform(0, 1, n),
        seed=rng.integers(0, 2**63, n), detector=detector, provenance={"made": "by hand"},
    )  # fmt: skip


def prepared(showers: Showers, detector: Detector) -> tuple[Tensor, Conditions]:
    """Voxels (N, R, PHI, Z) in MeV of showers in a detector, and conditions."""
    import torch

    from caloforge.learn.condition import conditions

    number = np.zeros(len(showers), np.int64)
    given = conditions([detector], number, showers.energy, showers.theta, showers.pdg)
    return torch.from_numpy(showers.dense()), given


@pytest.fixture(scope="session")
def toy() -> Callable[..., Showers]:
    return toy_showers


@pytest.fixture(scope="session")
def toy_batch(small_detector: Detector) -> Callable[[int], tuple[Tensor, Conditions]]:
    """Voxels (N, R, PHI, Z) in MeV of N toy showers in the small detector, and conditions."""

    def made(n: int) -> tuple[Tensor, Conditions]:
        return prepared(toy_showers(small_detector, n), small_detector)

    return made


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Native files of two small detectors, 300 showers each."""
    folder = tmp_path_factory.mktemp("toy")
    paths = []
    for k, lead in enumerate((2.5, 4.0)):
        detector = parse_detector(SMALL.format(name=f"small{k}", lead=lead))
        paths.append(folder / f"small{k}.h5")
        with ShowerWriter(paths[-1], detector.mesh, detector) as writer:
            writer.append(toy_showers(detector, 300, seed=k))
    return paths


@pytest.fixture(scope="session")
def tiny_model(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of the smallest size after a few steps on the toy files."""
    from caloforge.learn.checkpoint import load_model
    from caloforge.learn.recipe import Recipe
    from caloforge.learn.train import train

    recipe = Recipe(
        size="micro",
        data=[str(p) for p in toy_files],
        steps=30,
        batch=32,
        warmup=5,
        scale_steps=100,
        masked=0.3,
        untold=0.1,
    )
    out = tmp_path_factory.mktemp("run") / "tiny"
    train(recipe, out)
    return load_model(out)


@pytest.fixture(scope="session")
def tiny_prior(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a prior with layers after a few steps on the toy files, as its tokeniser."""
    from caloforge.learn.recipe import Recipe
    from caloforge.learn.settings import PriorSettings, VqvaeSettings
    from caloforge.learn.train import train

    out = tmp_path_factory.mktemp("codes")
    tokens = Recipe(
        model="vqvae", size="micro", data=[str(p) for p in toy_files], steps=40, batch=32, warmup=5,
        scale_steps=100, vqvae=VqvaeSettings(layers=True, codes=32, near=4),
    )  # fmt: skip
    train(tokens, out / "tokens")
    settings = PriorSettings(tokeniser=str(out / "tokens"))
    changes = {"model": "prior", "vqvae": None, "prior": settings}
    train(tokens.model_copy(update=changes), out / "prior")
    return out / "prior"


@pytest.fixture(scope="session")
def small_file(small_detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "small.toml"
    path.write_text(small_detector.to_toml())
    return path
