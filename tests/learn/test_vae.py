"""The dense autoencoder: it learns showers by heart, is told what it should, and is reproducible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import load_model
from caloforge.learn.condition import FEATURE_NAMES, Conditions, conditions
from caloforge.learn.losses import read
from caloforge.learn.models.family import Aim
from caloforge.learn.models.vae import FAMILY, FourNumbers, Vae, VaeConfig, plan
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe, recipe_of
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers
from caloforge.showers.showers import Showers

WAYS: dict[str, dict[str, Any]] = {
    "log": dict(voxels=VoxelSettings()),
    "par04": dict(voxels=VoxelSettings(transform="none"), conditions="par04"),
    "mse": dict(voxels=VoxelSettings(divide="percentile", transform="power"), loss="mse"),
    "mae": dict(voxels=VoxelSettings(divide="largest", transform="logit"), loss="mae"),
}


def told(detectors: list[Detector], showers: Showers) -> Conditions:
    index = np.arange(len(showers)) % len(detectors)
    return conditions(detectors, index, showers.energy, showers.theta, showers.pdg)


@pytest.fixture
def batch(
    toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]],
) -> tuple[torch.Tensor, Conditions]:
    return toy_batch(16)


def built(batch: tuple[torch.Tensor, Conditions], **ways: Any) -> tuple[Vae, Any, Scaled]:
    voxels, given = batch
    torch.manual_seed(0)
    values = dict(shape=tuple(voxels.shape[1:]), layers=(100, 50, 20, 14), latent=10, loss="bce",
                  kl=1.0, kl_warmup=0.2, conditions="physics", voxels=VoxelSettings()) | ways  # fmt: skip
    network = Vae(VaeConfig(**values))
    scale: Any = FAMILY.scale(network.config)
    scale.fit(voxels, given, 50)
    clean = scale(voxels, given)
    network.fit(given.features, clean)
    return network, scale, clean


def drawn(network: Vae, clean: Scaled, given: Conditions) -> dict[str, torch.Tensor]:
    return FAMILY.losses(network, clean, given, torch.Generator().manual_seed(3), Aim())


@pytest.mark.parametrize("way", WAYS)
def test_shapes_and_finite_gradients_that_depend_on_the_draw_alone(
    batch: tuple[torch.Tensor, Conditions], way: str
) -> None:
    network, _, clean = built(batch, **WAYS[way])
    found = network.decode(torch.randn(16, 10), batch[1])
    assert found.voxels.shape == clean.voxels.shape
    assert found.energies.shape == clean.energies.shape
    parts, again = drawn(network, clean, batch[1]), drawn(network, clean, batch[1])
    assert parts.keys() == again.keys() and all(torch.equal(parts[k], again[k]) for k in parts)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    for parameter in network.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_sixteen_showers_are_learned_by_heart(batch: tuple[torch.Tensor, Conditions]) -> None:
    """The visible energy to two per cent, each shower's profile in depth to as much of it."""
    network, scale, clean = built(batch, kl=1e-9, **WAYS["par04"])
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)
    draw = torch.Generator().manual_seed(0)
    for _ in range(1000):
        parts = FAMILY.losses(network, clean, batch[1], draw, Aim())
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
    network.eval()
    with torch.no_grad():
        found = network.decode(network.encode(clean, batch[1]).mean, batch[1])
        back = scale.inverse(found._replace(voxels=read("bce", found.voxels)), batch[1])
    total, wanted = back.sum((1, 2, 3)), batch[0].sum((1, 2, 3))
    assert float((total / wanted - 1).abs().max()) < 0.02
    missed = (back.sum((1, 2)) - batch[0].sum((1, 2))).abs().sum(1) / wanted
    assert float(missed.max()) < 0.02


