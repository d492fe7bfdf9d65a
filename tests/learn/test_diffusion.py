"""The diffusion transformer: shapes, gradients, the laws of its samplers, overfitting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.models.belief import Belief
from caloforge.learn.models.diffusion import (
    SIZES,
    DiffusionConfig,
    DiffusionTransformer,
    config_of,
)
from caloforge.learn.models.process import PROCESSES, denoising_loss
from caloforge.learn.models.samplers import SAMPLERS, multistep, sample
from caloforge.learn.preprocess import Scaled, quantities
from caloforge.showers.showers import Showers

Toy = Callable[..., Showers]
SHAPE = (3, 4, 10)
ENERGIES = 1 + 2 * 10 + 4  # total, layers, their hits, and a sketch of (3, 2, 5) cells


def given_for(detector: Detector, n: int) -> Conditions:
    rng = np.random.default_rng(0)
    energy = rng.uniform(1e3, 1e5, n)
    return conditions(
        [detector], np.zeros(n, np.int64), energy, rng.uniform(1, 2, n), np.full(n, 11)
    )


def network(size: str = "micro") -> DiffusionTransformer:
    torch.manual_seed(0)
    return DiffusionTransformer(config_of(size, SHAPE))


def awake(net: DiffusionTransformer) -> DiffusionTransformer:
    """Open the gates that are closed at the start, so that the output depends on the input."""
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("patch", [(3, 4, 5), (1, 2, 2), (3, 4, 1)])
def test_shapes_and_finite_gradients(small_detector: Detector, patch: tuple[int, int, int]) -> None:
    net = awake(
        DiffusionTransformer(
            DiffusionConfig(SHAPE, patch, (3, 2, 5) if patch[2] in (1, 5) else (3, 2, 2), 16, 2, 2)
        )
    )
    given = given_for(small_detector, 8)
    clean = Scaled(torch.randn(8, *SHAPE), torch.randn(8, quantities(net.sketch)))
    losses = denoising_loss(net, clean, given, torch.Generator().manual_seed(0))
    sum(losses).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) > 0 for g in gradients if g is not None) > 0.9 * len(gradients)


def test_sizes_grow_along_the_dial() -> None:
    counts = [
        sum(p.numel() for p in DiffusionTransformer(config_of(size, (9, 16, 45))).parameters())
        for size in SIZES
    ]
    assert counts == sorted(counts)
    assert counts[2] < 5e6  # "small" ships with the package


def test_config_survives_json() -> None:
    config = config_of("small", (9, 16, 45))
    assert DiffusionConfig.from_dict(config.to_dict()) == config


# Of a Gaussian N(m, s^2) the guess is known: the samplers must turn noise into m + s noise.
def gaussian(m: float, s: float):
    def guess(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        belief = Belief.filled(torch.full_like(x, m), torch.full_like(x, s).log())
        return belief.seen(x, t.expand_as(x), torch.zeros(())).value()

    return guess


def error_of(name: str, steps: int, m: float = 2.0, s: float = 0.5) -> float:
    noise = torch.linspace(-3, 3, 61, dtype=torch.float64)
    levels = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    drawn = SAMPLERS[name](gaussian(m, s), noise, levels)
    return float((drawn - (m + s * noise)).abs().max())


@pytest.mark.parametrize("name", ["euler", "heun", "multistep"])
def test_solvers_recover_an_analytic_gaussian(name: str) -> None:
    assert error_of(name, 400) < 0.02


def test_the_ancestral_chain_recovers_an_analytic_gaussian() -> None:
    noise = torch.randn(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = SAMPLERS["ancestral"](gaussian(2.0, 0.5), noise, PROCESSES["ddpm"].levels(400).double())
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("multistep", 2)])
def test_samplers_converge_with_their_order(name: str, order: int) -> None:
    # Up to t = 0.8: the last step, to t = 1, is Euler's in all of them.
    def end(steps: int) -> torch.Tensor:
        levels = torch.linspace(0, 0.8, steps + 1, dtype=torch.float64)
        levels = torch.cat([levels, levels[-1:]])
        return SAMPLERS[name](gaussian(2.0, 0.5), torch.ones(1, dtype=torch.float64), levels)

    exact = end(5000)
    assert float((end(160) - exact).abs() / (end(320) - exact).abs()) > 0.85 * 2**order


def test_multistep_is_exact_for_a_guess_linear_in_the_level() -> None:
    start, levels = (
        torch.zeros(1, dtype=torch.float64),
        torch.linspace(0, 0.9, 10, dtype=torch.float64),
    )

    def guess(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (1 + 2 * t).expand_as(x)

    # The first step has no past; from then on d(x/(1-t))/dt = (1 + 2t)/(1-t)^2 is solved exactly.
    x = multistep(guess, start, torch.cat([levels, levels[-1:]]))
    first = float(levels[1])
    exact = (1 - 0.9) * (
        first / (1 - first) + 3 / 0.1 - 3 / (1 - first) - 2 * np.log((1 - first) / 0.1)
    )
    assert float(x) == pytest.approx(exact, abs=1e-9)


def test_sampling_repeats_itself_and_sees_phi(small_detector: Detector) -> None:
    net, given = awake(network()), given_for(small_detector, 4)
    noise = Scaled(torch.randn(4, *SHAPE), torch.randn(4, ENERGIES))
    with torch.no_grad():
        once, again = (sample(net, noise, given, 2, "heun") for _ in range(2))
        other = sample(net, noise._replace(voxels=noise.voxels.flip(2)), given, 2, "heun")
    assert torch.equal(once.voxels, again.voxels) and torch.equal(once.energies, again.energies)
    assert not torch.allclose(once.voxels, other.voxels)


def test_overfits_a_few_showers(toy: Toy, small_detector: Detector) -> None:
    net, given = network(), given_for(small_detector, 4)
    clean = Scaled(torch.randn(4, *SHAPE), torch.randn(4, ENERGIES))
    net.fit(given.features, clean)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    draw = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        energies, voxels = denoising_loss(net, clean, given, draw)
        (energies + voxels).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(float(voxels.detach()))
    assert np.mean(losses[-50:]) < 0.3 * np.mean(losses[:20])
