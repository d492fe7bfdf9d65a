"""What of a prior may learn has no say in what a code is, and all of it is taught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn.adapt import adapt
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Aim, family
from caloforge.learn.models.prior_tuning import HEADS, LEARNS, tuning
from caloforge.learn.preprocess import Scaled

Batch = tuple[Scaled, Conditions]


@pytest.fixture
def model(tiny_prior: Path) -> Model:
    model = load_model(tiny_prior)
    model.network.requires_grad_(True)
    return model


@pytest.fixture
def batch(model: Model, toy_batch: Callable[[int], tuple[torch.Tensor, Conditions]]) -> Batch:
    voxels, given = toy_batch(16)
    return model.scale(voxels, given), given


def taught(model: Model) -> set[str]:
    """Names of the weights that have a gradient."""
    weights = model.network.named_parameters()
    return {name for name, weight in weights if weight.grad is not None and weight.grad.any()}


def losses(model: Model, batch: Batch, adapting: bool) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return family("prior").losses(model.network, *batch, draw, Aim(adapting=adapting))


def test_no_weight_that_learns_has_a_say_in_what_a_code_is(model: Model, batch: Batch) -> None:
    model.network.tokeniser.encode(*batch).square().sum().backward()
    assert taught(model) and not any(name.startswith(LEARNS) for name in taught(model))


def test_all_that_learns_is_taught_and_of_the_encoder_nothing(model: Model, batch: Batch) -> None:
    torch.stack(list(losses(model, batch, True).values())).sum().backward()
    learns = {name for name, _ in model.network.named_parameters() if name.startswith(LEARNS)}
    assert learns <= taught(model) and set(HEADS) < set(LEARNS)
    kept = taught(model) - learns  # what the decoder shares with the encoder
    sides = ("encoder.", "to_code.", "embed_voxels.", "quantiser.")
    assert not any(name.removeprefix("tokeniser.").startswith(sides) for name in kept)


def test_adapting_adds_the_surprise_of_voxels_in_nats_a_place(model: Model, batch: Batch) -> None:
    """Of a decoder that says of every voxel that it is empty or not by a coin: log 2 a voxel."""
    plain, whole = (losses(model, batch, adapting) for adapting in (False, True))
    assert set(whole) - set(plain) == {"voxels"}
    assert all(torch.equal(plain[name], whole[name]) for name in plain)
    tokeniser = model.network.tokeniser
    torch.nn.init.zeros_(tokeniser.head.weight)
    torch.nn.init.zeros_(tokeniser.head.bias)
    torch.nn.init.zeros_(tokeniser.patchwork.neighbours.second.weight)
    torch.nn.init.zeros_(tokeniser.patchwork.neighbours.second.bias)
    empty = Scaled(tokeniser.empty.expand(batch[0].voxels.shape), batch[0].energies)
    found = losses(model, (empty, batch[1]), True)["voxels"]
    torch.testing.assert_close(found, 12 * torch.tensor(2.0).log())


def test_what_cannot_be_adapted_is_refused(
    model: Model, tiny_prior: Path, toy_files: list[Path], tmp_path: Path
) -> None:
    config = model.network.config
    assert tuning(model, "m", config.shape).learns == LEARNS
    with pytest.raises(RequestError, match=r"'m' knows a mesh of \(3, 4, 10\) cells, the showers"):
        tuning(model, "m", (9, 16, 45))
    object.__setattr__(config.tokeniser, "layers", False)
    with pytest.raises(RequestError, match="draws no energies of layers"):
        tuning(model, "m", config.shape)
    tokens = tiny_prior.parent / "tokens"
    with pytest.raises(RequestError, match="is of kind 'vqvae', which cannot be adapted"):
        adapt(tokens, [toy_files[0]], tmp_path / "run")
    assert not (tmp_path / "run").exists()
