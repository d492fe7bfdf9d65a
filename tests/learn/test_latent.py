"""The bound of autoencoders: the divergence, the draw, the warm-up, what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Aim
from caloforge.learn.models.latent import (
    FARTHEST,
    SHARP,
    Even,
    Posterior,
    checked,
    divergence,
    losses,
)
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import VoxelSettings

SHAPE = (2, 3, 4)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_divergence_of_the_standard_normal_is_nothing() -> None:
    nothing = torch.zeros(3, 7)
    assert divergence(Posterior(nothing, nothing)).tolist() == [0, 0, 0]


def test_the_divergence_is_the_mean_log_ratio_of_the_densities() -> None:
    mean, log_variance = torch.tensor([[0.5, -1.2, 0.0]]), torch.tensor([[-1.0, 0.3, -3.0]])
    many = Posterior(mean.expand(200_000, 3), log_variance.expand(200_000, 3))
    z = many.draw(source(1))
    far = (z - mean).square() / log_variance.exp()
    ratio = ((z.square() - far - log_variance) / 2).sum(1)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    wanted = float(divergence(Posterior(mean, log_variance)))
    assert wanted == pytest.approx(float(ratio.mean()), abs=4 * error) and error < 0.01 * wanted


class Fixed:
    """A network that says the same of every shower."""

    def __init__(self, divide: str = "incident_mev") -> None:
        self.config = SimpleNamespace(
            shape=SHAPE, latent=2, loss="mse", kl=0.5, kl_warmup=0.4,
            voxels=VoxelSettings(divide=divide),  # type: ignore[arg-type]
        )  # fmt: skip

    def encode(self, clean: Scaled, given: Conditions) -> Posterior:
        return Posterior(torch.ones(len(clean.voxels), 2), torch.zeros(len(clean.voxels), 2))

    def decode(self, z: torch.Tensor, given: Conditions) -> Scaled:
        return Scaled(torch.zeros(len(z), *SHAPE), torch.zeros(len(z), 1))

    def tasks(self, posterior: Posterior, given: Conditions) -> dict[str, torch.Tensor]:
        return {"more": posterior.mean.sum()}


def test_the_bound_sums_over_cells_and_its_divergence_rises_with_the_run() -> None:
    given = Conditions(*(torch.zeros(4, 2) for _ in range(4)))
    clean = Scaled(2 * torch.ones(4, *SHAPE), SHARP * torch.ones(4, 1))
    for done, risen in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (1.0, 1.0)):
        found = losses(Fixed(), clean, given, source(0), Aim(done=done))
        assert float(found["divergence"]) == pytest.approx(0.5 * risen * 1.0)
    assert float(found["voxels"]) == pytest.approx(4 * 24) and float(found["more"]) == 8
    assert "divisor" not in found
    own = losses(Fixed("largest"), clean, given, source(0), Aim())
    assert float(own["divisor"]) == pytest.approx(0.5)


def test_the_cross_entropy_of_a_perfect_decoder_is_nothing_and_of_another_more() -> None:
    class Perfect(Fixed):
        def __init__(self, clean: torch.Tensor) -> None:
            super().__init__()
            self.config.loss, self.found = "bce", clean.logit()

        def decode(self, z: torch.Tensor, given: Conditions) -> Scaled:
            return Scaled(self.found, torch.zeros(len(z), 0))

    given = Conditions(*(torch.zeros(4, 2) for _ in range(4)))
    clean = torch.rand(4, *SHAPE, generator=source(1))
    clean[:, 0] *= 1e-6
    found = [
        float(
            losses(Perfect(other), Scaled(clean, clean[:, :0]), given, source(0), Aim())["voxels"]
        )
        for other in (clean, 0.9 * clean, 0.5 * clean)
    ]
    assert abs(found[0]) < 1e-4 < found[1] < found[2]


def test_an_encoder_sees_every_voxel_in_its_own_spread_and_none_too_far() -> None:
    voxels = torch.randn(300, *SHAPE, generator=source(2)) * torch.logspace(-3, 2, 24).reshape(
        SHAPE
    )
    voxels[:, 0, 0, 0] = 0.0  # never filled
    even = Even(SHAPE)
    even.fit(voxels)
    seen = even(voxels)
    assert float(seen.abs().max()) <= FARTHEST and not seen[:, 0, 0, 0].any()
    assert torch.allclose(seen.std(0).flatten()[12:], torch.ones(12), atol=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "student"}, "vae has no size 'student'; choose tiny, base"),
        ({"masked": 0.3}, "'masked' is not read by model = 'vae'"),
        ({"untold": 0.1}, "'untold' is not read"),
        ({"start": "base"}, "'start' is not read"),
    ],
)
def test_what_is_not_read_is_refused(values: dict[str, object], message: str) -> None:
    recipe = Recipe.model_validate({"data": ["x"], "model": "vae"} | values)
    with pytest.raises(RequestError, match=message):
        checked(recipe, ("tiny", "base"))
