r"""The forward process: which levels are trained, how they are weighed, where a sampler stops over.

Every Gaussian diffusion :math:`\alpha x_1 + \sigma \epsilon` becomes
:math:`x_t = t x_1 + (1 - t) \epsilon` with :math:`t = \alpha/(\alpha + \sigma)` when it is divided
by :math:`\alpha + \sigma` (Kingma and Gao, arXiv:2303.00848). One network therefore serves all
three; they differ in the distribution of t, the weight of the loss, and the levels of sampling:

- ``flow``: t logit-normal, loss on the field :math:`x_1 - \epsilon` (arXiv:2210.02747,
  arXiv:2403.03206), levels closer together towards the data;
- ``edm``: :math:`\ln \sigma` normal, its own weight and levels (Karras et al., arXiv:2206.00364);
- ``ddpm``: 400 steps of the cosine schedule, loss on :math:`\epsilon` (Ho et al.,
  arXiv:2006.11239; Nichol and Dhariwal, arXiv:2102.09672);
- ``beliefs``: t even in [0, 1), a share of it at 0, where a shower begins; the whole belief is
  trained, by its likelihood, and drawn from in a few even steps (see `belief`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.noise import normal, uniform
from caloforge.learn.preprocess import Scaled

__all__ = ["PROCESSES", "Process", "denoising_loss"]

CLOSEST = 0.05  # The field is x_1 - x_t over 1 - t; no closer to t = 1 than this.
ENERGY_SHARE = 0.25  # Share of a batch that trains the first stage.
NEAREST = 0.95  # No level that is closer to the data has to be known to draw in a few steps.
CROWDED = 1.5  # Levels of sampling stand closer at the clean end, where voxels are decided.
DDPM_STEPS = 400
VOXELS = 10.0  # Weight of a voxel's surprise: most voxels are empty and hardly surprise.
AT_NOISE = 0.3  # Share of the showers of ``beliefs`` that are trained where they begin.


@dataclass(frozen=True)
class Process:
    """Levels t from normal numbers (B,), weight of an error at t, levels (K + 1,) of K steps,
    the sampler and the steps that suit it, and the share of a batch that trains the energies.
    """

    draw: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]
    levels: Callable[[int], Tensor]
    sampler: str
    steps: int
    energies: float = ENERGY_SHARE


def _edm_levels(steps: int) -> Tensor:
    """Karras' levels of noise from 80 to 0.002 standard deviations of the data, then none."""
    ramp = torch.linspace(0, 1, steps)
    sigma = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    return torch.cat([1 / (1 + sigma), torch.ones(1)])


def _cosine(share: Tensor) -> Tensor:
    """Level at a share of the cosine schedule, 0 clean to 1 noise."""
    signal = torch.cos((share + 0.008) / 1.008 * torch.pi / 2).clamp(min=1e-4)
    return signal / (signal + (1 - signal.square()).clamp(min=1e-8).sqrt())


def _ddpm_draw(normal: Tensor) -> Tensor:
    """Draw one of the 400 steps, evenly: the normal distribution function makes it uniform."""
    step = torch.ceil(DDPM_STEPS * torch.special.ndtr(normal)).clamp(1, DDPM_STEPS)
    return _cosine(step / DDPM_STEPS)


PROCESSES: Mapping[str, Process] = MappingProxyType(
    {
        "flow": Process(
            draw=lambda normal: torch.sigmoid(normal - 0.4),
            weight=lambda t: (1 - t).clamp(min=CLOSEST) ** -2,
            levels=lambda steps: 1 - (1 - torch.linspace(0, 1, steps + 1)) ** CROWDED,
            sampler="heun", steps=8,
        ),
        "edm": Process(
            draw=lambda normal: 1 / (1 + torch.exp(1.2 * normal - 1.2)),
            weight=lambda t: 1 + (t / (1 - t).clamp(min=CLOSEST)) ** 2,
            levels=_edm_levels,
            sampler="heun", steps=18,
        ),
        "ddpm": Process(
            draw=_ddpm_draw,
            weight=lambda t: (t / (1 - t).clamp(min=CLOSEST)) ** 2,
            levels=lambda steps: _cosine(torch.linspace(1, 0, steps + 1)).index_fill(
                0, torch.tensor([steps]), 1.0
            ),
            sampler="ancestral", steps=DDPM_STEPS,
        ),
        "beliefs": Process(
            draw=lambda normal: (
                (torch.special.ndtr(normal) - AT_NOISE) / (1 - AT_NOISE) * NEAREST
            ).clamp(min=0),
            weight=lambda t: torch.full_like(t, VOXELS),
            levels=lambda steps: torch.linspace(0, 1, steps + 1),
            sampler="beliefs", steps=2, energies=0.4,
        ),
    }
)  # fmt: skip