def test_a_latent_vector_is_one_shower_and_conditions_matter(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    network, _, _ = built(batch)
    network.eval()
    z = torch.randn(16, 10)
    once, again = (network.decode(z, batch[1]).voxels for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.allclose(network.decode(z.roll(1, 0), batch[1]).voxels, once)
    for name in ("log_energy", "cos_theta", "pdg_22", "cell_z_x0"):
        features = batch[1].features.clone()
        features[:, FEATURE_NAMES.index(name)] += 1.0
        assert not torch.allclose(
            network.decode(z, batch[1]._replace(features=features)).voxels, once
        )


def test_the_four_numbers_are_par04s(
    toy: Callable[..., Showers], toy_files: list[Path], small_detector: Detector, siw: Detector
) -> None:
    detectors: list[Any] = [read_showers(path).detector for path in toy_files]
    showers = toy(small_detector, 40)
    both, one = told(detectors, showers), told(detectors[:1], showers)
    numbers = FourNumbers()
    numbers.fit(one.features)
    alone = numbers(one) * numbers.spread + numbers.mean
    energy, theta = (torch.from_numpy(x) for x in (showers.energy, showers.theta))
    assert torch.allclose(alone[:, 0], energy / 1_024_000, rtol=1e-4)
    assert torch.allclose(alone[:, 1], torch.rad2deg(theta) / 90, rtol=1e-4)
    assert alone[:, 2:].unique(dim=0).tolist() == [[0, 1]]  # where Par04 points
    numbers.fit(both.features)
    hot = numbers(both)[:, 2:]
    assert (hot.sum(1) == 1).all() and torch.equal(hot[::2], 1 - hot[1::2])
    assert not numbers(told([siw], showers))[:, 2:].any()  # neither


def recipe_for(files: list[Path], **more: Any) -> Recipe:
    values = dict(model="vae", size="tiny", data=[str(f) for f in files], steps=6, batch=16,
                  scale_steps=10, learning_rate=2e-3, validate_every=3)  # fmt: skip
    return recipe_of(values | more, [], "r")


@pytest.mark.parametrize("conditions", ["physics", "par04"])
def test_it_trains_resumes_is_saved_and_generates_the_same_in_any_batch(
    toy_files: list[Path], tmp_path: Path, conditions: str
) -> None:
    recipe = recipe_for(toy_files, vae={"conditions": conditions})
    train(recipe, tmp_path / "run")
    for minutes in (1e-9, 1e-3, None):
        summary = train(recipe, tmp_path / "parts", resume=True, minutes=minutes)
    curves = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "parts")]
    one, two = ([json.loads(line)["loss"] for line in curve.splitlines()] for curve in curves)
    assert (
        one == two
        and summary.validation_loss == load_model(tmp_path / "run").notes["validation_loss"]
    )
    generator = Generator.load(tmp_path / "run")
    detector: Any = read_showers(toy_files[0]).detector
    once, again = (generator.generate(detector, 2e4, 1.5, n=5, seed=1).dense() for _ in range(2))
    apart = generator.generate(detector, 2e4, 1.5, n=5, seed=1, batch=2).dense()
    assert np.array_equal(once, again) and np.allclose(apart, once, rtol=1e-3, atol=1e-3)
    assert once.any() and not np.allclose(once[0], once[1])
    with pytest.raises(RequestError, match="drawn without --steps"):
        generator.generate(detector, 2e4, n=1, steps=3)


def test_what_cannot_be_planned_is_refused() -> None:
    recipe = recipe_for([Path("x")], vae={"conditions": "par04", "latent": 7})
    assert plan(recipe, (3, 4, 10), 2).latent == 7
    with pytest.raises(RequestError, match="two detectors apart, not 3"):
        plan(recipe, (3, 4, 10), 3)
    with pytest.raises(RequestError, match="vae has no size 'large'"):
        plan(recipe_for([Path("x")], size="large"), (3, 4, 10), 1)
    wrong = plan(recipe_for([Path("x")], voxels={"transform": "logit"}), (3, 4, 10), 1)
    with pytest.raises(RequestError, match="'bce' needs voxels in"):
        FAMILY.scale(wrong)
