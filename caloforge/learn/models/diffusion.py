r"""A diffusion transformer for showers, trained by flow matching.

*Flow matching* (Lipman et al., arXiv:2210.02747): with data :math:`x_1`, Gaussian noise
:math:`\epsilon` and a level :math:`t` from 0 (noise) to 1 (data),
:math:`x_t = t x_1 + (1 - t) \epsilon`, and the field :math:`v = x_1 - \epsilon` is learned. The
network predicts the data, and the loss is taken on the field (Li and He, arXiv:2511.13720): a patch
has more voxels than the network is wide, and noise cannot pass through where a shower can.

*Bayes head.* Nine voxels of ten are empty, at one known value, and which of the far ones are filled
is chance. The last layer therefore does not guess the clean value itself but what is believed of it
before looking: filled with probability p, then :math:`N(\mu, \sigma^2)`, else empty. The guess is
the posterior mean under the known noise, in closed form (`posterior`), so that a voxel is decided
by its own noisy value and its surroundings only have to say what is likely. Energies have the same
head with p = 1. At t = 1 the guess is the input, whatever the network says.

*A level for each part.* The energies (total and layers) and each voxel token carry a level of
their own. A shower is drawn in two stages by the same network: the energies with the voxels left at
noise, then the voxels with the energies given. Both stages are trained together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from caloforge.learn.blocks import Block, Neighbours, modulate
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.preprocess import Scaled
from caloforge.learn.tokens import Patches, fourier, positions

__all__ = ["SIZES", "DiffusionConfig", "DiffusionTransformer", "euler", "flow_loss", "heun",
           "multistep", "posterior", "sample"]  # fmt: skip

CLOSEST = 0.05  # The field is x_1 - x_t over 1 - t; no closer to t = 1 than this.
ENERGY_SHARE = 0.25  # Share of a batch that trains the first stage.
ENERGY_STEPS = 8
POSITION = 8
HIDDEN = 16  # Channels of the neighbourhood of a voxel.

Guess = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DiffusionConfig:
    """Shape of the network: mesh and patch in cells (r, phi, z), width, depth and heads."""

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DiffusionConfig:
        """Undo `to_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


# Patch (0, 0, p): all cells of p layers. One dial sets tokens and width together.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "micro": dict(patch=(0, 0, 5), width=32, depth=2, heads=2),
        "tiny": dict(patch=(0, 0, 1), width=128, depth=4, heads=4),
        "small": dict(patch=(0, 0, 1), width=160, depth=6, heads=5),
        "base": dict(patch=(3, 4, 3), width=256, depth=8, heads=8),
        "large": dict(patch=(3, 4, 3), width=384, depth=12, heads=12),
    }
)


def config_of(size: str, shape: tuple[int, int, int]) -> DiffusionConfig:
    """Configuration of a named size on a mesh of `shape` cells."""
    values = dict(SIZES[size])
    p_r, p_phi, p_z = values.pop("patch")
    patch = (p_r or shape[0], p_phi or shape[1], p_z or shape[2])
    return DiffusionConfig(shape=shape, patch=patch, **values)


class DiffusionTransformer(nn.Module):
    """Predicts the clean shower from a noisy one, its levels and its conditions."""

    feature_mean: Tensor
    feature_spread: Tensor
    empty: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = Patches(config.shape, config.patch)
        d, cells, p_z = config.width, self.patches.cells, config.patch[2]
        self.register_buffer("feature_mean", torch.zeros(len(FEATURE_NAMES)))
        self.register_buffer("feature_spread", torch.ones(len(FEATURE_NAMES)))
        self.embed_voxels = nn.Linear(cells, d)
        self.embed_maps = nn.Linear(2 * cells, d)
        self.embed_layers = nn.Linear(p_z, d)
        self.embed_total = nn.Linear(1, d)
        self.embed_position = nn.Linear(6 * POSITION, d)
        self.embed_level = nn.Linear(2 * POSITION, d)
        self.condition = nn.Sequential(
            nn.Linear(len(FEATURE_NAMES) + 4 * POSITION, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU()
        )
        self.modulation = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.last_modulation = nn.Linear(d, 2 * d)
        self.register_buffer("empty", torch.zeros(()))
        self.head_voxels = nn.Linear(d, 3 * cells)
        self.neighbours = Neighbours(5, HIDDEN, 3, d)
        self.head_layers = nn.Linear(d, 2 * p_z)
        self.head_total = nn.Linear(d, 2)
        self._initialise()

    def _initialise(self) -> None:
        """Start as the identity: every gate and every head at zero (adaLN-Zero)."""
        for layer in (self.modulation, self.last_modulation, self.head_voxels, self.head_layers,
                      self.head_total):  # fmt: skip
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.table)

    @torch.no_grad()
    def fit(self, features: Tensor, voxels: Tensor) -> None:
        """Fit the features' scale (N, F), and what the head believes of voxels (N, R, PHI, Z)."""
        spread = features.std(0)
        self.feature_mean.copy_(features.mean(0))
        self.feature_spread.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))
        self.empty.copy_(voxels.min())
        filled = voxels[voxels > self.empty + 1e-3]
        share = torch.tensor(len(filled) / voxels.numel())
        beliefs = torch.stack([share.logit(), filled.mean(), filled.std().log()])
        self.head_voxels.bias.copy_(beliefs.repeat_interleave(self.patches.cells))

    def forward(
        self, noisy: Scaled, level_voxels: Tensor, level_energies: Tensor, given: Conditions
    ) -> Scaled:
        """Predict the clean shower: the posterior mean of voxels and energies.

        noisy: voxels (B, R, PHI, Z) and energies (B, 1 + Z); level_voxels (B, T) and level_energies
        (B,) from 0 (noise) to 1 (clean).
        """
        x, c = self.trunk(noisy, level_voxels, level_energies, given)
        return Scaled(
            self.guess_voxels(x, c, noisy.voxels, level_voxels),
            self.guess_energies(x, noisy.energies, level_energies),
        )

    def trunk(
        self, noisy: Scaled, level_voxels: Tensor, level_energies: Tensor, given: Conditions
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + T, D), the total's first, and the condition (B, D); see `forward`."""
        g_r, g_phi, g_z = self.patches.grid
        b, tokens = len(noisy.voxels), self.patches.tokens
        features = (given.features - self.feature_mean) / self.feature_spread  # (B, F)
        levels = torch.stack([level_voxels.mean(1), level_energies], dim=1)  # (B, 2)
        code = fourier(levels, POSITION, 4.0, 0.1).flatten(1)  # (B, 4 P)
        c = self.condition(torch.cat([features, code], dim=1))  # (B, D)

        slabs = noisy.energies[:, 1:].reshape(b, g_z, -1)  # (B, Gz, pz)
        layers = self.embed_layers(slabs)[:, None, None].expand(-1, g_r, g_phi, -1, -1)
        active = torch.cat([self.patches.cut(given.maps[:, k]) for k in (0, 1)], dim=-1)
        x = (
            self.embed_voxels(self.patches.cut(noisy.voxels))
            + self.embed_maps((active + 0.05).log())
            + self.embed_position(positions(self.patches, given.pitch, POSITION))
            + self.embed_level(fourier(level_voxels, POSITION, 4.0, 0.1))
            + layers.reshape(b, tokens, -1)
        )  # (B, T, D)
        total = self.embed_total(noisy.energies[:, :1])[:, None]  # (B, 1, D)
        x = torch.cat([total, x], dim=1)  # (B, 1 + T, D)

        modulation = self.modulation(c).reshape(b, 6, -1)
        for block in self.blocks:
            x = block(x, modulation)
        return modulate(self.norm(x), *self.last_modulation(c).chunk(2, dim=-1)), c

    def guess_voxels(self, x: Tensor, c: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        """Posterior mean of voxels (B, R, PHI, Z) from `trunk`; noisy likewise, level (B, T)."""
        belief = self.head_voxels(x[:, 1:]).chunk(3, dim=-1)  # 3 x (B, T, cells)
        maps = torch.stack([self.patches.join(part) for part in belief], dim=1)  # (B, 3, R, PHI, Z)
        everywhere = self.patches.join(level[..., None].expand(-1, -1, self.patches.cells))
        seen = torch.cat([maps, torch.stack([noisy, everywhere], dim=1)], dim=1)
        logit, mean, log_spread = (maps + self.neighbours(seen, c)).float().unbind(1)
        return posterior(noisy, everywhere, mean, log_spread, logit, self.empty)

    def guess_energies(self, x: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        """Posterior mean of the energies (B, 1 + Z) from `trunk`; noisy likewise, level (B,)."""
        b, (g_r, g_phi, g_z) = len(x), self.patches.grid
        slab = x[:, 1:].reshape(b, g_r, g_phi, g_z, -1).mean(dim=(1, 2))  # (B, Gz, D)
        layers = self.head_layers(slab).reshape(b, g_z, 2, -1).transpose(1, 2).reshape(b, 2, -1)
        both = torch.cat([self.head_total(x[:, 0])[..., None], layers], dim=2).float()
        return posterior(noisy, level[:, None], both[:, 0], both[:, 1])


def posterior(
    noisy: Tensor,
    level: Tensor,
    mean: Tensor,
    log_spread: Tensor,
    logit: Tensor | None = None,
    empty: Tensor | None = None,
) -> Tensor:
    r"""Posterior mean of a clean value from its noisy one, :math:`x_t = t x_1 + (1-t) \epsilon`.

    Before looking, x_1 is N(mean, spread^2) with the probability of `logit`, else `empty`; without
    `logit` it is never empty. All (...), level t from 0 to 1.
    """
    noise = (1 - level).clamp(min=1e-3).square()
    spread = log_spread.clamp(-5.0, 2.0).exp().square()
    marginal = level.square() * spread + noise
    filled = (spread * level * noisy + noise * mean) / marginal
    if logit is None or empty is None:
        return filled
    evidence = (
        (noisy - level * empty).square() / noise
        - (noisy - level * mean).square() / marginal
        + (noise / marginal).log()
    ) / 2
    return torch.lerp(empty.expand_as(filled), filled, torch.sigmoid(logit + evidence))


def flow_loss(
    network: DiffusionTransformer, clean: Scaled, given: Conditions, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flow-matching loss of both stages for B showers: (energies, voxels), both ().

    The first `ENERGY_SHARE` of the batch trains the energies with the voxels at noise; the rest
    trains the voxels with the energies given.
    """
    b, device = len(clean.energies), clean.energies.device
    first = torch.arange(b, device=device) < round(b * ENERGY_SHARE)
    t = torch.sigmoid(_normal(draw, (b,), device) - 0.4)  # logit-normal, arXiv:2403.03206
    level_e = torch.where(first, t, torch.ones_like(t))
    level_v = torch.where(first, torch.zeros_like(t), t)
    noise = Scaled(_normal(draw, clean.voxels.shape, device),
                   _normal(draw, clean.energies.shape, device))  # fmt: skip
    noisy = Scaled(
        torch.lerp(noise.voxels, clean.voxels, level_v[:, None, None, None]),
        torch.lerp(noise.energies, clean.energies, level_e[:, None]),
    )
    tokens = level_v[:, None].expand(-1, network.patches.tokens)
    guess = network(noisy, tokens, level_e, given)
    weight = (1 - t).clamp(min=CLOSEST) ** -2
    voxels = (guess.voxels - clean.voxels).square().mean(dim=(1, 2, 3)) * weight
    energies = (guess.energies - clean.energies).square().mean(dim=1) * weight
    return energies[first].mean(), voxels[~first].mean()


def _normal(draw: torch.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, generator=draw).to(device, non_blocking=True)


def euler(guess: Guess, x: Tensor, levels: Tensor) -> Tensor:
    """From x (...) at the first of the levels (K + 1,) to the last by Euler's method, K calls.

    `guess` gives the posterior mean x_1 of x at a level; the field is (x_1 - x)/(1 - t).
    """
    for t, s in zip(levels[:-1], levels[1:], strict=True):
        x = torch.lerp(x, guess(x, t), (s - t) / (1 - t))
    return x


def heun(guess: Guess, x: Tensor, levels: Tensor) -> Tensor:
    """From x (...) at the first of the levels (K + 1,) to the last by Heun's method, 2K - 1 calls.

    The last step is Euler's, for at t = 1 the field is singular.
    """
    for t, s in zip(levels[:-2], levels[1:-1], strict=True):
        slope = (guess(x, t) - x) / (1 - t)
        ahead = x + (s - t) * slope
        x = x + (s - t) * (slope + (guess(ahead, s) - ahead) / (1 - s)) / 2
    return euler(guess, x, levels[-2:])


def multistep(guess: Guess, x: Tensor, levels: Tensor) -> Tensor:
    r"""From x (...) at the first of the levels (K + 1,) to the last, of second order in K calls.

    An exponential integrator in the manner of DPM-Solver++ (Lu et al., arXiv:2211.01095): the
    guess is continued linearly in t from the last two, :math:`a + b (\tau - t)`, and
    :math:`d(x/(1 - t))/dt = x_1/(1 - t)^2` is solved exactly. The last step is Euler's: continued
    to t = 1, a guess between empty and filled would run past both.
    """
    before: tuple[Tensor, Tensor] | None = None
    for t, s in zip(levels[:-2], levels[1:-1], strict=True):
        a = guess(x, t)
        b = torch.zeros_like(a) if before is None else (a - before[1]) / (t - before[0])
        share = (1 - s) / (1 - t)
        bend = (s - t) + (1 - s) * share.clamp(min=1e-12).log()
        x, before = share * x + (1 - share) * a + bend * b, (t, a)
    return euler(guess, x, levels[-2:])


SAMPLERS: Mapping[str, Callable[[Guess, Tensor, Tensor], Tensor]] = MappingProxyType(
    {"euler": euler, "heun": heun, "multistep": multistep}
)


def sample(
    network: DiffusionTransformer, noise: Scaled, given: Conditions, steps: int, sampler: str
) -> Scaled:
    """Draw showers from noise (B, ...): the energies, then the voxels in `steps` of `sampler`.

    The energies are nearly Gaussian and take `ENERGY_STEPS` of `multistep`, which is the cheapest
    for a smooth guess. That of a voxel turns sharply from empty to filled and is not continued.
    """

    def levels(count: int) -> Tensor:
        return torch.linspace(0.0, 1.0, count + 1, device=noise.voxels.device)

    b, tokens = given.showers, network.patches.tokens

    def guess_energies(x: Tensor, t: Tensor) -> Tensor:
        now = t.expand(b)
        hidden, _ = network.trunk(Scaled(noise.voxels, x), t.new_zeros(b, tokens), now, given)
        return network.guess_energies(hidden, x, now)

    energies = multistep(guess_energies, noise.energies, levels(ENERGY_STEPS))

    def guess_voxels(x: Tensor, t: Tensor) -> Tensor:
        now = t.expand(b, tokens)
        hidden, c = network.trunk(Scaled(x, energies), now, t.new_ones(b), given)
        return network.guess_voxels(hidden, c, x, now)

    return Scaled(SAMPLERS[sampler](guess_voxels, noise.voxels, levels(steps)), energies)
