"""From noise to showers: solvers of the probability flow, an ancestral chain, and inpainting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caloforge.learn.condition import Conditions
from caloforge.learn.models.belief import MOST, Belief, moved
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.models.process import PROCESSES
from caloforge.learn.preprocess import Drawn, Scaled, quantities

__all__ = [
    "SAMPLERS", "Known", "ancestral", "beliefs", "draw_energies", "euler", "expecting", "heun",
    "multistep", "numbers", "sample",
]  # fmt: skip

# Beliefs are trained at fewer levels near the data.
ENERGY_STEPS = MappingProxyType({"flow": 8, "edm": 8, "ddpm": 8, "beliefs": 16})

Guess = Callable[[Tensor, Tensor], Tensor]
Believe = Callable[[Tensor | None, float], Belief]
Fresh = Callable[[Tensor], Tensor]
FEW = 0.01  # Of a hit.
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


def beliefs(
    believe: Believe,
    levels: Sequence[float],
    fresh: Callable[[], Tensor],
    empty: Tensor | None = None,
    hits: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """From noise, at the first of K + 1 levels, which is 0, to the last, by K draws from beliefs.

    `believe` gives the belief of the clean values from x (B, ...), None at first, and its level;
    `empty` () is the value of those that are not filled; without it all are, by one Gaussian each.
    Returns the values and whether they are filled, both (B, ...). A draw takes one normal number
    a value from `fresh`, and with `empty` one more, before it. Of voxels as many are filled as
    `hits` (B, Z) says, where it is given.
    """
    x: Tensor | None = None
    filled: Tensor | None = None
    for t, s in itertools.pairwise(levels):
        belief = believe(x, t)
        mean, spread = belief.mean[:, 0], belief.log_spread[:, 0].exp()
        if empty is not None:
            filled, mean, spread = belief.chosen(torch.special.ndtr(fresh()), hits)
            mean, spread = torch.where(filled, mean, empty), torch.where(filled, spread, 0.0)
        x = moved(x, mean, spread, fresh(), t, s)
    assert x is not None
    return x, filled


SAMPLERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "euler": euler, "heun": heun, "multistep": multistep, "ancestral": ancestral,
        "beliefs": beliefs,
    }
)  # fmt: skip


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
    for a smooth guess; a network made for a few draws of ``beliefs`` draws them as often as the
    voxels. The guess of a voxel turns sharply
    from empty to filled and is not continued.
    `fresh` gives the noise that a chain adds on the way; `guidance` other than 1
    exaggerates what the conditions do (arXiv:2207.12598); `known` parts are kept (inpainting).
    `hits` gives the number of hits of each layer (B, Z) from the energies (B, K); the odds are then
    shifted, layer by layer and at every step, so that as many are expected. A solver leaves open
    whether a voxel is empty: the last belief is returned.
    """
    see = _Sight(network, noise, given, guidance, known)
    if sampler == "beliefs":
        return _by_beliefs(network, see, steps, fresh, hits)
    levels = PROCESSES[network.config.process].levels(steps).to(noise.voxels.device)
    if not network.config.plain:
        see.tell(_first_stage(network, see, noise.energies), hits)
    more = {"fresh": fresh} if sampler == "ancestral" else {}
    voxels = SAMPLERS[sampler](see.guess, noise.voxels, levels, **more)
    if network.config.head == "noise":
        return Scaled(voxels, see.told)
    return Drawn(see.last.value(), see.told, see.last.odds)


def _by_beliefs(
    network: DiffusionTransformer, see: _Sight, steps: int, fresh: Fresh,
    hits: Callable[[Tensor], Tensor] | None,
) -> Drawn:  # fmt: skip
    """Draw the energies, of a network made for few steps in as many draws, and then the voxels."""
    like = see.noise
    if network.config.process != "beliefs":  # trained to look at noise where it begins
        like = see.noise = like._replace(voxels=fresh(like.voxels))
    if _drawn_too(network):
        z, _ = beliefs(see.drawn_energies, even(steps), lambda: fresh(like.energies))
        see.tell(z @ network.colour, hits)
    elif not network.config.plain:
        see.tell(_first_stage(network, see, fresh(like.energies)), hits)
    wanted, see.hits = see.hits, None  # met by the draw itself
    voxels, filled = beliefs(
        see.drawn_voxels, even(steps), lambda: fresh(like.voxels), network.empty, wanted
    )
    assert filled is not None
    return Drawn(see.kept(voxels), see.told, torch.where(filled, MOST, -MOST))


