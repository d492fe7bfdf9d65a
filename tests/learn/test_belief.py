"""Beliefs: a spike and a slab under noise, their likelihood, and draws from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caloforge.learn.models.belief import Belief, moved
from caloforge.learn.models.samplers import beliefs

EMPTY = torch.tensor(-0.4, dtype=torch.float64)
P, SHARES, MEANS, SPREADS = 0.3, (0.25, 0.75), (0.6, 1.5), (0.2, 0.7)


def belief(n: int) -> Belief:
    """Of n values alike: empty with 0.7, else one of two Gaussians."""

    def column(values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)[None, :, None].expand(1, 2, n)

    odds = torch.full((1, n), math.log(P / (1 - P)), dtype=torch.float64)
    return Belief.of(odds, column(SHARES).log(), column(MEANS), column(SPREADS).log())


def integral(grid: torch.Tensor) -> torch.Tensor:
    """Probability of the spike and of each point of a fine grid."""
    slab = sum(
        share / spread * torch.exp(-(((grid - mean) / spread) ** 2) / 2)
        for share, mean, spread in zip(SHARES, MEANS, SPREADS, strict=True)
    )
    return torch.cat([torch.tensor([1 - P], dtype=torch.float64), P * slab / slab.sum()])


@pytest.mark.parametrize(
    ("t", "noisy"), [(0.0, 0.8), (0.3, -0.5), (0.5, 0.4), (0.8, 0.1), (0.9, 1.7)]
)
def test_what_is_seen_changes_a_belief_as_bayes_says(t: float, noisy: float) -> None:
    grid = torch.linspace(-8, 8, 80_001, dtype=torch.float64)
    values = torch.cat([EMPTY[None], grid])
    like = torch.exp(-(((noisy - t * values) / (1 - t)) ** 2) / 2) * integral(grid)
    like = like / like.sum()
    x = torch.full((1, 1), noisy, dtype=torch.float64)
    after = belief(1).seen(x, torch.full_like(x, t), EMPTY)
    assert float(after.odds.sigmoid()) == pytest.approx(float(1 - like[0]), abs=2e-4)
    mean = float((like[1:] * grid).sum() / like[1:].sum())
    assert float(after.value()) == pytest.approx(mean, abs=2e-4)
    second = float((like[1:] * grid**2).sum() / like[1:].sum())
    square = (after.share.exp() * (after.mean**2 + (2 * after.log_spread).exp())).sum()
    assert float(square) == pytest.approx(second, abs=5e-4)


def test_without_noise_the_belief_is_the_input() -> None:
    x = torch.linspace(0.5, 3, 6, dtype=torch.float64)[None]
    x[0, 2] = EMPTY
    after = belief(6).seen(x, torch.ones_like(x), EMPTY)
    guess = torch.lerp(EMPTY.expand_as(x), after.value(), after.odds.sigmoid())
    assert torch.allclose(guess, x, atol=1e-3)
    assert (after.odds > 0).tolist() == [[True, True, False, True, True, True]]


def test_the_likelihood_is_a_law() -> None:
    """Its exponential integrates to one, spike and slab together."""
    grid = torch.linspace(-0.39, 9, 200_001, dtype=torch.float64)[None]
    density = (-belief(grid.shape[1]).surprise(grid, EMPTY)).exp()
    lost = sum(  # of the slab, below the grid
        share * 0.5 * math.erfc((mean + 0.39) / spread / 2**0.5)
        for share, mean, spread in zip(SHARES, MEANS, SPREADS, strict=True)
    )
    spike = float((-belief(1).surprise(EMPTY.expand(1, 1), EMPTY)).exp())
    slab = float(density.sum() * (grid[0, 1] - grid[0, 0]))
    assert spike == pytest.approx(1 - P)
    assert spike + slab == pytest.approx(1 - P * lost, abs=1e-4)


def test_no_other_belief_is_less_surprised_on_average() -> None:
    n, rng = 100_000, np.random.default_rng(0)
    which = rng.random(n) < SHARES[0]
    value = np.where(
        which, rng.normal(MEANS[0], SPREADS[0], n), rng.normal(MEANS[1], SPREADS[1], n)
    )
    x = torch.from_numpy(np.where(rng.random(n) < P, value, float(EMPTY)))[None]
    true = belief(n)
    others = (
        true._replace(odds=true.odds + 0.3),
        true._replace(mean=true.mean + 0.1),
        true._replace(log_spread=true.log_spread + 0.2),
    )
    least = true.surprise(x, EMPTY).mean()
    assert all(other.surprise(x, EMPTY).mean() > least for other in others)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_independent_values_need_one_draw_and_more_do_no_harm(steps: int) -> None:
    n, draw = 200_000, torch.Generator().manual_seed(steps)

    def believe(x: torch.Tensor | None, t: float) -> Belief:
        return belief(n) if x is None else belief(n).seen(x, torch.full_like(x, t), EMPTY)

    def fresh() -> torch.Tensor:
        return torch.randn(1, n, generator=draw, dtype=torch.float64)

    x, filled = beliefs(believe, [k / steps for k in range(steps + 1)], fresh, EMPTY)
    assert filled is not None
    assert float(filled.double().mean()) == pytest.approx(P, abs=0.004)
    assert (x[~filled] == EMPTY).all()
    mean = sum(s * m for s, m in zip(SHARES, MEANS, strict=True))
    square = sum(s * (m**2 + w**2) for s, m, w in zip(SHARES, MEANS, SPREADS, strict=True))
    assert float(x[filled].mean()) == pytest.approx(mean, abs=0.012)
    assert float(x[filled].var()) == pytest.approx(square - mean**2, rel=0.03)


def test_a_step_to_the_data_is_the_draw_and_a_step_from_noise_forgets_it() -> None:
    x, mean, spread, normal = torch.randn(
        4, 50, generator=torch.Generator().manual_seed(0)
    ).double()
    t, one, none = (torch.tensor(v, dtype=torch.float64) for v in (0.4, 1.0, 0.0))
    spread = spread.abs()
    assert torch.allclose(moved(x, mean, spread, normal, t, one), mean + spread * normal)
    assert torch.allclose(
        moved(x, mean, spread, normal, none, t), moved(-x, mean, spread, normal, none, t)
    )
