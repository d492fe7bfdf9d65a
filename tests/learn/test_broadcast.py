"""The transformer and the spatial-broadcast decoder: symmetry, memory, and every step to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.losses import read
from caloforge.learn.models.broadcast import (
    FAMILY,
    Broadcast,
    BroadcastConfig,
    BroadcastDecoder,
    plan,
)
from caloforge.learn.models.family import Aim
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import recipe_of
from caloforge.learn.settings import VoxelSettings
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers

STEPS = [(e, d) for e in ("dense", "transformer") for d in ("dense", "broadcast")]
SHAPE = (3, 4, 10)
CONFIG = BroadcastConfig(
    SHAPE, (3, 1, 2), 32, 2, 2, 4, (100, 50, 20, 14), 10, "transformer", "broadcast", "bce", 1.0,
    0.2, 0.0, VoxelSettings(),
)  # fmt: skip


@pytest.fixture
def batch(
    toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]],
) -> tuple[torch.Tensor, Conditions]:
    return toy_batch(16)


def built(
    batch: tuple[torch.Tensor, Conditions], config: BroadcastConfig = CONFIG
) -> tuple[Broadcast, Any, Scaled]:
    torch.manual_seed(0)
    network, scale = Broadcast(config), FAMILY.scale(config)
    scale.fit(*batch, 50)  # type: ignore[operator]
    clean = scale(*batch)
    network.fit(batch[1].features, clean)
    return network, scale, clean


def shaken(module: torch.nn.Module) -> None:
    """Move every weight: much begins at zero, where any law holds."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=draw))


@pytest.mark.parametrize("step", STEPS, ids="-".join)
@pytest.mark.parametrize("divide", ["incident_mev", "largest"])
def test_every_step_has_its_shapes_and_finite_gradients_that_depend_on_the_draw_alone(
    batch: tuple[torch.Tensor, Conditions], step: tuple[str, str], divide: Any
) -> None:
    config = replace(CONFIG, encoder=step[0], decoder=step[1], energy=0.5,
                     voxels=VoxelSettings(divide=divide))  # fmt: skip
    network, _, clean = built(batch, config)
    found = network.decode(torch.randn(16, 10), batch[1])
    assert [part.shape for part in found] == [part.shape for part in clean]

    def parts() -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(3)
        return FAMILY.losses(network, clean, batch[1], draw, Aim())

    one, two = parts(), parts()
    assert all(torch.equal(one[k], two[k]) for k in one) and "energy" in one
    torch.stack(list(one.values())).sum().backward()  # type: ignore[no-untyped-call]
    touched = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(touched) > 20 and all(bool(g.isfinite().all()) for g in touched)


@pytest.mark.parametrize("hidden", [0, 4])
def test_turned_places_turn_the_shower(batch: tuple[torch.Tensor, Conditions], hidden: int) -> None:
    """The decoder has no place of its own: turn where things are, and what is there turns."""
    torch.manual_seed(1)
    decoder = BroadcastDecoder(replace(CONFIG, hidden=hidden))
    shaken(decoder)
    z, told, maps = torch.randn(16, 10), torch.randn(16, len(FEATURE_NAMES)), batch[1].maps
    places = decoder.places(batch[1])
    grid = places.reshape(16, *decoder.patches.grid, -1)
    as_is = decoder.at(z, told, places, maps).voxels
    for turn in (1, 2):
        turned = decoder.at(z, told, grid.roll(turn, 2).reshape(places.shape), maps.roll(turn, 3))
        assert torch.allclose(turned.voxels, as_is.roll(turn, 2), atol=1e-4)
    assert not torch.allclose(as_is, as_is.roll(1, 2), atol=1e-2)  # it does see where it is
    deeper = decoder.at(z, told, grid.roll(1, 3).reshape(places.shape), maps.roll(1, 4))
    assert not torch.allclose(deeper.voxels, as_is.roll(2, 3), atol=1e-2)  # depth does not close


