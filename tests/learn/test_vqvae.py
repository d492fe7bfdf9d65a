"""The tokeniser: codes in order of depth, a codebook that is used, showers that come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model, ValidRange, load_model, save_model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Aim
from caloforge.learn.models.vqvae import (
    FAMILY,
    SIZES,
    Vqvae,
    VqvaeConfig,
    overlaps,
    plan,
    reconstruct,
)
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import VoxelSettings, VqvaeSettings
from caloforge.learn.train import train

Batch = tuple[torch.Tensor, Conditions]
LOSSES = ("beliefs", "bce", "mse", "mae", "sinkhorn")


def config(**other: object) -> VqvaeConfig:
    values = dict(
        shape=(3, 4, 10), patch=(3, 4, 1), width=32, depth=1, heads=2, tokens=6, codes=24,
        width_code=4, levels=(), loss="beliefs", commitment=0.25, voxels=VoxelSettings(),
    )  # fmt: skip
    return VqvaeConfig(**values | other)  # type: ignore[arg-type]


def fitted(batch: Batch, **other: object) -> tuple[Vqvae, torch.nn.Module, Scaled]:
    torch.manual_seed(0)
    network, scale = Vqvae(config(**other)), FAMILY.scale(config(**other))
    scale.fit(*batch, steps=100)
    network.fit(batch[1].features, scale(*batch))
    return network, scale, scale(*batch)


@pytest.fixture
def batch(toy_batch: Callable[[int], Batch]) -> Batch:
    return toy_batch(24)


def noise(n: int) -> Noise:
    return Noise(np.arange(n, dtype=np.uint64), torch.device("cpu"))


@pytest.mark.parametrize("other", [
    {}, {"loss": "bce"}, {"loss": "mse"}, {"loss": "mae"}, {"loss": "sinkhorn"}, {"levels": (4, 3, 3)}, {"tokens": 17},
    {"voxels": VoxelSettings(divide="largest", transform="power")}, {"patch": (1, 2, 5)},
    {"layers": True, "tokens": 10, "patch": (3, 2, 2)}, {"near": 4, "mixture": 3},
], ids=str)  # fmt: skip
def test_shapes_and_gradients(batch: Batch, other: dict[str, object]) -> None:
    network, _, clean = fitted(batch, **other)
    said, codes, _ = network(clean, batch[1], 0)
    assert said.shape == (24, network.numbers, 3, 4, 10)
    assert codes.shape == (24, other.get("tokens", 6)) and int(codes.max()) < 36
    draw = torch.Generator().manual_seed(0)
    parts = FAMILY.losses(network, clean, batch[1], draw, Aim())
    torch.stack(list(parts.values())).sum().backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in found.values())


def test_straight_through_the_codes_the_voxels_teach_the_encoder(batch: Batch) -> None:
    network, _, clean = fitted(batch)
    torch.nn.init.normal_(network.head.weight)  # it starts at zero, and would tell nothing
    said, _, _ = network(clean, batch[1], 0)
    said.square().sum().backward()
    assert float(network.embed_voxels.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert float(network.to_code.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("sizes", [(64, 45), (6, 10), (10, 10), (1, 7), (7, 1)])
def test_tokens_share_the_depth_evenly(sizes: tuple[int, int]) -> None:
    parts = overlaps(*sizes)
    assert torch.allclose(parts.sum(1), torch.ones(sizes[0]), atol=1e-5)
    assert torch.allclose(parts.sum(0), torch.full((sizes[1],), sizes[0] / sizes[1]), atol=1e-5)
    depth = parts @ torch.arange(sizes[1], dtype=torch.float32)
    assert (depth.diff() >= -1e-5).all()


def test_tokens_go_outward_from_layer_zero(batch: Batch) -> None:
    """Without blocks that mix depths, what is deposited at a depth moves the vector there."""
    for patch in ((3, 4, 1), (1, 2, 5)):
        network, _, clean = fitted(batch, patch=patch, tokens=10)
        network.encoder = torch.nn.ModuleList([torch.nn.Identity()])
        network.encoder[0].forward = lambda x, modulation: x  # type: ignore[method-assign]
        before = network.encode(clean, batch[1])
        for layer in (0, 4, 9):
            voxels = clean.voxels.clone()
            voxels[..., layer] += 1
            moved = (network.encode(clean._replace(voxels=voxels), batch[1]) - before).abs()
            where = moved.sum(dim=(0, 2)).nonzero().flatten()
            first = layer // patch[2] * patch[2]
            assert where.tolist() == list(range(first, first + patch[2]))


def test_saved_and_loaded_it_gives_the_same(batch: Batch, tmp_path: Path) -> None:
    for k, other in enumerate(({}, {"levels": (3, 3, 3)})):
        network, scale, clean = fitted(batch, **other)
        valid = ValidRange((1.0, 2.0), (1.0, 2.0), (11,), ("small",), ())
        save_model(Model(network, scale, valid, {}, "vqvae"), tmp_path / str(k))
        back = load_model(tmp_path / str(k))
        assert back.network.config == network.config
        one, other_one = network(clean, batch[1]), back.network(clean, batch[1])
        assert torch.equal(one[0], other_one[0]) and torch.equal(one[1], other_one[1])
        assert torch.equal(back.scale(*batch).energies, clean.energies)


@pytest.mark.parametrize("other", [
    *({"loss": loss} for loss in LOSSES), {"layers": True, "tokens": 10}, {"near": 4},
], ids=str)  # fmt: skip
def test_a_shower_comes_back_the_same_on_any_batch_size(
    batch: Batch, other: dict[str, object]
) -> None:
    network, scale, _ = fitted(batch, **other)
    torch.nn.init.normal_(network.head.weight, std=0.05)
    voxels, given = batch
    whole = reconstruct(network, scale, voxels, given, noise(24))  # type: ignore[arg-type]
    few = reconstruct(network, scale, voxels[:5], Conditions(*(x[:5] for x in given)), noise(5))  # type: ignore[arg-type]
    assert torch.allclose(whole[:5], few, rtol=1e-3, atol=1e-4)
    assert torch.allclose(whole.sum((1, 2, 3)), voxels.sum((1, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize(("loss", "close", "steps"), [("beliefs", 0.1, 700), ("bce", 0.03, 500)])
def test_it_overfits_sixteen_showers(
    toy_batch: Callable[[int], Batch], loss: str, close: float, steps: int
) -> None:
    """Layers come back to 3 % of the visible energy, summed over the layers, voxels to a tenth of
    it; the codebook is alive. Beliefs, which are drawn, keep a spread that is learned away only
    slowly: layers to 10 %, voxels to 17 %, but 95 of 100 voxels are hit or empty as they were.
    """
    voxels, given = toy_batch(16)
    network, scale, clean = fitted((voxels, given), loss=loss, width=64, tokens=10)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, 2 * (steps - step) / steps)
        draw = torch.Generator().manual_seed(step)
        parts = FAMILY.losses(network, clean, given, draw, Aim())
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
    made = reconstruct(network, scale, voxels, given, noise(16))  # type: ignore[arg-type]
    total = voxels.sum((1, 2, 3))
    layers = (made - voxels).sum((1, 2)).abs().sum(1) / total
    assert float(layers.mean()) < close
    assert float(((made - voxels).abs().sum((1, 2, 3)) / total).mean()) < close + 0.07
    if loss == "beliefs":
        assert float(((made > 0) != (voxels > 0)).float().mean()) < 0.05
    assert FAMILY.measure(network, [(clean, given)])["usage"] > 0.5


@pytest.fixture
def recipe(toy_files: list[Path]) -> Recipe:
    return Recipe(
        model="vqvae", size="micro", data=[str(p) for p in toy_files], steps=12, batch=32, warmup=3,
        scale_steps=30, validate_every=6, learning_rate=3e-3,
        vqvae=VqvaeSettings(tokens=12, codes=32),
    )  # fmt: skip


def test_resumed_is_the_same_as_uninterrupted(recipe: Recipe, tmp_path: Path) -> None:
    """Dead codes included, which the quantiser's library revives at random."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole)
    for minutes in (1e-9, 1e-3, 5e-3, None):
        summary = train(recipe, parts, resume=minutes != 1e-9, minutes=minutes)
        torch.rand(3)
    assert summary.step == 12
    one, other = load_model(whole).network.state_dict(), load_model(parts).network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = [(out / "metrics.jsonl").read_text().splitlines() for out in (whole, parts)]
    kept = [[{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in y] for y in lines]
    assert kept[0] == kept[1]


def test_a_short_training_uses_most_codes_and_says_so(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe.model_copy(update={"steps": 60, "validate_every": 60}), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["usage"] > 0.5 and 16 < line["perplexity"] <= 32
    model = load_model(tmp_path / "run")
    assert model.notes["measured"]["usage"] == line["usage"]
    assert "usage: " in (tmp_path / "run" / "card.md").read_text()
    with pytest.raises(RequestError, match="does not generate: .*kind 'prior'"):
        Generator(model, "run").generate("par04-siw", 50_000, n=1)


def test_what_it_cannot_do_is_refused(recipe: Recipe) -> None:
    for changes, message in (
        ({"size": "slides"}, "vqvae has no size 'slides'; choose micro, tiny"),
        ({"masked": 0.1}, "'masked' is not read by model = 'vqvae'"),
        ({"start": "base"}, "'start' is not read"),
    ):
        with pytest.raises(RequestError, match=message):
            plan(recipe.model_copy(update=changes), (3, 4, 10), 1)
    with pytest.raises(ValueError, match=r"levels \(8, 8, 8\) make 512 codes, not 100"):
        VqvaeSettings(quantiser="fsq", codes=100)
    for wrong, message in (
        (dict(layers=True, tokens=64), "one code a layer; leave tokens out"),
        (dict(layers=True, loss="bce"), "layers and near are for loss = 'beliefs', not 'bce'"),
        (dict(near=8, loss="mse"), "layers and near are for loss = 'beliefs', not 'mse'"),
    ):
        with pytest.raises(ValueError, match=message):
            VqvaeSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="loss 'bce' needs voxels"):
        FAMILY.scale(config(loss="bce", voxels=VoxelSettings(transform="logit")))


def test_with_layers_each_has_a_code_and_its_hits_come_back(batch: Batch) -> None:
    recipe = Recipe(model="vqvae", size="micro", data=["x"], vqvae=VqvaeSettings(layers=True))
    planned = plan(recipe, (3, 4, 10), 1)
    assert (planned.tokens, planned.quantities) == (10, 2)
    with pytest.raises(RequestError, match="'voxels' is not read"):
        plan(recipe.model_copy(update={"voxels": VoxelSettings()}), (3, 4, 10), 1)
    network, scale, _ = fitted(batch, layers=True, tokens=10)
    voxels, given = batch
    made = reconstruct(network, scale, voxels, given, noise(24))  # type: ignore[arg-type]
    wanted = (voxels >= 5e-4).sum((1, 2))
    assert float(((made > 0).sum((1, 2)) - wanted).abs().float().max()) <= 1
    told = scale.layer_energies(scale(voxels, given).energies, given, wanted > 0)  # type: ignore[operator]
    assert torch.allclose(made.sum((1, 2)), told, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_64_tokens_on_the_default_mesh(size: str) -> None:
    planned = plan(Recipe(model="vqvae", size=size, data=["x"]), (9, 16, 45), 1)  # type: ignore[arg-type]
    assert (planned.tokens, planned.codes) == (64, 512)
    assert VqvaeConfig.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned
