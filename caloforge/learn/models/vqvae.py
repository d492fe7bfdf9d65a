r"""A tokeniser of showers: N codes a shower, in order of depth, and a decoder that reads them.

VQ-VAE (van den Oord et al., arXiv:1711.00937): an encoder gives N vectors, each is replaced by the
nearest of K codes, and a decoder makes the shower of the codes. Encoder and decoder are
transformers over patches of the mesh, ordered by depth. N need not be the number of patches: of
the depth that the patches share, each code covers an equal part, and whatever covers what is mixed
in proportion to the overlap (`overlaps`). Code n therefore stands at the depth (n + 1/2)/N of the
mesh in every detector, code 0 at the entrance.

A code says what a part of a shower is like, not which of its far voxels are hit: that is chance,
and 64 codes of 9 bits could not say it. With loss ``beliefs`` the decoder says how likely each
voxel is filled and with how much (`caloforge.learn.models.belief`), and voxels are drawn; with the
other losses it guesses one value. Encoder and decoder are told the primary, the detector, and the
energies of the shower (its total, see `caloforge.learn.totalscale`), so that codes need not spell
them out. The codebook is that of `caloforge.learn.quantiser`; all places of the sentence share it.
What a place is like on average, the decoder knows: the vectors of each place are therefore brought
to mean 0 and spread 1 over the showers before they are quantised, and every place has use for every
code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caloforge.learn.blocks import Block, modulate
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.losses import Loss, read, unit, voxel_loss
from caloforge.learn.models.belief import NOTHING, Belief, at_first
from caloforge.learn.models.family import Aim, Family, check_size, refuse_unread
from caloforge.learn.models.patchwork import COLOURS, Patchwork
from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.noise import Numbers
from caloforge.learn.preprocess import Drawn, NoSketch, Scaled, ShowerScale
from caloforge.learn.quantiser import Quantiser, usage
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import VoxelSettings, VqvaeSettings
from caloforge.learn.standard import Standard
from caloforge.learn.tokens import Patches, fourier, positions
from caloforge.learn.totalscale import TotalScale
from caloforge.learn.voxelscale import divisors

__all__ = [
    "FAMILY", "SIZES", "Depths", "Vqvae", "VqvaeConfig", "layers_of", "overlaps", "reconstruct",
    "shower", "whole",
]  # fmt: skip

# Keys of a recipe that only the foundation model reads.
FOUNDATION = (
    "start", "process", "calls", "head", "plain", "geometry", "positions", "masked", "untold",
)  # fmt: skip
POSITION = 8
VOXELS = 10.0  # Weight of a voxel's loss: most voxels are empty and hardly surprise.


@dataclass(frozen=True)
class VqvaeConfig:
    """Shape of the tokeniser.

    shape, patch: the mesh and a patch in cells (r, phi, z); width, depth, heads: of the transformer
    over the patches, in the encoder and in the decoder; mixture: Gaussians of a filled voxel;
    levels: empty for a codebook; voxels: how they are scaled without `layers`; the rest as in
    `VqvaeSettings`.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    tokens: int
    codes: int
    width_code: int
    levels: tuple[int, ...]
    loss: Literal["beliefs"] | Loss
    commitment: float
    voxels: VoxelSettings
    mixture: int = 2
    layers: bool = False
    near: int = 0

    @property
    def quantities(self) -> int:
        """Number of energies of the whole shower: its total, and the divisor where it has one, see
        `TotalScale`; with `layers` its total and its number of hits, see `ShowerScale`.
        """
        return 2 if self.layers else 1 + divisors(self.voxels)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VqvaeConfig:
        """Undo `to_dict`."""
        return cls(**tupled(values) | {"voxels": VoxelSettings(**values["voxels"])})


# Largest patch in cells (r, phi, z), 0 for all of them.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "micro": dict(patch=(0, 0, 1), width=64, depth=1, heads=2),
        "tiny": dict(patch=(0, 0, 1), width=128, depth=2, heads=4),
        "small": dict(patch=(0, 0, 1), width=192, depth=3, heads=6),
        "base": dict(patch=(0, 0, 1), width=256, depth=5, heads=8),
        "large": dict(patch=(3, 4, 3), width=384, depth=6, heads=12),
    }
)


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> VqvaeConfig:
    """Return the configuration that a recipe asks for; raises `RequestError` for another size."""
    refuse_unread(recipe, *FOUNDATION)
    check_size(recipe, SIZES)
    asked = (recipe.vqvae or VqvaeSettings()).model_dump(exclude={"quantiser"})
    if recipe.vqvae is None or recipe.vqvae.quantiser == "ema":
        asked["levels"] = ()
    values = dict(SIZES[recipe.size])
    patch = Patches.dividing(shape, values.pop("patch")).size
    if asked["layers"]:
        refuse_unread(recipe, "voxels")
        asked["tokens"] = shape[2]
    voxels = recipe.voxels or VoxelSettings()
    return VqvaeConfig(shape=shape, patch=patch, voxels=voxels, **values, **asked)


