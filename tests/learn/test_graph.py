"""Graph networks: laws of turning and of batches, the same showers for the same seed, overfitting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torch_geometric")

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.models import graph
from caloforge.learn.models.belief import Belief
from caloforge.learn.models.family import Aim, Manner
from caloforge.learn.models.hitgraph import (
    EMPTY,
    FILLED,
    SIZES,
    GraphConfig,
    GraphNetwork,
    config_of,
)
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Scaled, ShowerScale, quantities
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import GraphSettings
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers

SHAPE = (3, 4, 10)
Batch = tuple[torch.Tensor, Conditions]


@pytest.fixture(scope="module")
def batch(toy_batch: Callable[[int], Batch]) -> Batch:
    return toy_batch(16)


def awake(size: str = "micro") -> GraphNetwork:
    """A network of which every part speaks."""
    torch.manual_seed(0)
    net = GraphNetwork(config_of(size, SHAPE))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return net


def some(given: Conditions, rows: list[int]) -> Conditions:
    return Conditions(*(tensor[rows] for tensor in given))


def scaled(batch: Batch) -> tuple[ShowerScale, Scaled]:
    scale = graph.FAMILY.scale(config_of("micro", SHAPE))
    scale.fit(*batch, steps=50)
    return scale, scale(*batch)


def test_shapes_and_finite_gradients(batch: Batch) -> None:
    net, (_, clean) = awake(), scaled(batch)
    net.fit(batch[1].features, clean)
    parts = graph.losses(net, clean, batch[1], torch.Generator().manual_seed(0), Aim(untold=0.5))
    assert set(parts) == {"energies", "hits", "values"}
    sum(parts.values()).backward()  # type: ignore[union-attr]
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_the_loss_of_a_validation_depends_on_the_noise_alone(batch: Batch) -> None:
    net, (_, clean) = awake(), scaled(batch)
    net.fit(batch[1].features, clean)
    found = [graph.losses(net, clean, batch[1], torch.Generator().manual_seed(s), Aim())
             for s in (1, 1, 2)]  # fmt: skip
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["values"], found[2]["values"])


@pytest.mark.parametrize("how", ["turned", "mirrored"])
def test_a_shower_that_is_turned_is_believed_in_as_much(batch: Batch, how: str) -> None:
    """By any number of whole cells, with the material and the sketch; so is one that is mirrored."""
    voxels, given = batch
    net, b = awake(), len(voxels)
    draw = torch.Generator().manual_seed(5)
    draft = torch.randn(b, *SHAPE, generator=draw)
    energies = torch.randn(b, quantities(net.sketch, True), generator=draw)
    filled, half = voxels > 0, torch.full((b,), 0.5)

    def moved(x: torch.Tensor, axis: int) -> torch.Tensor:
        return x.flip(axis) if how == "mirrored" else x.roll(3, axis)

    z = SHAPE[2]
    coarse = energies[:, 1 + 2 * z : -1].reshape(b, *net.sketch.grid)
    turned = torch.cat([energies[:, : 1 + 2 * z], moved(coarse, 2).flatten(1), energies[:, -1:]], 1)
    assert net.sketch.grid[1] == SHAPE[1]  # all sectors are told apart
    around = given._replace(maps=moved(given.maps, 3))
    told, other = net.told(energies, given), net.told(turned, around)
    here, there = (
        net.believe_hits(d, half, t) for d, t in ((draft, told), (moved(draft, 2), other))
    )
    assert torch.allclose(there.odds, moved(here.odds, 2), atol=1e-4)
    found = []
    for d, f, t in ((draft, filled, told), (moved(draft, 2), moved(filled, 2), other)):
        hits = net.hits(f, given.pitch, f.float())
        level = torch.full((len(hits.r),), 0.5)
        belief = net.believe_values(hits, hits.of(d), level, t)
        found.append(hits.to_cells(belief.value(), torch.zeros(b, *SHAPE)))
    assert torch.allclose(found[1], moved(found[0], 2), atol=1e-3)
    assert not torch.allclose(found[0], moved(found[0], 2), atol=1e-2)


def test_showers_together_are_each_alone(batch: Batch) -> None:
    voxels, given = batch
    net = awake()
    _, clean = scaled(batch)
    net.fit(given.features, clean)
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))

    def believed(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        part, half = some(given, rows), torch.full((len(rows),), 0.5)
        told = net.told(clean.energies[rows], part)
        hits = net.hits(voxels[rows] > 0, part.pitch, voxels[rows])
        belief = net.believe_values(hits, hits.of(noise[rows]), half[hits.shower], told)
        cells = hits.to_cells(belief.value(), torch.zeros(len(rows), *SHAPE))
        return net.believe_hits(noise[rows], half, told).odds, cells

    for both, one in zip(believed([0, 1]), believed([1]), strict=True):
        assert torch.allclose(both[1:], one, atol=1e-4)


def test_what_is_at_level_zero_is_not_seen(batch: Batch) -> None:
    voxels, given = batch
    net, b = awake(), len(voxels)
    told = net.told(torch.randn(b, quantities(net.sketch, True)), given)
    hits, nothing = net.hits(voxels > 0, given.pitch, voxels), torch.zeros(b)
    one, other = torch.randn(2, b, *SHAPE)
    seen = [net.believe_hits(x, nothing, told).odds for x in (one, other)]
    assert torch.allclose(*seen, atol=1e-5)
    level = nothing[hits.shower]
    means = [net.believe_values(hits, hits.of(x), level, told).mean for x in (one, other)]
    assert torch.allclose(*means, atol=1e-5)


def learn(
    loss_of: Callable[[], torch.Tensor], net: torch.nn.Module, steps: int, rate: float
) -> None:
    optimiser = torch.optim.Adam(net.parameters(), betas=(0.9, 0.98))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 30, 2 * (1 - step / steps))
        optimiser.zero_grad()
        loss_of().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()


def by_heart(batch: Batch) -> Model:
    """A network that has seen nothing but a batch. The perceptron of the energies shares nothing
    with the rest, and goes on alone, for its steps cost little: first the means, without which a
    likelihood takes some for chance (arXiv:2203.09168), then likelihood.
    """
    torch.manual_seed(0)
    voxels, given = batch
    config = GraphConfig.from_dict(config_of("micro", SHAPE).to_dict() | {"width": 32, "wide": 128})
    net, scale = GraphNetwork(config), graph.scale(config)
    scale.fit(voxels, given, steps=40)
    clean = scale(voxels, given)
    net.fit(given.features, clean)
    draw, wanted = torch.Generator().manual_seed(0), clean.energies @ net.whiten

    def whole() -> torch.Tensor:
        return torch.stack(list(graph.losses(net, clean, given, draw, Aim()).values())).sum()

    def energies() -> Belief:
        level = torch.randint(2, (16,), generator=draw) / 2
        noise = torch.randn(wanted.shape, generator=draw)
        return net.believe_energies(torch.lerp(noise, wanted, level[:, None]), level, given)

    learn(whole, net, 700, 1e-2)
    learn(lambda: (energies().value() - wanted).square().mean(), net.energies, 1500, 4e-3)
    learn(lambda: energies().surprise(wanted).mean(), net.energies, 1500, 4e-3)
    return Model(net.requires_grad_(False), scale, None, {}, "graph")  # type: ignore[arg-type]


def test_it_overfits_sixteen_showers(batch: Batch, small_detector: Detector) -> None:
    """Sixteen primaries, none like another, stand for one shower each, which is known by heart.
    Drawn for its primary, it comes back: its visible energy and its profiles in depth and radius to
    a few per cent, and the cells that are hit.
    """
    voxels, turn = batch[0][batch[1].energy.argsort()], np.arange(16)
    given = conditions(
        [small_detector], np.zeros(16, np.int64), np.geomspace(1e3, 1e5, 16),
        0.9 + 0.08 * (7 * turn % 16), np.array([11, -11, 22])[turn % 3],
    )  # fmt: skip
    model = by_heart((voxels, given))
    noise = Noise(np.arange(16, dtype=np.uint64) * 7919, torch.device("cpu"))
    found = graph.draw(model.network, model.scale, given, noise, Manner())
    visible = voxels.sum((1, 2, 3))
    assert float((found.sum((1, 2, 3)) / visible - 1).abs().mean()) < 0.02
    for axes in ((1, 2), (2, 3)):
        profile, wanted = found.sum(axes), voxels.sum(axes)
        assert float(((profile - wanted).abs().sum(1) / visible).mean()) < 0.05
    assert float(((found > 0) == (voxels > 0)).float().mean()) > 0.95


@pytest.fixture(scope="module")
def run(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(
        model="graph", size="micro", data=[str(p) for p in toy_files], steps=6, batch=16,
        warmup=2, scale_steps=40, learning_rate=3e-3, validate_every=3,
        graph=GraphSettings(neighbours=4),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("graph") / "run"
    train(recipe, out)
    return out


def test_the_same_seed_gives_the_same_showers_on_any_batch(
    run: Path, toy_files: list[Path]
) -> None:
    model = load_model(run)
    assert model.network.config.neighbours == 4
    generator, detector = Generator(model, "g"), read_showers(toy_files[0]).detector
    assert detector is not None
    whole, again, pieces, other = (
        generator.generate(detector, 2e4, 1.5, n=9, seed=seed, batch=batch).dense()
        for seed, batch in ((4, 64), (4, 64), (4, 4), (5, 64))
    )
    assert np.array_equal(whole, again)
    assert np.allclose(whole, pieces, rtol=1e-3, atol=1e-3)
    assert not np.allclose(whole, other)
    assert (whole.sum((1, 2, 3)) > 0).all() and (whole.sum((1, 2, 3)) < 2e4).all()


def test_a_saved_model_draws_the_same(run: Path, tmp_path: Path, batch: Batch) -> None:
    model = load_model(run)
    save_model(model, tmp_path / "copy")
    copy = load_model(tmp_path / "copy")
    assert copy.network.config == model.network.config
    drawn = [graph.draw(m.network, m.scale, batch[1], noise(16), Manner()) for m in (model, copy)]
    assert torch.equal(*drawn)
    assert not torch.equal(model.network.levels, torch.tensor([0.0, 1.0]))  # units of its voxels


def noise(n: int) -> Noise:
    return Noise(np.arange(n, dtype=np.uint64) * 104729 + 1, torch.device("cpu"))


def test_no_shower_is_empty_and_no_more_hits_than_allowed(run: Path, batch: Batch) -> None:
    model = load_model(run)
    few = GraphConfig.from_dict(model.network.config.to_dict() | {"most": 7})
    net = GraphNetwork(few)
    net.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        net.odds[-1].bias.fill_(-30.0)  # type: ignore[union-attr]
    drawn = graph.draw(net, model.scale, batch[1], noise(16), Manner())
    count = (drawn > 0).sum((1, 2, 3))
    assert int(count.min()) >= 1 and int(count.max()) <= 7


def test_sizes_grow_along_the_dial() -> None:
    counts = [
        sum(p.numel() for p in GraphNetwork(config_of(size, SHAPE)).parameters()) for size in SIZES
    ]
    assert counts == sorted(counts)
    assert FILLED > EMPTY


def test_what_does_not_serve_is_refused(run: Path) -> None:
    def recipe(**more: object) -> Recipe:
        return Recipe(data=["x"], model="graph", **more)  # type: ignore[arg-type]

    with pytest.raises(RequestError, match="graph has no size 'student'; choose micro"):
        graph.FAMILY.plan(recipe(size="student"), SHAPE, 1)
    with pytest.raises(RequestError, match="leave 'start' out"):
        graph.FAMILY.begin(recipe(start="base"), None, None)
    with pytest.raises(RequestError, match="'m' is drawn without --steps"):
        graph.FAMILY.settle(load_model(run), Manner(steps=3), "m")


def test_without_the_library_its_extra_is_named() -> None:
    code = """
import sys
sys.modules["torch_geometric"] = None
from caloforge.errors import RequestError
from caloforge.learn.models.family import family
try:
    family("graph")
except RequestError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch_geometric" in done.stdout and "caloforge[models]" in done.stdout
