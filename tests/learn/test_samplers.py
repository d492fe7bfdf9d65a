"""Samplers: hits that are expected, parts that are known, guidance that does nothing at one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.condition import conditions
from caloforge.learn.models.denoiser import start
from caloforge.learn.models.diffusion import DiffusionTransformer, config_of
from caloforge.learn.models.samplers import Known, expecting, sample
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Drawn, Scaled

SHAPE = (3, 4, 10)


def awake(**other: object) -> DiffusionTransformer:
    torch.manual_seed(0)
    net = DiffusionTransformer(config_of("micro", SHAPE, **other))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def test_as_many_hits_are_expected_as_wanted() -> None:
    torch.manual_seed(0)
    odds = 3 * torch.randn(5, *SHAPE) - 1
    hits = torch.bernoulli(torch.sigmoid(odds)).sum((1, 2)).clamp(1, 11)
    shifted = expecting(odds, hits)
    assert torch.allclose(torch.sigmoid(shifted).sum((1, 2)), hits, atol=0.05)
    # One shift for a layer: the order of its voxels stays.
    moved = (shifted - odds).flatten(1, 2)
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-5)


def test_odds_that_expect_the_right_number_are_left_alone() -> None:
    odds = torch.randn(2, *SHAPE)
    assert torch.allclose(expecting(odds, torch.sigmoid(odds).sum((1, 2))), odds, atol=1e-4)


def test_an_empty_layer_stays_empty() -> None:
    shifted = expecting(torch.zeros(1, *SHAPE), torch.zeros(1, 10))
    assert float(torch.sigmoid(shifted).sum()) < 0.5


def drawn(small_detector: Detector, sampler: str = "heun", **more: object) -> Scaled | Drawn:
    net, n = awake(**({"process": "beliefs", "mixture": 2} if sampler == "beliefs" else {})), 4
    rng = np.random.default_rng(0)
    given = conditions(
        [small_detector], np.zeros(n, np.int64), rng.uniform(1e3, 1e5, n), rng.uniform(1, 2, n), np.full(n, 11)
    )  # fmt: skip
    noise = Noise(np.arange(n).astype(np.uint64) + 5, torch.device("cpu"))
    with torch.no_grad():
        return sample(
            net,
            start(net, noise),
            given,
            3,
            sampler,
            fresh=noise.fresh,
            **more,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("sampler", ["heun", "beliefs"])
def test_known_tokens_and_energies_are_kept(small_detector: Detector, sampler: str) -> None:
    free = drawn(small_detector, sampler)
    scaled = Scaled(torch.randn(4, *SHAPE), torch.randn_like(free.energies))
    tokens = torch.tensor([True, False])
    energies = torch.arange(free.energies.shape[1]) < 7
    kept = drawn(small_detector, sampler, known=Known(scaled, tokens, energies))
    assert torch.allclose(kept.energies[:, :7], scaled.energies[:, :7], atol=1e-4)
    assert not torch.allclose(kept.energies[:, 7:], free.energies[:, 7:])
    assert not torch.allclose(kept.voxels[..., 5:], free.voxels[..., 5:])


@pytest.mark.parametrize("sampler", ["heun", "beliefs"])
def test_guidance_at_one_is_none(small_detector: Detector, sampler: str) -> None:
    plain, same, more = (drawn(small_detector, sampler, guidance=g).voxels for g in (1.0, 1.0, 3.0))
    assert torch.equal(plain, same) and not torch.allclose(plain, more)
