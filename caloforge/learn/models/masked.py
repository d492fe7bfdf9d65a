r"""A masked vision transformer: patches of a shower are hidden, and the whole shower is found.

The first phase of a foundation model (masked autoencoders, He et al., arXiv:2111.06377; vision
transformers, Dosovitskiy et al., arXiv:2010.11929). The mesh is cut into patches of all cells in r,
some sectors and some layers; a share of them is hidden and the network predicts all voxels. What
stands in a hidden place is zero, noise, or the mean shower at that energy. Other pretexts teach
without hiding: removing noise (Vincent et al. 2008, doi:10.1145/1390156.1390294), telling patches
that come from another shower (replaced-token detection, Clark et al., arXiv:2003.10555), and
putting shuffled patches back in order (jigsaw, Noroozi and Favaro, arXiv:1603.09246). The
regression of the incident energy can be learned beside each.

With `visible` the encoder sees the patches that are left only, and a shallow decoder sees all:
less to compute, by about the share that is hidden.

The network is not told the primary: its features are to say something about it. It predicts means,
and the mean of all showers is no shower: it does not generate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from caloforge.learn.blocks import Block
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.losses import unit, voxel_loss
from caloforge.learn.models.family import Aim, Family, check_size
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.noise import normal, uniform
from caloforge.learn.preprocess import Scaled
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import MaskedViTSettings, VoxelSettings
from caloforge.learn.tokens import Patches, grid_code, positions
from caloforge.learn.voxelscale import VoxelScale

__all__ = ["FAMILY", "SIZES", "MaskedConfig", "MaskedTransformer"]

POSITION = 8
DECODER = 1  # Blocks that see all patches, where the encoder sees some.
SEEN = 0.1  # Weight of what was not hidden: easy, but the slides predict the whole shower.
_ENERGY = FEATURE_NAMES.index("log_energy")

# Largest patch in cells (r, phi, z), 0 for all: on 18 x 50 x 45 cells these are the slides' 1 x 10
# x 15 patches of 18 x 5 x 3.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "micro": dict(patch=(0, 5, 5), width=32, depth=2, heads=2),
        "tiny": dict(patch=(0, 5, 3), width=96, depth=4, heads=3),
        "small": dict(patch=(0, 5, 3), width=160, depth=6, heads=5),
        "base": dict(patch=(0, 5, 3), width=384, depth=8, heads=6),
    }
)


@dataclass(frozen=True)
class MaskedConfig:
    """Shape of the network, its pretext and its scale; see `MaskedViTSettings`."""

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    pretext: MaskedViTSettings
    voxels: VoxelSettings

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaskedConfig:
        """Undo `to_dict`."""
        tables = {
            "pretext": MaskedViTSettings(**values["pretext"]),
            "voxels": VoxelSettings(**values["voxels"]),
        }
        return cls(**tupled(values) | tables)


class Guess(NamedTuple):
    """What a network says: voxels (B, R, PHI, Z) as `losses.read` takes them, what it says of each
    patch (B, T, M), and the standardised logarithm of the incident energy (B,).
    """

    voxels: Tensor
    patches: Tensor
    energy: Tensor


class MaskedTransformer(nn.Module):
    """Finds what is hidden in a shower; see the module."""

    energy_mean: Tensor
    energy_spread: Tensor
    typical: Tensor
    empty: Tensor
    code: Tensor

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = Patches(config.shape, config.patch)
        d, cells, tokens = config.width, self.patches.cells, self.patches.tokens
        task = config.pretext.task
        self.embed = nn.Linear(cells, d)
        self.hidden = nn.Parameter(0.02 * torch.randn(d))
        if config.pretext.positions == "learned":
            self.place = nn.Parameter(0.02 * torch.randn(tokens, d))
        elif config.pretext.positions == "fixed":
            self.register_buffer("code", grid_code(self.patches, d), persistent=False)
        else:
            self.embed_position = nn.Linear(6 * POSITION, d)
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth))
        self.decoder = nn.ModuleList(
            Block(d, config.heads) for _ in range(DECODER if config.pretext.visible else 0)
        )
        self.norm = nn.LayerNorm(d)
        self.head_voxels = nn.Linear(d, cells)
        marks = {"replaced": 1, "jigsaw": tokens}.get(task, 0)
        self.head_patches = nn.Linear(d, marks) if marks else None
        self.head_energy = nn.Linear(d, 1)
        self.register_buffer("energy_mean", torch.zeros(()))
        self.register_buffer("energy_spread", torch.ones(()))
        self.register_buffer("empty", torch.zeros(()))
        # Of the mean shower: a voxel is a parabola in the logarithm of the energy.
        mean = config.pretext.fill == "mean"
        self.register_buffer("typical", torch.zeros(3 if mean else 0, *config.shape))

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the scale of the energy, the empty voxel and the mean shower to features (N, F)."""
        self.energy_mean.copy_(features[:, _ENERGY].mean())
        self.energy_spread.copy_(features[:, _ENERGY].std().clamp(min=1e-3))
        self.empty.copy_(clean.voxels.min())
        if len(self.typical):
            terms = self._terms(features)  # (N, 3)
            found = torch.linalg.lstsq(terms, clean.voxels.flatten(1)).solution
            self.typical.copy_(found.reshape(self.typical.shape))

    def standard_energy(self, given: Conditions) -> Tensor:
        """Standardised logarithm of the incident energy (B,)."""
        return (given.features[:, _ENERGY] - self.energy_mean) / self.energy_spread

    def _terms(self, features: Tensor) -> Tensor:
        x = (features[:, _ENERGY] - self.energy_mean) / self.energy_spread
        return torch.stack([torch.ones_like(x), x, x.square()], dim=1)

    def mean_shower(self, given: Conditions) -> Tensor:
        """Mean scaled shower (B, R, PHI, Z) at the energies of the conditions."""
        return torch.einsum("bk,k...->b...", self._terms(given.features), self.typical)

    def forward(self, voxels: Tensor, hidden: Tensor, given: Conditions) -> Guess:
        """Guess the shower behind voxels (B, R, PHI, Z) of which patches (B, T) are hidden.

        With `visible` every shower must hide as many.
        """
        x = self.embedded(voxels, hidden, given)  # (B, T, D)
        if self.config.pretext.visible and bool(hidden.any()):
            x = self._around(x, hidden)
        else:
            x = self._through(x, self.blocks)
        x = self.norm(self._through(x, self.decoder))
        return Guess(
            self.patches.join(self.head_voxels(x)).float(),
            x[..., :0] if self.head_patches is None else self.head_patches(x).float(),
            self.head_energy(x.mean(1))[:, 0].float(),
        )

    def tokens(self, voxels: Tensor, given: Conditions, after: int) -> Tensor:
        """Tokens (B, T, D) of whole showers (B, R, PHI, Z) after so many blocks."""
        nothing = torch.zeros(len(voxels), self.patches.tokens, dtype=torch.bool).to(voxels.device)
        return self._through(self.embedded(voxels, nothing, given), self.blocks[:after])

    def embedded(self, voxels: Tensor, hidden: Tensor, given: Conditions) -> Tensor:
        """Tokens (B, T, D) of voxels (B, R, PHI, Z), before the first block."""
        x: Tensor = self.embed(self.patches.cut(voxels)) + hidden[..., None] * self.hidden
        if self.config.pretext.positions == "learned":
            return x + self.place
        if self.config.pretext.positions == "fixed":
            return x + self.code
        placed: Tensor = self.embed_position(positions(self.patches, given.pitch, POSITION))
        return x + placed

    def _through(self, x: Tensor, blocks: nn.ModuleList) -> Tensor:
        same = x.new_zeros(len(x), 6, x.shape[2])  # nothing modulates: the tables alone
        for block in blocks:
            x = block(x, same)
        return x

    def _around(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Encode the visible tokens alone; the hidden ones wait for the decoder."""
        order = hidden.int().argsort(dim=1, stable=True)[..., None].expand_as(x)
        count = int((~hidden[0]).sum())
        seen = self._through(x.gather(1, order[:, :count]), self.blocks)
        return x.scatter(1, order[:, :count], seen)


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> MaskedConfig:
    """Return the configuration that a recipe asks for; of `detectors` nothing is told."""
    check_size(recipe, SIZES)
    values = dict(SIZES[recipe.size])
    patch = Patches.dividing(shape, values.pop("patch")).size
    return MaskedConfig(
        shape=shape, patch=patch, pretext=recipe.vit or MaskedViTSettings(),
        voxels=recipe.voxels or VoxelSettings(), **values,
    )  # fmt: skip


def scale(config: MaskedConfig) -> VoxelScale:
    """Return the preprocessing that belongs to a network, not fitted yet."""
    return VoxelScale(config.voxels, unit(config.pretext.loss))


def losses(
    network: MaskedTransformer, clean: Scaled, given: Conditions, draw: torch.Generator, aim: Aim
) -> dict[str, Tensor]:
    """Losses () of the pretext of B showers, and of the energy if it is learned beside it.

    `aim` changes nothing: the pretext is the same in training and validation.
    """
    pretext, voxels = network.config.pretext, clean.voxels
    share = _shares(len(voxels), pretext, draw).to(voxels.device)  # (B,)
    changed = _chosen(share, network.patches.tokens, draw)  # (B, T)
    guess, parts = None, {}
    if pretext.task == "jigsaw":
        shuffled, whence = _shuffled(network.patches.cut(voxels), changed, draw)
        guess = network(network.patches.join(shuffled), torch.zeros_like(changed), given)
        parts["order"] = F.cross_entropy(guess.patches[changed], whence[changed])
    elif pretext.task == "replaced":
        mixed = torch.where(network.patches.fill(changed), voxels.roll(1, 0), voxels)
        guess = network(mixed, torch.zeros_like(changed), given)
        marks = F.binary_cross_entropy_with_logits(guess.patches[..., 0], changed.float())
        parts["replaced"] = marks
    else:
        noise = normal(draw, voxels.shape, voxels.device)
        if pretext.task == "denoise":
            spread = share[:, None, None, None]
            shown, hidden = voxels + noise * spread * _size(network), torch.zeros_like(changed)
            wanted = torch.ones_like(changed)
        else:
            fill = _filling(network, noise, given)
            shown = torch.where(network.patches.fill(changed), fill, voxels)
            hidden = wanted = changed
        guess = network(shown, hidden, given)
        misses = voxel_loss(pretext.loss, guess.voxels, voxels, given.pitch)
        parts |= _of_voxels(network.patches, misses, wanted)
    if pretext.energy:
        miss = (guess.energy - network.standard_energy(given)).square().mean()
        parts["energy"] = pretext.energy * miss
    return parts


def _of_voxels(patches: Patches, misses: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Mean loss of what was hidden and, weighted, of what was not; or of whole showers."""
    if misses.shape[-1] == 1:
        return {"voxels": misses.mean()}
    each = patches.cut(misses).mean(-1)  # (B, T)
    parts = {"hidden": (each * wanted).sum() / wanted.sum()}
    if not bool(wanted.all()):
        parts["seen"] = SEEN * (each * ~wanted).sum() / (~wanted).sum()
    return parts


def _shares(b: int, pretext: MaskedViTSettings, draw: torch.Generator) -> Tensor:
    """Share (B,) of the patches to change; one for all where all must hide as many."""
    low, high = pretext.share
    drawn = uniform(draw, (1 if pretext.visible else b,), draw.device)
    return (low + (high - low) * drawn).expand(b)


def _chosen(share: Tensor, tokens: int, draw: torch.Generator) -> Tensor:
    """Which patches (B, T) are changed: a share of each shower, at least one, never all."""
    rank = uniform(draw, (len(share), tokens), share.device).argsort(1).argsort(1)
    count = (share * tokens).round().clamp(1, tokens - 1)
    return rank < count[:, None]


def _shuffled(tokens: Tensor, changed: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shuffle the chosen of tokens (B, T, cells); returns them and where each came from (B, T)."""
    key = uniform(draw, changed.shape, tokens.device)
    places = torch.arange(changed.shape[1], device=tokens.device).expand_as(changed)
    # Chosen places in their order, and the same places in a random order, side by side.
    into = torch.where(changed, places, places + changed.shape[1]).argsort(1)
    whence = torch.where(changed, key, 2.0).argsort(1)
    source = torch.where(changed.gather(1, into), whence, into)
    back = torch.empty_like(places).scatter(1, into, source)
    return tokens.gather(1, back[..., None].expand_as(tokens)), back


def _size(network: MaskedTransformer) -> float:
    """What a spread of noise is measured in: scaled voxels have spread 1, or lie in [0, 1]."""
    return 0.1 if unit(network.config.pretext.loss) else 1.0


def _filling(network: MaskedTransformer, noise: Tensor, given: Conditions) -> Tensor:
    """What stands in the place of hidden voxels (B, R, PHI, Z)."""
    match network.config.pretext.fill:
        case "noise":
            return noise * _size(network)
        case "mean":
            return network.mean_shower(given)
        case _:
            return network.empty.expand_as(noise)


FAMILY = Family(
    plan=plan,
    config=MaskedConfig.from_dict,
    network=MaskedTransformer,
    scale=scale,
    losses=losses,
    why="a masked transformer guesses means, and a mean is no shower; use its features",
)
