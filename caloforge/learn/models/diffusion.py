r"""A diffusion transformer for showers: what is believed of a clean shower, given a noisy one.

Noisy means :math:`x_t = t x_1 + (1 - t) \epsilon` with data :math:`x_1`, Gaussian noise
:math:`\epsilon` and a level :math:`t` from 0 (noise) to 1 (data), as in flow matching (Lipman et
al., arXiv:2210.02747); `caloforge.learn.models.process` says how DDPM and EDM fit in. The network
predicts the data (Li and He, arXiv:2511.13720): a patch has more voxels than the network is wide,
and noise cannot pass through where a shower can.

*Bayes head.* Nine voxels of ten are empty, at one known value, and which of the far ones are filled
is chance. The last layer therefore does not guess the clean value itself but what is believed of it
before looking: filled with probability p, then :math:`N(\mu, \sigma^2)`, else empty. The guess is
the posterior mean under the known noise, in closed form (`posterior`), so that a voxel is decided
by its own noisy value and its surroundings only have to say what is likely. Energies have the same
head with p = 1. At t = 1 the guess is the input, whatever the network says.

*A level for each part.* The energies (total, layers, sketch) and each voxel token carry a level of
their own. All voxel tokens at one level is diffusion, 0 and 1 only masked modelling, some at 1 and
the rest between inpainting. What is at level 0 is not shown: noise says nothing. A shower is drawn
in two stages by the same network: the energies with the voxels hidden, then the voxels with the
energies given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.learn.blocks import Block, Neighbours, modulate
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.directions import fitted
from caloforge.learn.models.belief import FINEST, Belief, at_first
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.preprocess import Scaled, quantities
from caloforge.learn.residual import Residual
from caloforge.learn.tokens import Patches, fourier, positions

__all__ = ["SIZES", "DiffusionConfig", "DiffusionTransformer", "config_of"]

POSITION = 8
SKETCH = (3, 2, 5)  # Largest coarse cell of the sketch, in cells (r, phi, z).


@dataclass(frozen=True)
class DiffusionConfig:
    """Shape of the network, and what the plain diffusion transformers do otherwise.

    shape, patch, sketch: the mesh, a token and a coarse cell of the sketch in cells (r, phi, z);
    process: see `caloforge.learn.models.process`; head: ``bayes``, or ``noise``: voxels by a linear
    layer that guesses their noise; plain: voxels are drawn alone, without energies; detectors: 0,
    or the detectors are told by a one-hot index of so many, without maps or physical positions, and
    one that was not trained on is all zeros; positions: fixed sine-cosine
    of physical lengths, or learned; mixture: Gaussians of a filled voxel; hidden: channels of the
    neighbourhood of a voxel, 0 for none; calls: the number of steps that the network was made for,
    0 for any.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    sketch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    process: Literal["flow", "edm", "ddpm", "beliefs"] = "flow"
    head: Literal["bayes", "noise"] = "bayes"
    plain: bool = False
    detectors: int = 0
    positions: Literal["fixed", "learned"] = "fixed"
    mixture: int = 1
    hidden: int = 16
    calls: int = 0

    @property
    def counted(self) -> bool:
        """Whether the number of all hits is a quantity of its own."""
        return self.process == "beliefs"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DiffusionConfig:
        """Undo `to_dict`."""
        return cls(**tupled(values))


# Patch (0, 0, p): all cells of p layers. One dial sets tokens and width together.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "micro": dict(patch=(0, 0, 5), width=32, depth=2, heads=2),
        "student": dict(patch=(0, 0, 1), width=96, depth=4, heads=3, mixture=2, hidden=8),
        "tiny": dict(patch=(0, 0, 1), width=128, depth=4, heads=4),
        "slides": dict(patch=(3, 4, 3), width=144, depth=4, heads=4),  # of recipes/slides.toml
        "small": dict(patch=(0, 0, 1), width=160, depth=6, heads=5),
        "base": dict(patch=(3, 4, 3), width=256, depth=8, heads=8),
        "large": dict(patch=(3, 4, 3), width=384, depth=12, heads=12),
    }
)


