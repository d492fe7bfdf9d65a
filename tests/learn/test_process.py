"""The forward processes: one line of levels for all, their weights, and the loss with its masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.learn.models.process import DDPM_STEPS, PROCESSES, _masks


@pytest.mark.parametrize("name", PROCESSES)
def test_levels_rise_from_noise_to_data(name: str) -> None:
    levels = PROCESSES[name].levels(12)
    assert len(levels) == 13 and (levels.diff() > 0).all()
    assert float(levels[0]) < 0.02
    assert float(levels[-1]) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("name", PROCESSES)
def test_drawn_levels_are_levels(name: str) -> None:
    process = PROCESSES[name]
    t = process.draw(torch.randn(5000, generator=torch.Generator().manual_seed(0)))
    assert (t >= 0).all() and (t < 1).all() and float(t.std()) > 0.1
    assert torch.isfinite(process.weight(t)).all() and (process.weight(t) >= 0).all()


def test_ddpm_draws_its_steps_evenly() -> None:
    t = PROCESSES["ddpm"].draw(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    values, counts = torch.unique(t, return_counts=True)
    assert len(values) == DDPM_STEPS
    assert float(counts.float().std()) < 1.3 * (200_000 / DDPM_STEPS) ** 0.5


def test_the_noise_of_ddpm_is_that_of_its_cosine() -> None:
    """alpha^2 + sigma^2 = 1 when x_t is multiplied back, and alpha follows the published formula."""
    t = PROCESSES["ddpm"].levels(DDPM_STEPS).double().flip(0)  # t of step 0, 1, ... 400
    size = (t.square() + (1 - t).square()).sqrt()
    step = np.arange(DDPM_STEPS + 1) / DDPM_STEPS
    published = np.cos((step + 0.008) / 1.008 * np.pi / 2)
    assert np.allclose((t / size).numpy()[:-4], published[:-4], atol=1e-4)


def test_edm_weighs_like_karras() -> None:
    """lambda(sigma) = (sigma^2 + s^2)/(sigma s)^2 for data of spread s = 1, at t = 1/(1 + sigma)."""
    sigma = torch.tensor([0.1, 0.5, 2.0, 20.0])
    weight = PROCESSES["edm"].weight(1 / (1 + sigma))
    assert torch.allclose(weight, (sigma**2 + 1) / sigma**2, rtol=1e-4)


def test_masks_leave_something_to_find() -> None:
    draw = torch.Generator().manual_seed(0)
    seen = _masks(4, 4000, 0.5, draw, torch.device("cpu"))
    masked = seen.any(dim=1)
    assert not seen.all(dim=1).any()
    assert 0.35 < float(masked.float().mean()) < 0.5  # some masks happen to show nothing
    assert not _masks(4, 100, 0.0, draw, torch.device("cpu")).any()
