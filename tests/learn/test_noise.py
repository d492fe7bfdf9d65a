"""Noise: a shower's own, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import torch

from caloforge.learn.models.denoiser import start
from caloforge.learn.models.diffusion import DiffusionTransformer, config_of
from caloforge.learn.noise import Dealt, Noise


def test_a_showers_noise_is_its_own() -> None:
    network = DiffusionTransformer(config_of("micro", (3, 4, 10)))
    seeds = np.array([5, 2**63 + 1, 7], np.uint64)
    together, alone = (Noise(s, torch.device("cpu")) for s in (seeds, seeds[1:2]))
    one, two = start(network, together), start(network, alone)
    assert torch.equal(one.voxels[1:2], two.voxels) and torch.equal(one.energies[1:2], two.energies)
    more, fresh = together.fresh(one.voxels), alone.fresh(two.voxels)
    assert torch.equal(more[1:2], fresh)
    assert not torch.equal(more[1], one.voxels[1]) and not torch.equal(more[0], more[1])
    assert abs(float(one.voxels.mean())) < 0.2 and 0.8 < float(one.voxels.std()) < 1.2


def test_what_is_dealt_is_all_there_is_and_in_its_order() -> None:
    numbers = torch.arange(24.0).reshape(2, 12)
    dealt = Dealt(numbers)
    parts = [dealt.rows(3), dealt.fresh(torch.zeros(2, 2, 2)).flatten(1), dealt.rows(5)]
    assert torch.equal(torch.cat(parts, dim=1), numbers)