def overlaps(rows: int, columns: int) -> Tensor:
    """What of each of `rows` equal parts of a line lies in each of `columns`: (rows, columns).

    Rows add up to one.
    """
    inner, outer = torch.arange(rows + 1.0) / rows, torch.arange(columns + 1.0) / columns
    low = torch.maximum(inner[:-1, None], outer[None, :-1])
    high = torch.minimum(inner[1:, None], outer[None, 1:])
    return (high - low).clamp(min=0) * rows


class Depths(nn.Module):
    """Where N tokens stand that share the depth of a mesh evenly, as vectors (B, N, D)."""

    def __init__(self, tokens: int, layers: int, width: int) -> None:
        super().__init__()
        self.tokens, self.layers = tokens, layers
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.depth = nn.Linear(2 * POSITION, width)

    def forward(self, pitch: Tensor) -> Tensor:
        """Vectors (B, N, D) for cells of sizes pitch (B, 2), in radiation lengths along z."""
        steps = (torch.arange(self.tokens, device=pitch.device) + 0.5) * self.layers / self.tokens
        code = fourier(steps * pitch[:, 1:], POSITION, 64.0, 0.5)  # (B, N, 2 P)
        return self.place + self.depth(code)  # type: ignore[no-any-return]


class Vqvae(nn.Module):
    """Encoder, quantiser and decoder; see the module."""

    empty: Tensor
    order: Tensor
    back: Tensor
    gather: Tensor
    spread: Tensor

    def __init__(self, config: VqvaeConfig) -> None:
        super().__init__()
        self.config, self.patches = config, Patches(config.shape, config.patch)
        d, cells, n = config.width, self.patches.cells, config.tokens
        # Outward: depth first, then r and phi.
        order = torch.arange(self.patches.tokens).reshape(self.patches.grid).permute(2, 0, 1)
        for name, index in (("order", order.flatten()), ("back", order.flatten().argsort())):
            self.register_buffer(name, index, persistent=False)
        self.register_buffer("gather", overlaps(n, self.patches.tokens), persistent=False)
        self.register_buffer("spread", overlaps(self.patches.tokens, n), persistent=False)
        self.register_buffer("empty", torch.zeros(()))
        self.told = Standard()
        self.condition = nn.Sequential(
            nn.Linear(len(FEATURE_NAMES) + config.quantities, d), nn.SiLU(), nn.Linear(d, d),
            nn.SiLU(),
        )  # fmt: skip
        self.embed_voxels = nn.Linear(cells, d)
        self.embed_maps = nn.Linear(2 * cells, d)
        self.embed_position = nn.Linear(6 * POSITION, d)
        if config.layers:
            self.embed_layers = nn.Linear(2 * config.patch[2], d, bias=False)
        self.depths = Depths(n, config.shape[2], d)
        self.encoder = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth + 1))
        self.to_code = nn.Linear(d, config.width_code)
        self.code_norm = nn.BatchNorm1d(n * config.width_code, affine=False, momentum=0.05)
        self.quantiser = Quantiser(config.width_code, config.codes, config.levels)
        self.from_code = nn.Linear(config.width_code, d)
        self.decoder = nn.ModuleList(Block(d, config.heads) for _ in range(config.depth + 1))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(d, 14 * d)  # of the encoder, of the decoder, of its head
        self.numbers = 3 * config.mixture if config.loss == "beliefs" else 1  # of a voxel
        if config.near:
            self.patchwork = Patchwork(config.shape, config.mixture, config.near, d)
        self.head = nn.Linear(d, self.numbers * cells)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the features' scale (N, F) and what is believed of voxels before anything is seen."""
        self.told.fit(features)
        self.empty.copy_(clean.voxels.min())
        if self.config.loss == "beliefs":
            start = at_first(clean.voxels, self.empty, self.config.mixture)
        elif unit(self.config.loss):
            start = clean.voxels.mean().logit(eps=1e-6)[None]
        else:
            start = clean.voxels.mean()[None]
        self.head.bias.copy_(start.repeat_interleave(self.patches.cells))

    def forward(
        self, clean: Scaled, given: Conditions, seed: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder says of voxels (B, P, R, PHI, Z), the codes (B, N), and how far the
        encoder is from them (): one pass of training. For `seed` see `Quantiser`.
        """
        vectors = self.encode(clean, given, learns=seed is not None)  # (B, N, C)
        codes, numbers = self.quantiser(vectors, seed)
        far = (vectors - codes.detach()).square().mean()
        return self.decode(codes, clean.energies, given), numbers, far

    def tokenise(self, clean: Scaled, given: Conditions) -> Tensor:
        """Codes (B, N) of showers, from the entrance outward."""
        numbers: Tensor = self.quantiser(self.encode(clean, given))[1]
        return numbers

    def encode(self, clean: Scaled, given: Conditions, learns: bool = False) -> Tensor:
        """Vectors (B, N, C) of showers before they are quantised.

        Each number has mean 0 and spread 1 over the showers, as counted while it `learns`.
        """
        c = self._condition(clean.energies, given)
        modulation = self.modulation(c).unflatten(1, (14, -1))[:, :6]
        voxels = self.patches.cut(clean.voxels)[:, self.order]
        x = self.embed_voxels(voxels) + self._placed(clean.energies, given)  # (B, T, D)
        for block in self.encoder[:-1]:
            x = block(x, modulation)
        x = self.gather @ x + self.depths(given.pitch)  # (B, N, D)
        x = self.encoder[-1](x, modulation)
        vectors = self.to_code(self.norm(x)).float()
        self.code_norm.train(learns)
        even: Tensor = self.code_norm(vectors.flatten(1)).reshape(vectors.shape)
        return even

    def decode(self, codes: Tensor, energies: Tensor, given: Conditions) -> Tensor:
        """What codes (B, N, C) and energies (B, K) say of voxels (B, P, R, PHI, Z).

        P = 1 guess, or for ``beliefs`` the odds, means, spreads and shares of `Belief`.
        """
        c = self._condition(energies, given)
        modulation = self.modulation(c).unflatten(1, (14, -1))[:, 6:]
        x = self.from_code(codes) + self.depths(given.pitch)  # (B, N, D)
        x = self.decoder[0](x, modulation[:, :6])
        x = self.spread @ x + self._placed(energies, given)  # (B, T, D)
        for block in self.decoder[1:]:
            x = block(x, modulation[:, :6])
        x = self.head(modulate(self.norm(x), modulation[:, 6:7], modulation[:, 7:]))[:, self.back]
        return self.patches.join_parts(x, self.numbers).float()

    def _condition(self, energies: Tensor, given: Conditions) -> Tensor:
        told = torch.cat([self.told(given), whole(self.config, energies)], dim=1)
        c: Tensor = self.condition(told)  # (B, D)
        return c

    def _placed(self, energies: Tensor, given: Conditions) -> Tensor:
        """Where each patch stands, what material it holds, and with `layers` what energy and how
        many hits its layers have (B, T, D), by depth.
        """
        active = torch.cat([self.patches.cut(given.maps[:, k]) for k in (0, 1)], dim=-1)
        place = self.embed_position(positions(self.patches, given.pitch, POSITION))
        placed: Tensor = place + self.embed_maps((active + 0.05).log())
        placed = placed[:, self.order]
        if not self.config.layers:
            return placed
        pairs = layers_of(energies, self.config.shape[2])  # (B, Z, 2)
        slabs: Tensor = self.embed_layers(
            pairs.reshape(-1, self.patches.grid[2], 2 * self.config.patch[2])
        )
        across = self.patches.grid[0] * self.patches.grid[1]
        return placed + slabs.repeat_interleave(across, dim=1)  # by depth, as patches are

    def surprise(
        self, said: Tensor, clean: Scaled, given: Conditions, draw: torch.Generator
    ) -> Tensor:
        """Mean surprise () in nats of a voxel by what the decoder says (B, P, R, PHI, Z), some
        being seen where they are drawn in parts: how many, `draw` decides.
        """
        unseen = torch.ones_like(clean.voxels)
        if self.config.near:
            upto = torch.randint(COLOURS, (len(said),), generator=draw, device=draw.device)
            c, filled = self._condition(clean.energies, given), clean.voxels > self.empty + NOTHING
            said, seen = self.patchwork(said, c, clean.voxels, filled, upto.to(said.device))
            unseen = (~seen).type_as(unseen)
        each = Belief.unpacked(said).surprise(clean.voxels, self.empty)
        return (each * unseen).sum() / unseen.sum()

    def drawn(
        self, said: Tensor, energies: Tensor, given: Conditions, noise: Numbers,
        hits: Tensor | None = None, parts: int = COLOURS,
    ) -> Scaled | Drawn:  # fmt: skip
        """Scaled showers from what the decoder says (B, P, R, PHI, Z) and energies (B, K).

        Only beliefs need `noise`: two numbers a voxel. With `hits` (B, Z) so many voxels of each
        layer are filled. `parts`: see `Patchwork`.
        """
        if self.config.loss != "beliefs":
            return Scaled(read(self.config.loss, said[:, 0]), energies)
        voxels = said[0, 0].numel()
        chance, normal = noise.rows(2 * voxels).reshape(-1, 2, *said.shape[2:]).unbind(dim=1)
        chance = torch.special.ndtr(chance)
        if self.config.near:
            c = self._condition(energies, given)
            drawn, filled = self.patchwork.draw(said, c, chance, normal, hits, parts)
        else:
            filled, mean, spread = Belief.unpacked(said).chosen(chance, hits)
            drawn = mean + spread * normal
        return Drawn(drawn, energies, torch.where(filled, torch.inf, -torch.inf))


def whole(config: VqvaeConfig, energies: Tensor) -> Tensor:
    """Those of the energies (B, K) that belong to the whole shower (B, `config.quantities`)."""
    return torch.cat([energies[:, :1], energies[:, -1:]], dim=1) if config.layers else energies


def layers_of(energies: Tensor, layers: int) -> Tensor:
    """Hits and energies of Z layers, side by side (B, Z, 2), of the energies (B, K) of showers."""
    energy, hits = energies[:, 1 : 1 + layers], energies[:, 1 + layers : 1 + 2 * layers]
    return torch.stack([hits, energy], dim=2)


def scale(config: VqvaeConfig) -> TotalScale | ShowerScale:
    """Return the preprocessing that belongs to a network, not fitted yet."""
    if config.layers:
        return ShowerScale(NoSketch(config.shape), counted=True)
    return TotalScale(config.voxels, config.loss != "beliefs" and unit(config.loss))


def losses(
    network: Vqvae, clean: Scaled, given: Conditions, draw: torch.Generator, aim: Aim
) -> dict[str, Tensor]:
    """Losses of the voxels and of the encoder's distance to its codes, both (), of B showers."""
    learns = torch.is_grad_enabled()  # a validation leaves the codebook alone
    seed = int(torch.randint(2**62, (), generator=draw, device=draw.device)) if learns else None
    said, _, far = network(clean, given, seed)
    if network.config.loss == "beliefs":
        of_voxels = network.surprise(said, clean, given, draw)
    else:
        of_voxels = voxel_loss(network.config.loss, said[:, 0], clean.voxels, given.pitch).mean()
    return {"voxels": VOXELS * of_voxels, "commitment": network.config.commitment * far}


def measure(network: Vqvae, showers: Iterable[tuple[Scaled, Conditions]]) -> dict[str, float]:
    """Usage and perplexity of the codebook on showers; see `caloforge.learn.quantiser.usage`."""
    return usage((network.tokenise(*batch) for batch in showers), network.quantiser.codes)


@torch.no_grad()
def reconstruct(
    network: Vqvae, scale: TotalScale | ShowerScale, voxels: Tensor, given: Conditions,
    noise: Numbers,
) -> Tensor:  # fmt: skip
    """Voxels (B, R, PHI, Z) in MeV that are left of voxels (B, R, PHI, Z) in MeV after the codes.

    The energies are told, not coded: they come back as they were.
    """
    clean = scale(voxels, given)
    said, _, _ = network(clean, given)
    return shower(network, scale, said, clean.energies, given, noise)


def shower(
    network: Vqvae, scale: TotalScale | ShowerScale, said: Tensor, energies: Tensor,
    given: Conditions, noise: Numbers, parts: int = COLOURS,
) -> Tensor:  # fmt: skip
    """Voxels (B, R, PHI, Z) in MeV from what the decoder says (B, P, R, PHI, Z), and energies."""
    hits = scale.hits(energies, given) if isinstance(scale, ShowerScale) else None
    voxels: Tensor = scale.inverse(network.drawn(said, energies, given, noise, hits, parts), given)
    return voxels


FAMILY = Family(
    plan=plan,
    config=VqvaeConfig.from_dict,
    network=Vqvae,
    scale=scale,
    losses=losses,
    measure=measure,
    why="a vqvae turns showers into codes and back; train a model of kind 'prior' on it to draw",
)
