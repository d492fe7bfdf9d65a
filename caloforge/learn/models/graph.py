"""Graph networks: how one is planned, taught, drawn from, and read from.

The network is in `hitgraph`. It is trained by likelihood alone: of the energies, of every cell to
be hit or not (Bernoulli), and of the energy of every hit (a mixture of Gaussians in its logarithm).
Each is drawn in a few draws: the first given nothing but what was drawn before, the others given
noise on the draft before (`caloforge.learn.models.belief`), so that hits know of their neighbours.
The levels of training are those of drawing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.condition import Conditions
from caloforge.learn.models.belief import MOST, Belief
from caloforge.learn.models.family import Aim, Family, Manner, check_size
from caloforge.learn.models.hitgraph import (
    EMPTY,
    FILLED,
    SIZES,
    GraphConfig,
    GraphNetwork,
    Told,
    config_of,
)
from caloforge.learn.models.samplers import beliefs, even, expecting
from caloforge.learn.noise import Noise, normal, uniform
from caloforge.learn.preprocess import Drawn, Scaled, ShowerScale
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import GraphSettings
from caloforge.learn.tokens import Patches

__all__ = ["FAMILY"]

CELLS = 10.0  # Cells to a hit, roughly: with it the sum of all losses is a likelihood.


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> GraphConfig:
    """Return the configuration that a recipe asks for."""
    check_size(recipe, SIZES)
    return config_of(recipe.size, shape, **(recipe.graph or GraphSettings()).model_dump())


def scale(config: GraphConfig) -> ShowerScale:
    """Return the preprocessing that belongs to a network, not fitted yet."""
    return ShowerScale(Patches(config.shape, config.sketch), counted=True)


@torch.no_grad()
def begin(recipe: Recipe, network: GraphNetwork, scale: ShowerScale) -> None:
    """Tell a new network the units of its voxels, which its features are read in."""
    if recipe.start:
        raise RequestError("graph networks begin anew: leave 'start' out")
    network.levels.copy_(torch.stack([scale.voxel_mean, scale.voxel_spread]))


def losses(
    network: GraphNetwork, clean: Scaled, given: Conditions, draw: torch.Generator, aim: Aim
) -> dict[str, Tensor]:
    """Losses of energies, hits and values, each (), of B showers."""
    b, device, draws = len(clean.energies), clean.energies.device, network.config.draws
    levels = torch.randint(draws, (b, 3), generator=draw, device=draw.device).to(device) / draws
    if aim.untold:
        drop = uniform(draw, (b, 1), device) < aim.untold
        given = given._replace(features=given.features.masked_fill(drop, torch.nan))
    filled = network.filled(clean.voxels)
    wanted = clean.energies @ network.whiten
    drafts = [normal(draw, x.shape, device)
              for x in (wanted, clean.voxels, clean.voxels)]  # fmt: skip
    state = torch.where(filled, FILLED, EMPTY)
    energies, hit, values = (
        torch.lerp(noise, x, levels[:, k].reshape(-1, *[1] * (x.ndim - 1)))
        for k, (noise, x) in enumerate(zip(drafts, (wanted, state, clean.voxels), strict=True))
    )
    hits = network.hits(filled, given.pitch, rank=clean.voxels)
    of_energies, of_hits, of_values = network(
        Scaled(values, energies), hit, levels, hits, clean.energies, given
    )
    misses = of_values.surprise(hits.of(clean.voxels))[:, None]
    wrong = F.binary_cross_entropy_with_logits(of_hits.odds, filled.to(of_hits.odds.dtype))
    return {
        "energies": of_energies.surprise(wanted).mean(),
        "hits": CELLS * wrong,
        "values": hits.mean(misses).mean(),
    }


def draw(
    network: GraphNetwork, scale: ShowerScale, given: Conditions, noise: Noise, manner: Manner
) -> Tensor:
    """Voxels (B, R, PHI, Z) in MeV of showers under conditions."""
    energies = _draw_energies(network, given, noise)
    told, wanted = network.told(energies, given), scale.hits(energies, given)
    odds, filled = _draw_hits(network, told, wanted, noise)
    values = torch.zeros_like(odds)
    hits = network.hits(filled, given.pitch, rank=odds)

    def believe(x: Tensor | None, t: float) -> Belief:
        level = torch.full_like(hits.shower, t, dtype=values.dtype)
        return network.believe_values(
            hits, torch.zeros_like(level) if x is None else x, level, told
        )

    levels = even(network.config.draws)
    found, _ = beliefs(believe, levels, lambda: hits.of(noise.fresh(values)), network.empty)
    values = hits.to_cells(found, values)
    odds = hits.to_cells(torch.full_like(found, MOST), torch.full_like(odds, -MOST))
    return scale.inverse(Drawn(values, energies, odds), given)


def _draw_energies(network: GraphNetwork, given: Conditions, noise: Noise) -> Tensor:
    """Draw energies (B, K) of B showers."""
    like = network.whiten.new_zeros(given.showers, len(network.whiten))

    def believe(x: Tensor | None, t: float) -> Belief:
        return network.believe_energies(
            like if x is None else x, like.new_full((len(like),), t), given
        )

    found, _ = beliefs(believe, even(network.config.draws), lambda: noise.fresh(like))
    return found @ network.colour


def _draw_hits(
    network: GraphNetwork, told: Told, wanted: Tensor, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Draw which cells are hit: logarithms of odds, and whether, both (B, R, PHI, Z).

    `wanted` (B, Z) hits are expected in the layers.
    """
    like = told.active[..., 0]
    last = like

    def believe(x: Tensor | None, t: float) -> Belief:
        nonlocal last
        level = like.new_full((len(like),), t)
        belief = network.believe_hits(torch.zeros_like(like) if x is None else x, level, told)
        last = expecting(belief.odds, wanted)
        return belief._replace(odds=last)

    _, filled = beliefs(believe, even(network.config.draws), lambda: noise.fresh(like),
                        like.new_tensor(EMPTY))  # fmt: skip
    assert filled is not None
    best = last == last.amax(dim=(1, 2, 3), keepdim=True)  # a shower leaves something somewhere
    none = ~filled.flatten(1).any(dim=1)
    return last, filled | (best & none[:, None, None, None])


FAMILY = Family(
    plan=plan,
    config=GraphConfig.from_dict,
    network=GraphNetwork,
    scale=scale,
    losses=losses,
    begin=begin,
    draw=draw,
)