def test_a_latent_vector_is_one_shower_and_conditions_matter(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    network, _, _ = built(batch)
    shaken(network)
    network.eval()
    z = torch.randn(16, 10)
    once, again = (network.decode(z, batch[1]).voxels for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.allclose(network.decode(z.roll(1, 0), batch[1]).voxels, once)
    features = batch[1].features.clone()
    features[:, 0] += 1.0
    for changed in (
        batch[1]._replace(features=features),
        batch[1]._replace(pitch=2 * batch[1].pitch),
        batch[1]._replace(maps=0.5 * batch[1].maps),
    ):
        assert not torch.allclose(network.decode(z, changed).voxels, once)


def test_sixteen_showers_and_their_energies_are_learned_by_heart(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    """Visible and incident energy to one per cent, the profile in depth to two per cent of it."""
    config = replace(CONFIG, kl=1e-9, energy=1e-2, hidden=0, voxels=VoxelSettings(transform="none"))
    network, scale, clean = built(batch, config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 600)
    draw = torch.Generator().manual_seed(0)
    for _ in range(600):
        parts = FAMILY.losses(network, clean, batch[1], draw, Aim())
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
    network.eval()
    with torch.no_grad():
        found = network.decode(network.encode(clean, batch[1]).mean, batch[1])
        back = scale.inverse(found._replace(voxels=read("bce", found.voxels)), batch[1])
        energy = network.regress(clean, batch[1])
    total, wanted = back.sum((1, 2, 3)), batch[0].sum((1, 2, 3))
    assert float((total / wanted - 1).abs().max()) < 0.01
    missed = (back.sum((1, 2)) - batch[0].sum((1, 2))).abs().sum(1) / wanted
    assert float(missed.max()) < 0.02
    assert float((energy / batch[1].energy - 1).abs().max()) < 0.01


def test_the_encoder_that_regresses_the_energy_is_not_told_it(
    batch: tuple[torch.Tensor, Conditions],
) -> None:
    features = batch[1].features.clone()
    features[:, [FEATURE_NAMES.index(n) for n in ("log_energy", "log_energy_over_critical")]] += 1.0
    for energy, same in ((0.0, False), (1.0, True)):
        network, _, clean = built(batch, replace(CONFIG, energy=energy))
        shaken(network)
        one, two = (
            network.encode(clean, batch[1]._replace(features=f)).mean
            for f in (batch[1].features, features)
        )
        assert torch.allclose(one, two, atol=1e-6) == same


@pytest.mark.parametrize("step", STEPS, ids="-".join)
def test_it_trains_is_saved_and_generates_the_same_in_any_batch(
    toy_files: list[Path], tmp_path: Path, step: tuple[str, str]
) -> None:
    values = dict(model="broadcast", size="tiny", data=[str(f) for f in toy_files], steps=4,
                  batch=16, scale_steps=10, learning_rate=2e-3, validate_every=2,
                  broadcast=dict(encoder=step[0], decoder=step[1], energy=0.1))  # fmt: skip
    train(recipe_of(values, [], "r"), tmp_path / "run")
    generator = Generator.load(tmp_path / "run")
    detector: Any = read_showers(toy_files[0]).detector
    once, again = (generator.generate(detector, 2e4, 1.5, n=5, seed=1).dense() for _ in range(2))
    apart = generator.generate(detector, 2e4, 1.5, n=5, seed=1, batch=2).dense()
    assert np.array_equal(once, again) and np.allclose(apart, once, rtol=1e-3, atol=1e-3)
    assert once.any()


def test_patches_divide_the_mesh_and_sizes_that_there_are_not_are_refused() -> None:
    recipe = recipe_of({"model": "broadcast", "data": ["x"]}, [], "r")
    assert plan(recipe, (18, 50, 45), 1).patch == (9, 2, 3)
    with pytest.raises(RequestError, match="broadcast has no size 'large'; choose tiny"):
        plan(recipe.model_copy(update={"size": "large"}), SHAPE, 1)