def draw_energies(
    network: DiffusionTransformer, noise: Scaled, given: Conditions, fresh: Fresh
) -> Tensor:
    """Draw the energies (B, K) of showers from noise (B, ...); `fresh` as in `sample`."""
    see = _Sight(network, noise, given, 1.0, None)
    if not _drawn_too(network):
        return _first_stage(network, see, noise.energies)
    z, _ = beliefs(see.drawn_energies, even(network.config.calls), lambda: fresh(noise.energies))
    return z @ network.colour


def _drawn_too(network: DiffusionTransformer) -> bool:
    """Whether energies are drawn from beliefs as voxels are: of a network made for few steps.

    That takes them for independent along directions that are fitted to all detectors together. In
    a single one they are not, and a draw in the middle of the way is then not what the network was
    trained on: a model of many detectors has fluctuations too small by a quarter.
    """
    config = network.config
    return config.process == "beliefs" and bool(config.calls) and not config.plain


def _first_stage(network: DiffusionTransformer, see: _Sight, noise: Tensor) -> Tensor:
    steps = ENERGY_STEPS[network.config.process]
    levels = torch.linspace(0, 1, steps + 1, device=noise.device)
    z: Tensor = multistep(lambda x, t: see.energies(x, t).value(), noise, levels)
    return z @ network.colour


def even(steps: int) -> list[float]:
    """Levels of as many steps, evenly from noise to data."""
    return [k / steps for k in range(steps + 1)]


def numbers(network: DiffusionTransformer, steps: int) -> int:
    """How many normal numbers a shower takes in `steps` draws from beliefs."""
    energies = 0 if network.config.plain else quantities(network.sketch, network.config.counted)
    voxels = math.prod(network.config.shape)
    hidden = 0 if network.config.process == "beliefs" else voxels  # seen as noise, to begin with
    if _drawn_too(network):
        energies *= steps
    return energies + hidden + 2 * steps * voxels


def expecting(odds: Tensor, hits: Tensor, rounds: int = 3) -> Tensor:
    """Shift logarithms of odds (B, R, PHI, Z) layer by layer so that `hits` (B, Z) are expected.

    Of all beliefs with that expectation the shifted ones are the closest to those given, in
    relative entropy. Newton's method, damped, from what is right where hits are rare; a shift is at
    most `MOST`.
    """
    wanted = hits[:, None, None]
    expected = torch.sigmoid(odds).sum(dim=(1, 2), keepdim=True)
    shift = ((wanted + FEW) / (expected + FEW)).log().clamp(-MOST, MOST)
    for _ in range(rounds):
        p = torch.sigmoid(odds + shift)
        miss = p.sum(dim=(1, 2), keepdim=True) - wanted
        slope = (p * (1 - p)).sum(dim=(1, 2), keepdim=True) + 0.05
        shift = (shift - (miss / slope).clamp(-1.5, 1.5)).clamp(-MOST, MOST)
    return odds + shift