def config_of(size: str, shape: tuple[int, int, int], **other: Any) -> DiffusionConfig:
    """Configuration of a named size on a mesh of `shape` cells; `other` fields beside it."""
    values = dict(SIZES[size]) | other
    if values.get("process") == "beliefs":
        values.setdefault("mixture", 3)  # one of them for minimum-ionising tracks
    p_r, p_phi, p_z = values.pop("patch")
    patch = (p_r or shape[0], p_phi or shape[1], p_z or shape[2])
    r, phi, z = Patches.dividing(shape, SKETCH).size
    if z % patch[2]:
        z = patch[2]  # a coarse cell holds whole patches
    return DiffusionConfig(shape=shape, patch=patch, sketch=(r, phi, z), **values)


class DiffusionTransformer(nn.Module):
    """Believes in a clean shower, given a noisy one, its levels and its conditions."""

    feature_mean: Tensor
    feature_spread: Tensor
    known: Tensor
    empty: Tensor
    whiten: Tensor
    colour: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = Patches(config.shape, config.patch)
        self.sketch = Patches(config.shape, config.sketch)
        d, cells, p_z = config.width, self.patches.cells, config.patch[2]
        across = self.sketch.grid[0] * self.sketch.grid[1]  # coarse cells of a block of layers
        told = len(FEATURE_NAMES)
        self.register_buffer("feature_mean", torch.zeros(told))
        self.register_buffer("feature_spread", torch.ones(told))
        if config.detectors:
            told += config.detectors - len(DESCRIPTOR_NAMES)
            self.register_buffer("known", torch.zeros(config.detectors, len(DESCRIPTOR_NAMES)))
        self.embed_voxels = nn.Linear(cells, d)
        self.embed_maps = nn.Linear(2 * cells, d)
        self.embed_layers = nn.Linear(p_z, d)
        self.embed_hits = nn.Linear(p_z, d, bias=False)
        self.embed_sketch = nn.Linear(across, d, bias=False)
        totals = 2 if config.counted else 1
        self.embed_total = nn.Linear(totals, d)
        if config.positions == "learned":
            self.place = nn.Parameter(0.02 * torch.randn(self.patches.tokens, d))
        else:
            self.embed_position = nn.Linear(6 * POSITION, d)
        self.embed_level = nn.Linear(2 * POSITION, d)
        self.condition = nn.Sequential(
            nn.Linear(told + 4 * POSITION, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU()
        )
        self.residual = Residual(d)  # of single detectors, added to the condition
        self.modulation = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.last_modulation = nn.Linear(d, 2 * d)
        self.register_buffer("empty", torch.zeros(()))
        self.numbers = 3 * config.mixture if config.head == "bayes" else 1  # of a voxel's belief
        self.head_voxels = nn.Linear(d, self.numbers * cells)
        # Neighbours correct the odds and the means; the plain Gaussian of flow also its spread.
        self.near = 1 + config.mixture if config.process == "beliefs" else self.numbers
        if config.head == "bayes" and config.hidden:
            self.neighbours = Neighbours(self.near + 2, config.hidden, self.near, d)
        self.head_layers = nn.Linear(d, 2 * p_z)
        self.head_hits = nn.Linear(d, 2 * p_z)
        self.head_sketch = nn.Linear(d, 2 * across)
        self.head_total = nn.Linear(d, 2 * totals)
        count = quantities(self.sketch, config.counted)
        self.register_buffer("whiten", torch.eye(count))
        self.register_buffer("colour", torch.eye(count))
        if config.process == "beliefs":
            self.head_spread = nn.Linear(d, count)
            nn.init.zeros_(self.head_spread.weight)
            nn.init.zeros_(self.head_spread.bias)
        self._initialise()

    def _initialise(self) -> None:
        """Start as the identity: every gate and every head at zero (adaLN-Zero)."""
        nn.init.zeros_(self.embed_hits.weight)
        nn.init.zeros_(self.embed_sketch.weight)
        for layer in (self.modulation, self.last_modulation, self.head_voxels, self.head_layers,
                      self.head_hits, self.head_sketch, self.head_total):  # fmt: skip
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.table)

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the features' scale (N, F), what is believed of voxels at first, and the directions
        in which the energies fluctuate independently.
        """
        spread = features.std(0)
        self.feature_mean.copy_(features.mean(0))
        self.feature_spread.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))
        self.empty.copy_(clean.voxels.min())
        if self.config.detectors:
            known = torch.unique(features[:, -len(DESCRIPTOR_NAMES) :], dim=0)
            self.known[: len(known)] = known
        if self.config.process == "beliefs":
            self.fit_directions(clean.energies)
        if self.config.head == "noise":
            return
        beliefs = at_first(clean.voxels, self.empty, self.config.mixture)
        self.head_voxels.bias.copy_(beliefs.repeat_interleave(self.patches.cells))

    @torch.no_grad()
    def fit_directions(self, energies: Tensor) -> None:
        """Fit the directions in which energies (N, K) fluctuate independently."""
        whiten, colour = fitted(energies)
        self.whiten.copy_(whiten)
        self.colour.copy_(colour)

    def forward(
        self,
        noisy: Scaled,
        level_voxels: Tensor,
        level_energies: Tensor,
        given: Conditions,
        first: int | None = None,
    ) -> tuple[Belief, Belief]:
        """What is believed of the clean shower: of voxels, and of the energies times `whiten`.

        noisy: voxels (B, R, PHI, Z) and energies (B, K); level_voxels (B, T), or (B, 1) for one
        level everywhere, and level_energies (B,), from 0 (noise) to 1 (clean). With `first`, only
        the energies of the first so many showers (first, ...) and the voxels of the rest
        (B - first, ...).
        """
        x, c = self.trunk(noisy, level_voxels, level_energies, given)
        to, after = (None, 0) if first is None else (first, first)
        voxels = self.believe_voxels(
            x[after:], c[after:], noisy.voxels[after:], level_voxels[after:]
        )
        energies = noisy.energies[:to] @ self.whiten
        return voxels, self.believe_energies(x[:to], energies, level_energies[:to])

    def trunk(
        self, noisy: Scaled, level_voxels: Tensor, level_energies: Tensor, given: Conditions,
        blank: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Tokens (B, 1 + T, D), the total's first, and the condition (B, D); see `forward`.

        With `blank` no voxel is shown: all their levels are 0, which saves looking.
        """
        features, active, pitch = self._told(given)
        levels = torch.stack([level_voxels.mean(1), level_energies], dim=1)  # (B, 2)
        code = fourier(levels, POSITION, 4.0, 0.1).flatten(1)  # (B, 4 P)
        c = self.condition(torch.cat([features, code], dim=1))  # (B, D)
        if len(self.residual):
            c = c + self.residual(given.features)

        if blank:
            voxels = self.embed_voxels.bias
        else:
            shown = self.patches.cut(noisy.voxels) * (level_voxels > 0)[..., None]
            voxels = self.embed_voxels(shown)
        energies = noisy.energies * (level_energies > 0)[:, None]
        x = (
            voxels
            + self.embed_maps(active)
            + self._placed(pitch)
            + self.embed_level(fourier(level_voxels, POSITION, 4.0, 0.1))
            + self._slabs(energies)
        )  # (B, T, D)
        totals = energies[:, :1]
        if self.config.counted:
            totals = torch.cat([totals, energies[:, -1:]], dim=1)
        total = self.embed_total(totals)[:, None]  # (B, 1, D)
        x = torch.cat([total, x], dim=1)  # (B, 1 + T, D)

        modulation = self.modulation(c).reshape(x.shape[0], 6, -1)
        for block in self.blocks:
            x = block(x, modulation)
        return modulate(self.norm(x), *self.last_modulation(c)[:, None].chunk(2, dim=-1)), c

    def _placed(self, pitch: Tensor) -> Tensor:
        """Where each token lies (B, T, D)."""
        if self.config.positions == "learned":
            return self.place.expand(pitch.shape[0], -1, -1)
        placed: Tensor = self.embed_position(positions(self.patches, pitch, POSITION))
        return placed

    def _told(self, given: Conditions) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), maps of active material (B, T, 2 cells) and pitch (B, 2) of showers.

        Features that are not a number are not told: they stand at their mean.
        """
        features = ((given.features - self.feature_mean) / self.feature_spread).nan_to_num(0.0)
        active = torch.cat([self.patches.cut(given.maps[:, k]) for k in (0, 1)], dim=-1)
        if not self.config.detectors:
            return features, (active + 0.05).log(), given.pitch
        table = given.features[:, None, -len(DESCRIPTOR_NAMES) :]
        index = ((table - self.known).abs() < 1e-4).all(dim=-1).to(features.dtype)
        features = torch.cat([features[:, : -len(DESCRIPTOR_NAMES)], index], dim=1)
        return features, torch.zeros_like(active), torch.ones_like(given.pitch)

    def _slabs(self, energies: Tensor) -> Tensor:
        """What each token is told (B, T, D) of its layers and of the sketch at its depth."""
        (g_r, g_phi, g_z), z = self.patches.grid, self.config.shape[2]
        b, blocks = energies.shape[0], self.sketch.grid[2]
        layers = self.embed_layers(energies[:, 1 : 1 + z].reshape(b, g_z, -1))  # (B, Gz, D)
        hits = self.embed_hits(energies[:, 1 + z : 1 + 2 * z].reshape(b, g_z, -1))
        coarse = energies[:, 1 + 2 * z : 1 + 2 * z + self.sketch.tokens]
        sketch = coarse.reshape(b, -1, blocks).transpose(1, 2)  # (B, Sz, Sr Sphi)
        slab: Tensor = (
            layers + hits + self.embed_sketch(sketch).repeat_interleave(g_z // blocks, dim=1)
        )
        return slab[:, None, None].expand(-1, g_r, g_phi, -1, -1).reshape(b, g_r * g_phi * g_z, -1)

    def expected(self, belief: Belief) -> Tensor:
        """Mean of voxels (B, R, PHI, Z) of which this is believed."""
        filled = belief.value()
        return torch.lerp(self.empty.expand_as(filled), filled, torch.sigmoid(belief.odds))

    def believe_voxels(
        self, x: Tensor, c: Tensor, noisy: Tensor, level: Tensor, blank: bool = False
    ) -> Belief:
        """What is believed of voxels (B, R, PHI, Z) from `trunk`; noisy likewise, level (B, T).

        With `blank` no voxel is shown: all levels are 0, which saves looking. A head that guesses
        noise believes in what follows from its guess.
        """
        everywhere = self._everywhere(level)
        if self.config.head == "noise":
            noise = self.patches.join(self.head_voxels(x[:, 1:])).float()
            guess = (noisy - (1 - everywhere) * noise) / everywhere.clamp(min=1e-3)
            return Belief.filled(guess, torch.full_like(guess, FINEST))
        maps = self.patches.join_parts(self.head_voxels(x[:, 1:]), self.numbers)
        if self.config.hidden and not blank:  # maps (B, 3 M, R, PHI, Z)
            shown = torch.stack([noisy, everywhere.expand_as(noisy)], dim=1)
            seen = torch.cat([maps[:, : self.near], shown], dim=1)
            near = self.neighbours(seen, c)
            if self.config.process == "beliefs":
                near = torch.where(everywhere[:, None] > 0, near, 0.0)
            maps = torch.cat([maps[:, : self.near] + near, maps[:, self.near :]], dim=1)
        belief = Belief.unpacked(maps.float())
        return belief if blank else belief.seen(noisy, everywhere, self.empty)

    def _everywhere(self, level: Tensor) -> Tensor:
        """Levels (B, T) or (B, 1) for the voxels: (B, R, PHI, Z) or (B, 1, 1, 1)."""
        one = level.shape[1] == 1 < self.patches.tokens
        return level[:, :, None, None] if one else self.patches.fill(level)

    def believe_energies(self, x: Tensor, noisy: Tensor, level: Tensor) -> Belief:
        """What is believed of the energies times `whiten` (B, K) from `trunk`; noisy likewise,
        level (B,).
        """
        b, d = x.shape[0], x.shape[2]
        (g_r, g_phi, g_z), (across_r, across_phi, blocks) = self.patches.grid, self.sketch.grid
        slab = x[:, 1:].reshape(b, g_r, g_phi, g_z, d).mean(dim=(1, 2))  # (B, Gz, D)
        layers, hits = (
            head(slab).reshape(b, g_z, 2, self.config.patch[2]).transpose(1, 2).flatten(2)
            for head in (self.head_layers, self.head_hits)
        )
        block = slab.reshape(b, blocks, g_z // blocks, d).mean(dim=2)  # (B, Sz, D)
        sketch = self.head_sketch(block).reshape(b, blocks, 2, across_r * across_phi)
        sketch = sketch.permute(0, 2, 3, 1).flatten(2)
        totals = self.head_total(x[:, 0]).reshape(b, 2, 1 + self.config.counted)
        parts = [totals[..., :1], layers, hits, sketch, totals[..., 1:]]
        beliefs = torch.cat(parts, dim=2).float()
        mean, log_spread = beliefs @ self.whiten, beliefs[:, 1]
        if self.config.process == "beliefs":
            log_spread = self.head_spread(x[:, 0]).float()
        belief = Belief.filled(mean[:, 0], log_spread)
        return belief.seen(noisy, level[:, None], self.empty)
