r"""A network on the hits of a shower: cells may be filled, and filled cells send messages.

It believes three things, one after the other, each drawn before the next is asked for.

*Energies* (total, layers, hits of layers, a sketch of coarse cells; `caloforge.learn.preprocess`)
by a perceptron, in directions in which they fluctuate independently.

*Which cells are hit* by a perceptron of each cell: where it lies (radius in Moliere radii, depth in
radiation lengths), what its layer and its coarse cell hold, how much active material it has, and
which of the cells beside it are hit in an earlier draft.

*The energies of the hits* by message passing (Gilmer et al., arXiv:1704.01212) on their nearest
neighbours (`caloforge.learn.neighbours`), as in dynamic graph networks (Wang et al.,
arXiv:1801.07829; in calorimeters Qasim et al., arXiv:1902.07987); see `caloforge.learn.messages`.

phi is seen in differences alone. A shower that is turned by whole cells, or mirrored, with its maps
of active material, is therefore believed in just as much; only those maps single a direction out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.directions import fitted
from caloforge.learn.hits import Hits, hits_of
from caloforge.learn.messages import Messages
from caloforge.learn.models.belief import FINEST, Belief, side_by_side
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.preprocess import Scaled, quantities
from caloforge.learn.standard import Standard
from caloforge.learn.tokens import Patches, fourier

__all__ = ["SIZES", "GraphConfig", "GraphNetwork", "Told", "config_of"]

CODE = 8
SKETCH = (3, 1, 5)  # Largest coarse cell in cells (r, phi, z): all sectors are told apart.
BESIDE = 10  # Numbers that a cell is told of a draft.
FILLED, EMPTY = 1.0, -1.0  # What stands for a cell that is hit or not.
NOTHING = 1e-3


@dataclass(frozen=True)
class GraphConfig:
    """Shape of the network.

    shape, sketch: the mesh and a coarse cell of the sketch in cells (r, phi, z); width, rounds:
    of the states of hits, and how often they send messages; wide: width of the perceptron that
    draws the energies; neighbours: of each hit; most: hits of a shower, beyond which the least
    likely are left out; draws: how often everything is drawn, each time seeing the draft before;
    mixture: Gaussians of the logarithm of a hit's energy.
    """

    shape: tuple[int, int, int]
    sketch: tuple[int, int, int]
    width: int
    rounds: int
    wide: int
    neighbours: int = 8
    most: int = 4096
    draws: int = 2
    mixture: int = 2

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphConfig:
        """Undo `to_dict`."""
        return cls(**tupled(values))


SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "micro": dict(width=24, rounds=2, wide=64),
        "tiny": dict(width=32, rounds=2, wide=192),
        "small": dict(width=64, rounds=3, wide=256),
        "base": dict(width=128, rounds=4, wide=384),
        "large": dict(width=192, rounds=6, wide=512),
    }
)


def config_of(size: str, shape: tuple[int, int, int], **other: Any) -> GraphConfig:
    """Configuration of a named size on a mesh of `shape` cells; `other` fields beside it."""
    return GraphConfig(shape, Patches.dividing(shape, SKETCH).size, **SIZES[size], **other)


class Told(NamedTuple):
    """What cells are told: of radius and depth (B, R, Z, D), of the coarse cells that they lie in
    (B, R', PHI', Z', D), of the material in them (B, R, PHI, Z, 2); see `GraphNetwork.told`.
    """

    ground: Tensor
    coarse: Tensor
    active: Tensor


class GraphNetwork(nn.Module):
    """Believes in energies, hits and the energies of hits; see the module."""

    empty: Tensor
    levels: Tensor
    whiten: Tensor
    colour: Tensor

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.config = config
        self.sketch = Patches(config.shape, config.sketch)
        d, wide, k = config.width, config.wide, quantities(self.sketch, counted=True)
        self.standard = Standard()
        self.register_buffer("empty", torch.zeros(()))
        self.register_buffer("levels", torch.tensor([0.0, 1.0]))  # mean, spread of ln(E/cut)
        self.register_buffer("whiten", torch.eye(k))
        self.register_buffer("colour", torch.eye(k))
        self.energies = nn.Sequential(
            nn.Linear(len(FEATURE_NAMES) + k + 1, wide), nn.SiLU(),
            nn.Linear(wide, wide), nn.SiLU(),
            nn.Linear(wide, 2 * k),
        )  # fmt: skip
        self.condition = nn.Sequential(
            nn.Linear(len(FEATURE_NAMES) + 2, d), nn.SiLU(), nn.Linear(d, d)
        )
        self.layers = nn.Conv1d(2, d, 5, padding=2)
        self.ground = nn.Sequential(nn.SiLU(), nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.place = nn.Linear(4 * CODE, d)
        self.coarse = nn.Linear(6, d, bias=False)
        self.cell = nn.Linear(2 + BESIDE, d)
        self.odds = nn.Sequential(nn.SiLU(), nn.Linear(d, d), nn.SiLU(), nn.Linear(d, 1))
        self.hit = nn.Linear(5, d)
        self.rounds = nn.ModuleList(Messages(d) for _ in range(config.rounds))
        self.belief = nn.Sequential(
            nn.LayerNorm(d), nn.Linear(d, d), nn.SiLU(), nn.Linear(d, 3 * config.mixture)
        )
        for part in (self.energies, self.odds, self.belief):
            nn.init.zeros_(_last(part).weight)
            nn.init.zeros_(_last(part).bias)

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the features' scale (N, F), the directions of the energies, and first beliefs."""
        self.standard.fit(features)
        self.empty.copy_(clean.voxels.min())
        whiten, colour = fitted(clean.energies)
        self.whiten.copy_(whiten)
        self.colour.copy_(colour)
        filled = clean.voxels[self.filled(clean.voxels)]
        _last(self.odds).bias.copy_(torch.tensor([len(filled) / clean.voxels.numel()]).logit())
        means, width = side_by_side(filled, self.config.mixture)
        _last(self.belief).bias.copy_(torch.cat([torch.zeros_like(means), means, width]))

    def filled(self, voxels: Tensor) -> Tensor:
        """Which of the scaled voxels (B, R, PHI, Z) are hit."""
        return voxels > self.empty + NOTHING

    def believe_energies(self, noisy: Tensor, level: Tensor, given: Conditions) -> Belief:
        """What is believed of the energies times `whiten` (B, K); noisy likewise, level (B,)."""
        shown, t = noisy * (level > 0)[:, None], level[:, None]
        found = self.energies(torch.cat([self.standard(given), shown, t], dim=1)).float()
        mean, log_spread = found.chunk(2, dim=1)
        return Belief.filled(mean, log_spread).seen(noisy, t, noisy.new_zeros(()))

    def told(self, energies: Tensor, given: Conditions) -> Told:
        """Tell the cells of energies (B, K) and conditions."""
        (g_r, g_phi, g_z), z = self.sketch.grid, self.config.shape[2]
        totals = torch.stack([energies[:, 0], energies[:, -1]], dim=1)
        c = self.condition(torch.cat([self.standard(given), totals], dim=1))  # (B, D)
        each = energies[:, 1 : 1 + 2 * z].reshape(-1, 2, z)
        layers = self.layers(each).transpose(1, 2)  # (B, Z, D)
        place = self.place(self._places(given.pitch))  # (B, R, Z, D)
        ground = self.ground(place + layers[:, None] + c[:, None, None])
        coarse = energies[:, 1 + 2 * z : -1].reshape(-1, g_r, g_phi, g_z)
        active = (given.maps + 0.05).log().movedim(1, -1)
        return Told(ground, self.coarse(_surroundings(coarse)), active)

    def _places(self, pitch: Tensor) -> Tensor:
        """Codes (B, R, Z, 4 CODE) of radius and depth."""
        r, _, z = self.config.shape
        kind: dict[str, Any] = dict(device=pitch.device, dtype=pitch.dtype)
        radius = fourier((torch.arange(r, **kind) + 0.5) * pitch[:, :1], CODE, 16.0, 0.25)
        depth = fourier((torch.arange(z, **kind) + 0.5) * pitch[:, 1:], CODE, 64.0, 0.5)
        parts = (radius[:, :, None].expand(-1, r, z, -1), depth[:, None].expand(-1, r, z, -1))
        return torch.cat(parts, dim=-1)

    def believe_hits(self, noisy: Tensor, level: Tensor, told: Told) -> Belief:
        """What is believed of hits (B, R, PHI, Z), which are `FILLED` or `EMPTY`.

        noisy: the same under noise, at level (B,).
        """
        everywhere = level[:, None, None, None]
        draft = _beside(noisy * (everywhere > 0), everywhere)  # (B, R, PHI, Z, BESIDE)
        size = self.config.sketch
        coarse = told.coarse
        for axis in range(3):
            coarse = coarse.repeat_interleave(size[axis], dim=1 + axis)
        cells = self.cell(torch.cat([told.active, draft], dim=-1))  # (B, R, PHI, Z, D)
        odds = self.odds(cells + coarse + told.ground[:, :, None])[..., 0].float()
        one = torch.ones_like(odds)[:, None]
        belief = Belief.of(odds, torch.zeros_like(one), FILLED * one, FINEST * one)
        return belief.seen(noisy, everywhere, noisy.new_tensor(EMPTY))

    def hits(self, filled: Tensor, pitch: Tensor, rank: Tensor) -> Hits:
        """Hits of filled cells (B, R, PHI, Z) of the size `pitch` (B, 2); see `hits_of`."""
        return hits_of(filled, pitch, rank, self.config.most, self.config.neighbours)

    def states(self, hits: Hits, noisy: Tensor, level: Tensor, told: Told) -> Tensor:
        """States (N, D) of hits, of which values (N,) are shown at levels (N,), 0: not shown."""
        p_r, p_phi, p_z = self.config.sketch
        coarse = told.coarse[hits.shower, hits.r // p_r, hits.phi // p_phi, hits.z // p_z]
        shown = torch.stack([noisy * (level > 0), level, (hits.graph.reach + 0.1).log()], dim=1)
        own = self.hit(torch.cat([shown, hits.of(told.active)], dim=1))
        states: Tensor = own + coarse + told.ground[hits.shower, hits.r, hits.z]
        for messages in self.rounds:
            states = messages(states, hits)
        return states

    def believe_values(self, hits: Hits, noisy: Tensor, level: Tensor, told: Told) -> Belief:
        """What is believed of the scaled voxels that are hit (N,); noisy likewise, level (N,)."""
        numbers = self.belief(self.states(hits, noisy, level, told)).float()
        share, mean, log_spread = numbers.chunk(3, dim=1)  # (N, M) each
        odds = torch.full_like(noisy, torch.inf)
        return Belief.of(odds, share, mean, log_spread).seen(noisy, level, self.empty)

    def forward(self, noisy: Scaled, drafted: Tensor, levels: Tensor, hits: Hits,
                clean: Tensor, given: Conditions) -> tuple[Belief, Belief, Belief]:  # fmt: skip
        """All three beliefs, each given what is drawn before it.

        noisy: values of the cells (B, R, PHI, Z) and of the energies times `whiten` (B, K), and a
        draft of the hits (B, R, PHI, Z), at levels (B, 3) of energies, hits and values; clean: the
        energies (B, K).
        """
        told = self.told(clean, given)
        of_energies, of_hits, of_values = levels.unbind(dim=1)
        return (
            self.believe_energies(noisy.energies, of_energies, given),
            self.believe_hits(drafted, of_hits, told),
            self.believe_values(hits, hits.of(noisy.voxels), of_values[hits.shower], told),
        )


def _last(part: nn.Sequential) -> nn.Linear:
    layer = part[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def _shifted(x: Tensor, step: int, dim: int) -> Tensor:
    """Move x (B, R, PHI, Z) by a step along dim; nothing comes in from beyond the mesh."""
    moved = x.roll(step, dim)
    edge = slice(0, step) if step > 0 else slice(x.shape[dim] + step, None)
    index = [slice(None)] * x.ndim
    index[dim] = edge
    moved[tuple(index)] = 0.0
    return moved


def _surroundings(coarse: Tensor) -> Tensor:
    """Coarse cells (B, R', PHI', Z') and those beside them: (B, R', PHI', Z', 6)."""
    around = (coarse.roll(1, 2) + coarse.roll(-1, 2)) / 2
    near = [_shifted(coarse, step, dim) for dim in (1, 3) for step in (1, -1)]
    return torch.stack([coarse, around, *near], dim=-1)


def _beside(draft: Tensor, level: Tensor) -> Tensor:
    """A draft of the hits (B, R, PHI, Z) as a cell sees it, and its level: (B, R, PHI, Z, BESIDE).

    Itself, one and two sectors on both sides, before and behind, inside and outside, and the mean
    of all around it.
    """
    sides = [(draft.roll(k, 2) + draft.roll(-k, 2)) / 2 for k in (1, 2)]
    near = [_shifted(draft, step, dim) for dim in (1, 3) for step in (1, -1)]
    slab = draft + near[2] + near[3]
    ring = slab + slab.roll(1, 2) + slab.roll(-1, 2)
    block = (ring + _shifted(ring, 1, 1) + _shifted(ring, -1, 1)) / 27
    two = (_shifted(draft, 2, 3) + _shifted(draft, -2, 3)) / 2
    return torch.stack([draft, *sides, *near, block, two, level.expand_as(draft)], dim=-1)