class _Sight:
    """The network as a sampler asks it: beliefs of one part, at one level.

    Energies are in the directions in which they fluctuate independently (times `whiten`), until
    they are told to the voxels.
    """

    def __init__(
        self, network: DiffusionTransformer, noise: Scaled, given: Conditions, guidance: float,
        known: Known | None,
    ) -> None:  # fmt: skip
        self.network, self.noise, self.known, self.guidance = network, noise, known, guidance
        b, tokens = given.energy.shape[0], network.patches.tokens
        self.conditions = [given]
        if guidance != 1:
            untold = torch.full_like(given.features, torch.nan)
            self.conditions.append(given._replace(features=untold))
        self.seen, self.cells = noise.voxels.new_zeros(b, 1), torch.zeros(())
        if known is not None:
            self.seen = known.tokens.to(self.seen.dtype).expand(b, tokens)
            self.cells = network.patches.fill(self.seen) > 0
        self.told, self.level_told = noise.energies, noise.voxels.new_zeros(b)
        self.hits: Tensor | None = None
        self.last: Belief

    def tell(self, energies: Tensor, hits: Callable[[Tensor], Tensor] | None) -> None:
        """Give the voxels their energies (B, K), and the number of hits that follows from them."""
        self.told = self._kept_energies(energies)
        self.level_told = torch.ones_like(self.level_told)
        self.hits = None if hits is None else hits(self.told)

    def energies(self, x: Tensor, t: Tensor) -> Belief:
        """Belief of the energies (B, K) from x (B, K) at level t ()."""
        blank = self.known is None
        network, now = self.network, t.expand(x.shape[0])
        noisy = Scaled(self.kept(self.noise.voxels), x @ network.colour)
        found = []
        for given in self.conditions:
            hidden, _ = network.trunk(noisy, self.seen, now, given, blank)
            found.append(network.believe_energies(hidden, x, now))
        belief = self._guided(found)
        if self.known is None:
            return belief
        mean = self._kept_energies(belief.mean[:, 0] @ network.colour) @ network.whiten
        return belief._replace(mean=mean[:, None])

    def drawn_energies(self, x: Tensor | None, t: float) -> Belief:
        """`energies` for a chain that begins with None at level 0."""
        x = torch.zeros_like(self.noise.energies) if x is None else x
        return self.energies(x, torch.full_like(x[0, 0], t))

    def drawn_voxels(self, x: Tensor | None, t: float) -> Belief:
        """`voxels` for a chain that begins with None at level 0."""
        trained_so = self.network.config.process == "beliefs"
        blank = x is None and self.known is None and trained_so
        if x is None:
            x = torch.zeros_like(self.noise.voxels) if trained_so else self.noise.voxels
        return self.voxels(x, torch.full_like(x[0, 0, 0, 0], t), blank)

    def voxels(self, x: Tensor, t: Tensor, blank: bool = False) -> Belief:
        """Belief of the voxels (B, R, PHI, Z) from x likewise at level t (); `blank`: all at 0."""
        level, x = torch.where(self.seen > 0, 1.0, t), self.kept(x)
        found = []
        for given in self.conditions:
            noisy = Scaled(x, self.told)
            hidden, c = self.network.trunk(noisy, level, self.level_told, given, blank)
            found.append(self.network.believe_voxels(hidden, c, x, level, blank))
        self.last = self._guided(found)
        if self.hits is not None:
            self.last = self.last._replace(odds=expecting(self.last.odds, self.hits))
        return self.last

    def guess(self, x: Tensor, t: Tensor) -> Tensor:
        """Mean of the voxels (B, R, PHI, Z) from x likewise at level t ()."""
        return self.kept(self.network.expected(self.voxels(x, t)).clamp(-CLIP, CLIP))

    def kept(self, x: Tensor) -> Tensor:
        """Voxels x (B, R, PHI, Z) with those that are given in their places."""
        return x if self.known is None else torch.where(self.cells, self.known.scaled.voxels, x)

    def _kept_energies(self, energies: Tensor) -> Tensor:
        if self.known is None:
            return energies
        return torch.where(self.known.energies, self.known.scaled.energies, energies)

    def _guided(self, beliefs: list[Belief]) -> Belief:
        """Log-linear, which is exact for odds, shares and Gaussians of one spread."""
        if len(beliefs) == 1:
            return beliefs[0]
        told, untold = beliefs
        parts = [torch.lerp(b, a, self.guidance) for a, b in zip(told, untold, strict=True)]
        odds = torch.where(told.odds.isinf(), told.odds, parts[0])
        return Belief(odds, parts[1].log_softmax(dim=1), parts[2], told.log_spread)
