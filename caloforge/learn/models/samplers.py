"""From noise to showers: solvers of the probability flow, an ancestral chain, and inpainting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.models.process import PROCESSES
from caloforge.learn.preprocess import Drawn, Scaled

__all__ = ["SAMPLERS", "Known", "ancestral", "draw_energies", "euler", "expecting", "heun",
           "multistep", "sample"]  # fmt: skip

ENERGY_STEPS = 8

Guess = Callable[[Tensor, Tensor], Tensor]
Fresh = Callable[[Tensor], Tensor]
MOST = 6.0  # Of a logarithm of odds: beyond it the network is believed, not the number of hits.
CLIP = 6.0  # Spreads of the voxels; a guess made from the noise alone may be anywhere.


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


def ancestral(guess: Guess, x: Tensor, levels: Tensor, fresh: Fresh = torch.randn_like) -> Tensor:
    """From x (...) at the first of the levels (K + 1,) to the last, K calls, with new noise.

    The chain of DDPM (Ho et al., arXiv:2006.11239, equation 7) for any pair of levels; `fresh`
    gives standard normal noise in the shape of its argument.
    """
    for t, s in zip(levels[:-1], levels[1:], strict=True):
        ahead = guess(x, t)
        kept = t / s  # of the signal, from s back to t
        added = (1 - t).square() - (kept * (1 - s)).square()  # variance of the noise between them
        mean = (kept * (1 - s).square() * x + s * added * ahead) / (1 - t).square()
        x = mean + added.clamp(min=0).sqrt() * (1 - s) / (1 - t) * fresh(x)
    return x


SAMPLERS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"euler": euler, "heun": heun, "multistep": multistep, "ancestral": ancestral}
)


class Known(NamedTuple):
    """What is given of showers that are to be completed: values, and which of them count.

    scaled: voxels (B, R, PHI, Z) and energies (B, K); tokens (T,) and energies (K,) are masks.
    """

    scaled: Scaled
    tokens: Tensor
    energies: Tensor


def sample(
    network: DiffusionTransformer,
    noise: Scaled,
    given: Conditions,
    steps: int,
    sampler: str,
    *,
    fresh: Fresh = torch.randn_like,
    guidance: float = 1.0,
    known: Known | None = None,
    hits: Callable[[Tensor], Tensor] | None = None,
) -> Scaled | Drawn:
    """Draw showers from noise (B, ...): the energies, then the voxels in `steps` of `sampler`.

    The energies are nearly Gaussian and take `ENERGY_STEPS` of `multistep`, which is the cheapest
    for a smooth guess. That of a voxel turns sharply from empty to filled and is not continued.
    `fresh` gives the noise that the ancestral sampler adds on the way; `guidance` other than 1
    exaggerates what the conditions do (arXiv:2207.12598); `known` parts are kept (inpainting).
    `hits` gives the number of hits of each layer (B, Z) from the energies (B, K); the odds are then
    shifted, layer by layer and at every step, so that as many are expected. Whether a voxel is
    empty is left open: the last guess is returned as what is believed.
    """
    process, plain = PROCESSES[network.config.process], network.config.plain
    see = _Sight(network, noise, given, guidance, known)
    energies = noise.energies if plain else _first_stage(see)
    levels, more = process.levels(steps).to(energies.device), {}
    if sampler == "ancestral":
        more = {"fresh": fresh}
    told = 0.0 if plain else 1.0
    if hits is not None and not plain:
        see.hits = hits(energies)

    def guess(x: Tensor, t: Tensor) -> Tensor:
        return see.voxels(x, t, energies, told)

    voxels = SAMPLERS[sampler](guess, noise.voxels, levels, **more)
    filled, odds = see.last
    return Scaled(voxels, energies) if odds is None else Drawn(filled, energies, odds)


def draw_energies(network: DiffusionTransformer, noise: Scaled, given: Conditions) -> Tensor:
    """Draw the energies (B, K) of showers from noise (B, ...), and no voxels."""
    return _first_stage(_Sight(network, noise, given, 1.0, None))


def _first_stage(see: _Sight) -> Tensor:
    energies = see.noise.energies
    levels = torch.linspace(0, 1, ENERGY_STEPS + 1, device=energies.device)
    return multistep(see.energies, energies, levels)


def expecting(odds: Tensor, hits: Tensor, rounds: int = 8) -> Tensor:
    """Shift logarithms of odds (B, R, PHI, Z) layer by layer so that `hits` (B, Z) are expected.

    Of all beliefs with that expectation the shifted ones are the closest to those given, in
    relative entropy. Newton's method, damped; a shift is at most `MOST`.
    """
    shift, wanted = torch.zeros_like(hits)[:, None, None], hits[:, None, None]
    for _ in range(rounds):
        p = torch.sigmoid(odds + shift)
        miss = p.sum(dim=(1, 2), keepdim=True) - wanted
        slope = (p * (1 - p)).sum(dim=(1, 2), keepdim=True) + 0.05
        shift = (shift - (miss / slope).clamp(-1.5, 1.5)).clamp(-MOST, MOST)
    return odds + shift


class _Sight:
    """The network as a sampler asks it: guesses of one part, at one level."""

    def __init__(
        self, network: DiffusionTransformer, noise: Scaled, given: Conditions, guidance: float,
        known: Known | None,
    ) -> None:  # fmt: skip
        self.network, self.noise, self.known, self.guidance = network, noise, known, guidance
        b, tokens = given.showers, network.patches.tokens
        self.conditions = [given]
        self.hits: Tensor | None = None
        self.last: tuple[Tensor, Tensor | None] = noise.voxels, None  # believed in the last call
        if guidance != 1:
            untold = torch.full_like(given.features, torch.nan)
            self.conditions.append(given._replace(features=untold))
        self.seen = noise.voxels.new_zeros(b, tokens)
        if known is not None:
            self.seen = known.tokens.to(self.seen.dtype).expand(b, tokens)
        self.cells = network.patches.fill(self.seen) > 0

    def energies(self, x: Tensor, t: Tensor) -> Tensor:
        """Guess of the energies (B, K) from x (B, K) at level t ()."""
        now, noisy = t.expand(len(x)), Scaled(self._voxels(self.noise.voxels), x)
        guesses = []
        for given in self.conditions:
            hidden, _ = self.network.trunk(noisy, self.seen, now, given)
            guesses.append(self.network.guess_energies(hidden, x, now))
        guess = self._guided(guesses)
        if self.known is None:
            return guess
        return torch.where(self.known.energies, self.known.scaled.energies, guess)

    def voxels(self, x: Tensor, t: Tensor, energies: Tensor, told: float) -> Tensor:
        """Guess of the voxels (B, R, PHI, Z) from x likewise at level t (); `energies` (B, K)."""
        level, x = torch.where(self.seen > 0, 1.0, t), self._voxels(x)
        guesses = []
        for given in self.conditions:
            hidden, c = self.network.trunk(
                Scaled(x, energies), level, t.new_full((len(x),), told), given
            )
            filled, odds = self.network.believe(hidden, c, x, level)
            if odds is not None and self.hits is not None:
                odds = expecting(odds, self.hits)
            guesses.append(self.network.expected(filled, odds).clamp(-CLIP, CLIP))
            if given is self.conditions[0]:
                self.last = filled, odds
        return self._voxels(self._guided(guesses))

    def _voxels(self, x: Tensor) -> Tensor:
        return x if self.known is None else torch.where(self.cells, self.known.scaled.voxels, x)

    def _guided(self, guesses: list[Tensor]) -> Tensor:
        if len(guesses) == 1:
            return guesses[0]
        return torch.lerp(guesses[1], guesses[0], self.guidance)
