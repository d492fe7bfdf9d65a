r"""The law of a tokeniser's codes: what is likely next, given the codes nearer to the entrance.

A trained tokeniser (`caloforge.learn.models.vqvae`) makes a shower a sentence of N codes in order
of depth. A causal transformer learns it as VQ-VAE priors (van den Oord et al., arXiv:1711.00937)
and image transformers (Esser et al., arXiv:2012.09841) do:

.. math:: p(u, c \mid x) = \prod_k p(u_k \mid u_{<k}, x) \, \prod_n p(c_n \mid c_{<n}, u, x)

with conditions x (primary and detector), the energies u of the shower (its total first, and its
divisor where it has one, see `caloforge.learn.totalscale`) and the codes c. The energies are drawn
before the codes, each from a mixture of Gaussians around its regressed mean: what a shower leaves
in all is not left to 64 draws. The likelihood is exact, and reported: in nats a shower (energies,
in their whitened unit, and codes) and in bits a code.

A shower is drawn in N passes with a memory of keys and values, each pass a choice among K codes by
one uniform number of the shower's own: at a temperature, and among the k likeliest if so asked. The
tokeniser is part of the checkpoint, unchanged; where the whole is adapted, its decoder learns too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from caloforge.errors import RequestError
from caloforge.learn.blocks import modulate
from caloforge.learn.causal import CausalBlock
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.models.belief import Belief
from caloforge.learn.models.family import Aim, Family, Manner, check_size, only, refuse_unread
from caloforge.learn.models.patchwork import COLOURS
from caloforge.learn.models.plain import plain
from caloforge.learn.models.prior_tuning import tuning
from caloforge.learn.models.profile import Profile
from caloforge.learn.models.speaker import Choice, Speaker, pairs_of
from caloforge.learn.models.vqvae import (
    FOUNDATION,
    Depths,
    Vqvae,
    VqvaeConfig,
    layers_of,
    shower,
    whole,
)
from caloforge.learn.models.vqvae import scale as scale_of
from caloforge.learn.noise import Numbers
from caloforge.learn.preprocess import Scaled, ShowerScale
from caloforge.learn.recipe import Recipe
from caloforge.learn.standard import Standard
from caloforge.learn.totalscale import TotalScale

__all__ = ["FAMILY", "SIZES", "Places", "Prior", "PriorConfig", "spelled", "surprise_of"]


@dataclass(frozen=True)
class PriorConfig:
    """Shape of the transformer, and the tokeniser that it speaks for.

    mixture: Gaussians of an energy.
    """

    tokeniser: VqvaeConfig
    width: int
    depth: int
    heads: int
    mixture: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The mesh, in cells (r, phi, z)."""
        return self.tokeniser.shape

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return plain(self) | {"tokeniser": self.tokeniser.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriorConfig:
        """Undo `to_dict`."""
        return cls(**dict(values) | {"tokeniser": VqvaeConfig.from_dict(values["tokeniser"])})


SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "micro": dict(width=64, depth=2, heads=2),
        "student": dict(width=128, depth=2, heads=4),  # for a core: passes count, not their width
        "tiny": dict(width=128, depth=4, heads=4),
        "small": dict(width=192, depth=6, heads=6),
        "base": dict(width=256, depth=8, heads=8),
        "large": dict(width=384, depth=12, heads=12),
    }
)


def _tokeniser(recipe: Recipe) -> Model:
    """Open the tokeniser that a recipe names; raises `RequestError` if it is none."""
    if recipe.prior is None:
        raise RequestError("a prior needs its tokeniser: set prior.tokeniser to a vqvae's folder")
    model = load_model(recipe.prior.tokeniser)
    if model.family != "vqvae":
        raise RequestError(
            f"'{recipe.prior.tokeniser}' is of kind '{model.family}'; prior.tokeniser must be a "
            "vqvae"
        )
    return model


def plan(recipe: Recipe, shape: tuple[int, int, int], detectors: int) -> PriorConfig:
    """Return the configuration that a recipe asks for.

    Raises `RequestError` for another size, for a tokeniser of another mesh, and for a table of
    voxels: they are scaled as the tokeniser has it.
    """
    refuse_unread(recipe, *FOUNDATION, "voxels")
    check_size(recipe, SIZES)
    known: VqvaeConfig = _tokeniser(recipe).network.config
    assert recipe.prior is not None
    if known.shape != shape:
        raise RequestError(
            f"'{recipe.prior.tokeniser}' knows a mesh of {known.shape} cells, the data have {shape}"
        )
    return PriorConfig(known, mixture=recipe.prior.mixture, **SIZES[recipe.size])


