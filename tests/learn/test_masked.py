"""The masked transformer: what is hidden is not seen, and can be learned to be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import load_model, save_model
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.losses import read
from caloforge.learn.models.family import Aim
from caloforge.learn.models.masked import (
    FAMILY,
    MaskedConfig,
    MaskedTransformer,
    _chosen,
    _shuffled,
    losses,
)
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import recipe_of
from caloforge.learn.settings import MaskedViTSettings, VoxelSettings
from caloforge.learn.train import train

PRETEXTS: dict[str, dict[str, object]] = {
    "zeros": dict(),
    "noise": dict(fill="noise", positions="fixed"),
    "mean": dict(fill="mean", positions="learned", loss="mae"),
    "visible": dict(visible=True, loss="bce"),
    "sinkhorn": dict(loss="sinkhorn"),
    "denoise": dict(task="denoise"),
    "replaced": dict(task="replaced"),
    "jigsaw": dict(task="jigsaw", energy=0.1),
}


@pytest.fixture
def batch(
    toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]],
) -> tuple[torch.Tensor, Conditions]:
    return toy_batch(16)


def built(
    batch: tuple[torch.Tensor, Conditions], **pretext: object
) -> tuple[MaskedTransformer, Scaled]:
    voxels, given = batch
    torch.manual_seed(0)
    shape = (voxels.shape[1], voxels.shape[2], voxels.shape[3])
    network = MaskedTransformer(
        MaskedConfig(shape, (3, 2, 2), 32, 2, 2, MaskedViTSettings(**pretext), VoxelSettings())  # type: ignore[arg-type]
    )
    scale = FAMILY.scale(network.config)
    scale.fit(voxels, given, 10)  # type: ignore[operator]
    clean = scale(voxels, given)
    network.fit(given.features, clean)
    return network, clean


def drawn(network: MaskedTransformer, clean: Scaled, given: Conditions) -> dict[str, torch.Tensor]:
    return losses(network, clean, given, torch.Generator().manual_seed(3), Aim())


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_pretext_has_a_finite_loss_and_gradients_that_depend_on_the_draw_alone(
    batch: tuple[torch.Tensor, Conditions], name: str
) -> None:
    network, clean = built(batch, **PRETEXTS[name])
    parts = drawn(network, clean, batch[1])
    again = drawn(network, clean, batch[1])
    assert parts.keys() == again.keys() and all(torch.equal(parts[k], again[k]) for k in parts)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    touched = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(touched) > 10 and all(bool(g.isfinite().all()) for g in touched)


@pytest.mark.parametrize("visible", [False, True])
def test_what_is_hidden_is_not_seen(batch: tuple[torch.Tensor, Conditions], visible: bool) -> None:
    network, clean = built(batch, visible=visible)
    hidden = torch.zeros(16, network.patches.tokens, dtype=torch.bool)
    hidden[:, ::2] = True
    shown = torch.where(network.patches.fill(hidden), network.empty, clean.voxels)
    other = torch.where(network.patches.fill(hidden), 0.5, clean.voxels) if visible else shown
    one, two = (network(x, hidden, batch[1]).voxels for x in (shown, other))
    if not visible:
        assert torch.equal(one, two)
        return
    # The encoder leaves the hidden patches out: what stands in them reaches only themselves' input.
    x, y = (network.embedded(v, hidden, batch[1]) for v in (shown, other))
    seen_x, seen_y = (network._around(t, hidden)[~hidden] for t in (x, y))
    assert torch.equal(seen_x, seen_y)


def test_so_many_patches_are_changed_and_shuffling_is_a_permutation_of_them() -> None:
    draw = torch.Generator().manual_seed(5)
    share = torch.tensor([0.0, 0.25, 0.5, 1.0])
    changed = _chosen(share, 20, draw)
    assert changed.sum(1).tolist() == [1, 5, 10, 19]
    tokens = torch.arange(80.0).reshape(4, 20, 1)
    shuffled, whence = _shuffled(tokens, changed, draw)
    assert torch.equal(shuffled[..., 0], tokens[..., 0].gather(1, whence))
    assert torch.equal(shuffled.sort(1).values, tokens)
    assert torch.equal(shuffled[~changed], tokens[~changed])
    assert not torch.equal(shuffled, tokens)


def test_the_mean_shower_follows_the_energy(batch: tuple[torch.Tensor, Conditions]) -> None:
    network, clean = built(batch, fill="mean")
    typical = network.mean_shower(batch[1])
    assert (clean.voxels - typical).square().mean() < clean.voxels.var() * 0.9
    assert not torch.allclose(typical[0], typical[1])


def test_sixteen_showers_are_learned_by_heart(batch: tuple[torch.Tensor, Conditions]) -> None:
    network, clean = built(batch, share=(0.3, 0.3))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    hidden = torch.zeros(16, network.patches.tokens, dtype=torch.bool)
    hidden[:, ::3] = True
    shown = torch.where(network.patches.fill(hidden), network.empty, clean.voxels)
    for _ in range(400):
        guess = read("mse", network(shown, hidden, batch[1]).voxels)
        loss = (guess - clean.voxels).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(loss.detach()) < 0.01  # of a variance of 1


def test_it_trains_is_saved_and_does_not_generate(
    toy_files: list[Path], tmp_path: Path, small_detector: Detector
) -> None:
    recipe = recipe_of(
        dict(model="vit", size="micro", data=[str(f) for f in toy_files], steps=6, batch=16,
             scale_steps=10, learning_rate=2e-3, validate_every=3, vit={"energy": 0.1}),
        [], "r",
    )  # fmt: skip
    summary = train(recipe, tmp_path / "run")
    assert summary.validation_loss is not None and summary.utilisation > 0
    model = load_model(tmp_path / "run")
    assert model.family == "vit" and "masked" not in (tmp_path / "run" / "card.md").read_text()
    save_model(model, tmp_path / "copy", half=True)
    voxels = torch.zeros(2, *model.network.config.shape)
    index = np.zeros(2, np.int64)
    given = conditions([small_detector], index, np.full(2, 2e4), np.full(2, 1.5), np.full(2, 11))
    one, two = (
        load_model(tmp_path / name).network.tokens(voxels, given, 1) for name in ("run", "copy")
    )
    assert torch.allclose(one, two, atol=1e-2) and one.shape == (2, one.shape[1], 32)
    with pytest.raises(RequestError, match="does not generate"):
        Generator(model, "m").generate(small_detector, 2e4)


def test_a_size_that_there_is_not_is_refused() -> None:
    values = {"model": "vit", "size": "student", "data": ["x"]}
    with pytest.raises(RequestError, match="vit has no size 'student'; choose micro"):
        FAMILY.plan(recipe_of(values, [], "r"), (9, 16, 45), 1)
    shape = FAMILY.plan(recipe_of(values | {"size": "base"}, [], "r"), (18, 50, 45), 1)
    assert shape.patch == (18, 5, 3)