def denoising_loss(
    network: DiffusionTransformer,
    clean: Scaled,
    given: Conditions,
    draw: torch.Generator,
    masked: float = 0.0,
    untold: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Loss of both stages for B showers: (energies, voxels), both ().

    The first part of the batch trains the energies with the voxels hidden; the rest
    trains the voxels with the energies given. Of each part the share `masked` sees some of the
    voxel tokens clean and has to find the others: hidden in one half of the cases, noisy in the
    other. The share `untold` is not told its conditions, which guidance needs.
    """
    b, device = len(clean.energies), clean.energies.device
    process, plain = PROCESSES[network.config.process], network.config.plain
    first = 0 if plain else round(b * process.energies)
    energies_first = torch.arange(b, device=device) < first
    t = _drawn_levels(network, normal(draw, (b,), device))
    seen = _masks(network.patches.tokens, b, masked, draw, device)  # (B, T)
    hidden = uniform(draw, (b,), device) < 0.5
    level_e = torch.where(energies_first, t, torch.full_like(t, 0.0 if plain else 1.0))
    level = torch.where(energies_first | (hidden & seen.any(1)), torch.zeros_like(t), t)
    level_v = torch.where(seen, 1.0, level[:, None])
    noise = Scaled(normal(draw, clean.voxels.shape, device),
                   normal(draw, clean.energies.shape, device) @ network.colour)  # fmt: skip
    everywhere = network.patches.fill(level_v)
    noisy = Scaled(
        torch.lerp(noise.voxels, clean.voxels, everywhere),
        torch.lerp(noise.energies, clean.energies, level_e[:, None]),
    )
    if untold:
        drop = uniform(draw, (b, 1), device) < untold
        given = given._replace(features=given.features.masked_fill(drop, torch.nan))
    voxels, energies = network(noisy, level_v, level_e, given, first)
    wanted = (~seen[first:]).float()
    if network.config.process == "beliefs":
        misses = voxels.surprise(clean.voxels[first:], network.empty)
    else:
        misses = (network.expected(voxels) - clean.voxels[first:]).square()
    misses = network.patches.cut(misses).mean(-1) * wanted
    of_voxels = (misses.sum(1) / wanted.sum(1) * process.weight(level[first:])).mean()
    if plain:
        return of_voxels.new_zeros(()), of_voxels
    if network.config.process == "beliefs":
        return energies.surprise(clean.energies[:first] @ network.whiten).mean(), of_voxels
    misses = (energies.value() @ network.colour - clean.energies[:first]).square()
    z = clean.voxels.shape[-1]  # total and layers, their hits, the sketch: each counts alike
    parts = misses.split([1 + z, z, misses.shape[1] - 1 - 2 * z], dim=1)
    of_energies = torch.stack([part.mean(1) for part in parts]).mean(0) * process.weight(t[:first])
    return of_energies.mean(), of_voxels


def _drawn_levels(network: DiffusionTransformer, normal: Tensor) -> Tensor:
    """Levels (B,) to train at; of a network made for so many steps, those it will meet."""
    process = PROCESSES[network.config.process]
    if not network.config.calls:
        return process.draw(normal)
    levels = process.levels(network.config.calls)[:-1].to(normal.device)
    return levels[(torch.special.ndtr(normal) * len(levels)).long().clamp(max=len(levels) - 1)]


def _masks(
    tokens: int, b: int, share: float, draw: torch.Generator, device: torch.device
) -> Tensor:
    """Which tokens are seen clean (B, T): none, but in a `share` of the showers 10 to 90 %."""
    chosen = uniform(draw, (b, 1), device) < share
    rate = 0.1 + 0.8 * uniform(draw, (b, 1), device)
    seen = uniform(draw, (b, tokens), device) < rate
    seen[:, 0] &= ~seen.all(1)  # something must be left to find
    return seen & chosen