def scale(config: PriorConfig) -> TotalScale | ShowerScale:
    """Return the preprocessing of the tokeniser, not fitted yet."""
    return scale_of(config.tokeniser)


def begin(recipe: Recipe, network: Prior, scale: TotalScale | ShowerScale) -> None:
    """Take over the weights of the tokeniser and its preprocessing, as they are."""
    known = _tokeniser(recipe)
    network.tokeniser.load_state_dict(known.network.state_dict())
    scale.load_state_dict(known.scale.state_dict())


class Places(NamedTuple):
    """What a prior says of the N places of sentences: `logits` (B, N, codes), unnormalised
    logarithms of what is likely, `profile` (B, N), the surprise in nats of what layers hold, and
    `hidden`, the vectors (B, N, D) after each block.
    """

    logits: Tensor
    profile: Tensor
    hidden: tuple[Tensor, ...]


class Prior(nn.Module):
    """What is likely of energies and codes; see the module."""

    numbers: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        known, d = config.tokeniser, config.width
        self.tokeniser = Vqvae(known).requires_grad_(False)
        self.register_buffer("numbers", torch.arange(known.codes), persistent=False)
        self.told = Standard()
        told, count = len(FEATURE_NAMES), known.quantities
        self.energies = nn.ModuleList(
            nn.Sequential(nn.Linear(told + k, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(),
                          nn.Linear(64, 3 * config.mixture))
            for k in range(count)
        )  # fmt: skip
        self.condition = nn.Sequential(
            nn.Linear(told + count, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU()
        )
        if known.layers:
            self.profile = Profile(d, config.mixture)
        self.embed_code = nn.Embedding(known.codes, d)
        self.embed_vector = nn.Linear(known.width_code, d)
        self.depths = Depths(known.tokens, known.shape[2], d)
        self.blocks = nn.ModuleList(CausalBlock(d, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(d, 8 * d)
        self.head = nn.Linear(d, known.codes)
        self.head_vector = nn.Linear(d, 2 * known.width_code)
        last = [net[-1] for net in self.energies if isinstance(net, nn.Sequential)]
        for layer in (self.embed_code, self.modulation, self.head, self.head_vector, *last):
            assert isinstance(layer, nn.Linear | nn.Embedding)
            nn.init.zeros_(layer.weight)
        for layer in (self.head, self.head_vector):  # every code is as likely as any other
            nn.init.zeros_(layer.bias)
        for net in last:
            assert isinstance(net, nn.Linear)
            apart = torch.linspace(-1, 1, config.mixture) if config.mixture > 1 else torch.zeros(1)
            net.bias.data = torch.stack([torch.zeros_like(apart), apart, 0 * apart]).flatten()

    @torch.no_grad()
    def fit(self, features: Tensor, clean: Scaled) -> None:
        """Fit the features' scale (N, F)."""
        self.told.fit(features)

    def forward(self, clean: Scaled, given: Conditions) -> tuple[Tensor, Tensor]:
        """Negative logarithms of the likelihood of showers in nats: of energies and codes, (B,)."""
        with torch.no_grad():
            codes = self.tokeniser.tokenise(clean, given)
        return self.surprise(codes, clean.energies, given)

    def surprise(self, codes: Tensor, energies: Tensor, given: Conditions) -> tuple[Tensor, Tensor]:
        """Negative logarithms of the likelihood in nats, of energies (B, K) and of codes (B, N)
        given those, (B,) each.
        """
        said = self.places(codes, energies, given)
        of_energies = self.surprise_of_whole(energies, given) + said.profile.sum(dim=1)
        return of_energies, surprise_of(codes, said.logits).sum(dim=1)

    def surprise_of_whole(self, energies: Tensor, given: Conditions) -> Tensor:
        """The same (B,) of what energies (B, K) say of whole showers alone."""
        told, first = self.told(given), whole(self.config.tokeniser, energies)
        each = [self.believe(told, first[:, :k]).surprise(x) for k, x in enumerate(first.T)]
        return torch.stack(each).sum(dim=0)

    def believe(self, told: Tensor, before: Tensor) -> Belief:
        """Belief of the next energy (B,) from features (B, F) and the energies before it (B, k)."""
        said: Tensor = self.energies[before.shape[1]](torch.cat([told, before], dim=1))
        share, mean, spread = said.float().chunk(3, dim=1)
        return Belief.of(torch.full_like(mean[:, 0], torch.inf), share, mean, spread)

    def places(self, codes: Tensor, energies: Tensor, given: Conditions) -> Places:
        """What is said of each place, given the codes (B, N) before it and energies (B, K)."""
        known = self.config.tokeniser
        c = self.condition_of(whole(known, energies), given)
        before, pairs = self._embedded(codes), None
        if known.layers:
            pairs = layers_of(energies, known.tokens)  # (B, N, 2)
            before = before + self.profile.embed(pairs)
        x = torch.cat([c[:, None], before[:, :-1]], dim=1) + self.depths(given.pitch)  # (B, N, D)
        modulation, hidden = self.modulation(c).unflatten(1, (8, -1)), []
        for block in self.blocks:
            x = block(x, modulation[:, :6])
            hidden.append(x)
        x = modulate(self.norm(x), modulation[:, 6:7], modulation[:, 7:])
        surprise = x.new_zeros(x.shape[:2])
        if pairs is not None:
            surprise, x = self.profile(x, pairs)
        return Places(self._said(x), surprise, tuple(hidden))

    def draw_energies(self, given: Conditions, noise: Numbers) -> Tensor:
        """Draw energies of the whole shower (B, k), whitened, in their order."""
        told: Tensor = self.told(given)
        drawn = told[:, :0]
        for _ in self.energies:
            chance, normal = noise.rows(2).unbind(dim=1)
            _, mean, spread = self.believe(told, drawn).chosen(torch.special.ndtr(chance))
            drawn = torch.cat([drawn, (mean + spread * normal)[:, None]], dim=1)
        return drawn

    def draw_codes(
        self, energies: Tensor, given: Conditions, noise: Numbers, temperature: float = 1.0,
        top_k: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Draw codes (B, N) given energies of the whole shower (B, k), one place after the other;
        see `Speaker`. Returns them and all energies (B, K), with those of the profile.
        """
        chance, normal = self.dice(noise)
        speaker, c = Speaker(self, given.pitch), self.condition_of(energies, given)
        codes, told = speaker.draw(c, chance, normal, Choice(temperature, top_k))
        return codes, self.all_energies(energies, told)

    def dice(self, noise: Numbers) -> tuple[Tensor, Tensor | None]:
        """What the places of a sentence are drawn by: uniform numbers (B, N) in [0, 1), and with
        a profile normal ones (B, N, 3).
        """
        n = self.config.tokeniser.tokens
        chance = torch.special.ndtr(noise.rows(n))
        return chance, noise.rows(3 * n).reshape(-1, n, 3) if self.config.tokeniser.layers else None

    def all_energies(self, energies: Tensor, told: Tensor) -> Tensor:
        """Energies (B, K): those of the whole shower (B, k), and what the profile told (B, N, 3)
        of the layers, if there is one.
        """
        if not self.config.tokeniser.layers:
            return energies
        hits, layers = pairs_of(told).unbind(dim=2)  # (B, Z) each
        return torch.cat([energies[:, :1], layers, hits, energies[:, 1:]], dim=1)

    def condition_of(self, energies: Tensor, given: Conditions) -> Tensor:
        """What is known of showers before their first place, as vectors (B, D), of energies of the
        whole shower (B, k).
        """
        c: Tensor = self.condition(torch.cat([self.told(given), energies], dim=1))
        return c

    def _embedded(self, codes: Tensor) -> Tensor:
        """Codes (B, T) as vectors (B, T, D): by number, and by where they lie among the codes."""
        vectors = self.tokeniser.quantiser.look_up(codes)
        embedded: Tensor = self.embed_code(codes) + self.embed_vector(vectors)
        return embedded

    def _said(self, x: Tensor) -> Tensor:
        """Logarithms (B, T, codes) at places (B, T, D): one by one, and as of a Gaussian of some
        mean and spread among the codes' vectors, which few showers are enough to learn.
        """
        vectors = self.tokeniser.quantiser.look_up(self.numbers)  # (codes, C)
        vectors = torch.cat([vectors, vectors.square()], dim=1)
        said: Tensor = self.head(x) + self.head_vector(x) @ vectors.T
        return said


def surprise_of(codes: Tensor, logits: Tensor) -> Tensor:
    """Negative logarithms of the likelihood (B, N) in nats of codes (B, N) by `Places.logits`."""
    return -logits.float().log_softmax(dim=-1).gather(2, codes[..., None])[..., 0]


def losses(
    network: Prior, clean: Scaled, given: Conditions, draw: torch.Generator, aim: Aim
) -> dict[str, Tensor]:
    """Nats of the energies and of the codes of B showers, and when adapting of their voxels given
    the codes, all () and divided by the number of codes. The decoder, which takes most of the time
    and learns least, is taught with every second shower.
    """
    tokeniser = network.tokeniser
    with torch.no_grad():
        codes = tokeniser.tokenise(clean, given)
    n = tokeniser.config.tokens
    energies, words = network.surprise(codes, clean.energies, given)
    parts = {"energies": energies.mean() / n, "codes": words.mean() / n}
    if aim.adapting:
        few = slice(None, None, 2 if torch.is_grad_enabled() else 1)
        codes, clean, given = codes[few], Scaled(*(part[few] for part in clean)), given.at(few)
        said = tokeniser.decode(tokeniser.quantiser.look_up(codes), clean.energies, given)
        each = tokeniser.surprise(said, clean, given, draw)
        parts["voxels"] = each * clean.voxels[0].numel() / n
    return parts


def measure(network: Prior, showers: Iterable[tuple[Scaled, Conditions]]) -> dict[str, float]:
    """Mean surprise of showers: ``nats_per_shower`` of energies and codes, ``bits_per_code``."""
    parts = [torch.stack(network(*batch)) for batch in showers]
    energies, codes = torch.cat(parts, dim=1).double().mean(dim=1).tolist()
    bits = codes / math.log(2) / network.config.tokeniser.tokens
    return {"nats_per_shower": energies + codes, "bits_per_code": bits}


def settle(model: Model, asked: Manner, name: str) -> Manner:
    """Fill in temperature 1 over all codes, and voxels drawn in all their parts where they are;
    raises `RequestError` for what cannot be.
    """
    parts = (1, 2, COLOURS) if model.network.config.tokeniser.near else ()
    only(asked, name, "temperature", "top_k", *(["steps"] if parts else []))
    if parts and asked.steps is not None and asked.steps not in parts:
        raise RequestError(f"voxels are drawn in 1, 2 or {COLOURS} steps, not {asked.steps}")
    manner = replace(
        asked,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        steps=asked.steps or COLOURS if parts else None,
    )
    assert manner.temperature is not None
    if not 0 <= manner.temperature < math.inf:
        raise RequestError(f"the temperature must be at least 0, not {manner.temperature}")
    if manner.top_k is not None and manner.top_k < 1:
        raise RequestError(f"top-k must be at least 1, not {manner.top_k}")
    return manner


def draw(
    network: Prior,
    scale: TotalScale | ShowerScale,
    given: Conditions,
    noise: Numbers,
    manner: Manner,
) -> Tensor:
    """Voxels (B, R, PHI, Z) in MeV of showers under conditions."""
    assert manner.temperature is not None
    energies = network.draw_energies(given, noise)
    codes, energies = network.draw_codes(energies, given, noise, manner.temperature, manner.top_k)
    return spelled(network.tokeniser, scale, codes, energies, given, noise, manner.steps or 1)


def spelled(
    tokeniser: Vqvae, scale: TotalScale | ShowerScale, codes: Tensor, energies: Tensor,
    given: Conditions, noise: Numbers, parts: int = COLOURS,
) -> Tensor:  # fmt: skip
    """Voxels (B, R, PHI, Z) in MeV that codes (B, N) and energies (B, K) stand for."""
    said = tokeniser.decode(tokeniser.quantiser.look_up(codes), energies, given)
    return shower(tokeniser, scale, said, energies, given, noise, parts)


FAMILY = Family(
    plan=plan,
    config=PriorConfig.from_dict,
    network=Prior,
    scale=scale,
    losses=losses,
    begin=begin,
    settle=settle,
    draw=draw,
    measure=measure,
    tuning=tuning,
)
