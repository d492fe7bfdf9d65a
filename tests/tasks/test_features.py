"""Features: the first blocks of the whole network, a row for each shower, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind
from caloforge.tasks.features import POOLS, SCALARS, TOKENS, View, cut, features
from caloforge.tasks.likelihood import ODDS

Toy = Callable[..., Showers]


def test_a_cut_network_has_the_tokens_of_the_whole_one_after_that_block(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    network, kept = tiny_model.network, []
    hook = network.blocks[0].register_forward_hook(lambda _m, _i, out: kept.append(out))
    voxels = torch.from_numpy(toy(small_detector, 8).dense())
    given = Blind(tiny_model.scale, small_detector, torch.device("cpu"))(voxels)
    with torch.inference_mode():
        TOKENS[type(network)](network, tiny_model.scale, voxels, given, View())
        tokens = TOKENS[type(network)](cut(network, 1), tiny_model.scale, voxels, given, View())
    hook.remove()
    assert torch.allclose(tokens, network.norm(kept[0]), atol=1e-6)
    assert len(network.blocks) == 2, "the whole network is left as it was"


@pytest.mark.parametrize("pooling", [name for name in POOLS if name != "odds"])
@pytest.mark.parametrize("level", [1.0, 0.5])
def test_a_row_does_not_depend_on_the_other_showers(
    tiny_model: Model, toy: Toy, small_detector: Detector, pooling: str, level: float
) -> None:
    showers = toy(small_detector, 70)  # more than a batch
    view = View(1, pooling, level)
    rows = features(tiny_model, showers, view)
    assert np.isfinite(rows).all() and len(rows) == 70
    assert features(tiny_model, showers[np.array([69, 3])], view) == pytest.approx(
        rows[[69, 3]], abs=1e-4
    )


@pytest.fixture(scope="module")
def masked(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A masked transformer after a few steps."""
    out = tmp_path_factory.mktemp("vit")
    data = [str(path) for path in toy_files]
    train(Recipe(model="vit", size="micro", data=data, steps=5, batch=32, warmup=2), out)
    return load_model(out)


@pytest.mark.parametrize("level", [1.0, 0.7])
def test_a_masked_transformer_has_features_that_do_not_know_the_truth(
    masked: Model, toy: Toy, small_detector: Detector, level: float
) -> None:
    showers = toy(small_detector, 10)
    other = showers.with_(energy=showers.energy * 3, theta=np.full(10, 1.0), pdg=np.full(10, 22))
    one, two = (View(k, "front", level).check(masked.network) for k in (1, 2))
    rows = features(masked, showers, one)
    assert (rows == features(masked, other, one)).all()
    assert not np.allclose(rows, features(masked, showers, two))


def test_a_kind_without_tokens_is_refused(tiny_model: Model) -> None:
    with pytest.raises(RequestError, match="masked transformer"):
        View().check(replace(tiny_model, network=torch.nn.Linear(2, 2)).network)


def test_pooling_keeps_what_is_everywhere_the_same() -> None:
    token = torch.randn(1, 1, ODDS)
    tokens = token.expand(2, 1 + 3 * 4 * 10, ODDS)
    for pool in POOLS.values():
        pooled = pool(tokens, (3, 4, 10))
        assert torch.allclose(pooled, token[0].repeat(2, pooled.shape[1] // ODDS), atol=1e-6)


def test_the_front_is_kept_one_by_one_and_the_rest_is_not() -> None:
    depth = torch.arange(10.0).expand(2, 3, 4, 10)
    tokens = torch.cat([torch.full((2, 1, 1), 7.0), depth.reshape(2, -1, 1)], dim=1)
    assert POOLS["front"](tokens, (3, 4, 10))[0].tolist() == [7.0, 4.5, 0.0, 1.0, 2.0, 3.0]


def test_noise_changes_features_and_its_seed_does(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 5)
    clean, noisy, other = (
        features(tiny_model, showers, view)
        for view in (View(), View(level=0.5), View(level=0.5, seed=1))
    )
    assert (clean[:, :SCALARS] == noisy[:, :SCALARS]).all()
    assert not np.allclose(clean, noisy) and not np.allclose(noisy, other)


@pytest.mark.parametrize(
    "view", [View(block=0), View(block=3), View(pooling="max"), View(level=0.0), View(level=1.1)]
)
def test_a_view_that_the_model_does_not_have_is_refused(tiny_model: Model, view: View) -> None:
    with pytest.raises(RequestError):
        view.check(tiny_model.network)


def test_showers_that_do_not_fit_are_refused(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 5)
    with pytest.raises(RequestError, match="do not say their detector"):
        features(tiny_model, showers.with_(detector=None), View())
    with pytest.raises(RequestError, match="no showers"):
        features(tiny_model, showers[:0], View())
    with pytest.raises(RequestError, match="mesh"):
        features(tiny_model, toy(load_detector("par04-siw"), 2), View())
