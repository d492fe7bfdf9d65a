r"""From voxels in MeV to numbers that a network likes, and back: fitted, invertible, saved.

A shower is taken apart into pieces, put back by construction so that energy closes:

- the total: :math:`u = \ln((E_{vis} + c)/E_{inc})`;
- the layers: :math:`u_z = \ln((e_z + c)/E_{inc})`, of which only the shares are used on the way
  back, the layers adding up to the total;
- a sketch: the logarithm of one plus the hits of each layer, and the energies of coarse cells, some
  rings by some sectors by some layers, likewise but with a c that makes the logarithm linear for
  cells of less than a hundredth of the shower. It only guides the voxels: what
  many of them share, such as a shower that leans to one side, is a few numbers here and would be a
  faint trend over thousands of voxels there;
- the voxels: :math:`\ln(E/E_{cut})`, of which only the shares within a layer are used, the voxels
  adding up to their layer. An empty voxel sits at `EMPTY`, below every filled one.

c is a tenth of what a minimum-ionising particle leaves in one active layer. Total, layers and
sketch are then whitened with a mean and a spread that depend on the conditions, given by a small
network fitted by maximum likelihood (heteroscedastic regression, Nix and Weigend 1994,
doi:10.1109/ICNN.1994.374138): the mean response is regressed, not left to the generative model.
For a detector that a model was adapted to, a correction of both is added, smooth in energy and
angle (`caloforge.learn.calibration`); its rings may have gains (`caloforge.learn.rings`), and the
logarithms of its cells be moved (`caloforge.learn.cells`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.noise import normal, uniform
from caloforge.learn.residual import Residual
from caloforge.learn.tokens import Patches

__all__ = [
    "APART", "CUT_MEV", "KNOTS", "ConditionalScale", "Drawn", "NoSketch", "Scaled", "ShowerScale",
    "closed", "quantities",
]  # fmt: skip

CUT_MEV = 5e-4
EMPTY = -2.0
BLUR = 0.5  # Of the logarithm of an empty layer's energy.
LARGEST = 4.0  # Spreads of the sketch.
_SAMPLING = FEATURE_NAMES.index("log_sampling_fraction")
_LOSS = FEATURE_NAMES.index("log_active_loss_mev")
_ENERGY, _COSINE = FEATURE_NAMES.index("log_energy"), FEATURE_NAMES.index("cos_theta")
TERMS = 4  # Of the correction for single detectors.
KNOTS, APART = 257, 0.0625  # Of what is added to the logarithm of a cell's energy, from the cut up.


class Scaled(NamedTuple):
    """A batch as the model sees it: voxels (B, R, PHI, Z) and energies (B, K), no unit.

    `energies` holds the total first, then the layers from the entrance on, then the sketch: hits of
    the layers and coarse cells in (r, phi, z) order; K = 1 + 2 Z + S. Where hits are counted, the
    number of all of them stands last, and K is one more.
    """

    voxels: Tensor
    energies: Tensor


class Drawn(NamedTuple):
    """A batch as it is drawn: voxels (B, R, PHI, Z) if they are filled and energies (B, K) as in
    `Scaled`, and whether they are filled: logarithms of odds (B, R, PHI, Z).
    """

    voxels: Tensor
    energies: Tensor
    odds: Tensor


class NoSketch(NamedTuple):
    """Stands for a sketch where none is wanted: no coarse cells on a mesh of `shape` cells."""

    shape: tuple[int, int, int]
    grid: tuple[int, int, int] = (0, 0, 0)
    tokens: int = 0

    def cut(self, voxels: Tensor) -> Tensor:
        """Coarse cells (B, 0, 1) of voxels (B, R, PHI, Z)."""
        return voxels.new_zeros(len(voxels), 0, 1)


def quantities(sketch: Patches | NoSketch, counted: bool = False) -> int:
    """Length K of `Scaled.energies` for a mesh that the sketch cuts into S cells."""
    return 1 + 2 * sketch.shape[2] + sketch.tokens + counted


def closed(mev: Tensor, total: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Bring the sum of voxels (B, R, PHI, Z) over `dim` to `total`, likewise with those kept at 1.

    What is missing goes to each voxel in proportion to its energy squared: that is where it most
    likely is, if a voxel's spread is some share of its energy, and the edge of minimum-ionising
    voxels stays sharp. None loses more than half by that, and a factor does the rest.
    """
    short = total - mev.sum(dim, keepdim=True)
    squares = mev.square().sum(dim, keepdim=True).clamp(min=CUT_MEV**2)
    moved = mev * (1 + short / squares * mev).clamp(min=0.5)
    return moved * (total / moved.sum(dim, keepdim=True).clamp(min=1e-12))


class ConditionalScale(nn.Module):
    """Whitens K quantities with a mean and a spread that depend on F features."""

    offset: Tensor
    unit: Tensor

    def __init__(self, features: int, quantities: int, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(features))
        self.register_buffer("unit", torch.ones(features))
        self.net = nn.Sequential(
            nn.Linear(features, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2 * quantities),
        )  # fmt: skip
        self.residual = Residual(TERMS * 2 * quantities)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, K) and logarithm of the spread (B, K) at features (B, F)."""
        mean, log_spread = self.net((features - self.offset) / self.unit).chunk(2, dim=-1)
        log_spread = log_spread.clamp(-6.0, 3.0)
        if not len(self.residual):
            return mean, log_spread
        each = self.residual.values.reshape(len(self.residual), TERMS, -1)  # (M, P, 2 K)
        near = self.residual.near(features)[:, :, None] * self.smooth(features)  # (B, M, P)
        moved, stretched = torch.einsum("bmp,mpk->bk", near, each).chunk(2, dim=-1)
        return mean + moved * log_spread.exp(), (log_spread + stretched).clamp(-7.0, 4.0)

    def smooth(self, features: Tensor) -> Tensor:
        """Terms (B, M, P) of the corrections: 1, logarithm of the energy, its square, cos^2 theta.

        Beyond the energies that it was found with, a correction stays what it is at their end.
        """
        low, high = self.residual.reach.unbind(1)  # (M,)
        energy = torch.minimum(torch.maximum(features[:, _ENERGY, None], low), high)  # (B, M)
        x = (energy - self.offset[_ENERGY]) / self.unit[_ENERGY]
        angle = features[:, _COSINE, None].square().expand_as(x)
        return torch.stack([torch.ones_like(x), x, x.square() - 1, angle], dim=2)

    def forward(self, values: Tensor, features: Tensor) -> Tensor:
        """Whiten values (B, K)."""
        mean, log_spread = self.moments(features)
        return (values - mean) * torch.exp(-log_spread)

    def inverse(self, white: Tensor, features: Tensor) -> Tensor:
        """Undo `forward`: values (B, K) from white (B, K)."""
        mean, log_spread = self.moments(features)
        return mean + white * torch.exp(log_spread)

    def fit(self, values: Tensor, features: Tensor, steps: int = 2000, seed: int = 0) -> float:
        """Fit to values (N, K) at features (N, F); returns the final negative log likelihood."""
        spread = features.std(0)
        self.offset.copy_(features.mean(0))
        self.unit.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(torch.cat([values.mean(0), values.std(0).clamp(min=1e-3).log()]))
        draw = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        loss = torch.zeros(())
        for _ in range(steps):
            rows = torch.randint(len(values), (min(512, len(values)),), generator=draw)
            mean, log_spread = self.moments(features[rows])
            pull = (values[rows] - mean) * torch.exp(-log_spread)
            loss = (0.5 * pull.square() + log_spread).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        return float(loss.detach())


class ShowerScale(nn.Module):
    """The whole preprocessing of showers; see the module.

    `sketch` cuts the mesh into its cells; `counted`: the number of all hits is a quantity of its
    own, to which those of the layers add up.
    """

    voxel_mean: Tensor
    voxel_spread: Tensor

    def __init__(self, sketch: Patches | NoSketch, counted: bool = False) -> None:
        super().__init__()
        self.sketch, self.counted = sketch, counted
        self.energies = ConditionalScale(len(FEATURE_NAMES), quantities(sketch, counted))
        # What is added to logarithms of energies, of rings and then of cells: see there.
        self.rings, self.cells = Residual(sketch.shape[0]), Residual(KNOTS)
        self.register_buffer("voxel_mean", torch.zeros(()))
        self.register_buffer("voxel_spread", torch.ones(()))
        self.requires_grad_(False)

    def fit(
        self, voxels: Tensor, conditions: Conditions, steps: int = 2000, seed: int = 0
    ) -> float:
        """Fit to voxels (N, R, PHI, Z) in MeV; returns the likelihood loss of the energies."""
        levels = _levels(voxels)
        self.voxel_mean.copy_(levels.mean())
        self.voxel_spread.copy_(levels.std().clamp(min=1e-3))
        self.requires_grad_(True)
        draw = torch.Generator().manual_seed(seed)
        raw = self.raw_energies(voxels, conditions, draw)
        loss = self.energies.fit(raw, conditions.features, steps, seed)
        self.requires_grad_(False)
        return loss

    def forward(
        self, voxels: Tensor, conditions: Conditions, draw: torch.Generator | None = None
    ) -> Scaled:
        """Scale voxels (B, R, PHI, Z) in MeV; those below the evaluation cut count as empty.

        For `draw` see `raw_energies`.
        """
        white = self.energies(self.raw_energies(voxels, conditions, draw), conditions.features)
        # A deposit where none was expected is dozens of spreads away; the sketch only guides.
        exact = 1 + 2 * self.sketch.shape[2]
        coarse = white[:, exact : exact + self.sketch.tokens].clamp(-LARGEST, LARGEST)
        white = torch.cat([white[:, :exact], coarse, white[:, exact + coarse.shape[1] :]], dim=1)
        return Scaled((_levels(voxels) - self.voxel_mean) / self.voxel_spread, white)

    def inverse(self, drawn: Scaled | Drawn, conditions: Conditions, plain: bool = False) -> Tensor:
        """Voxels (B, R, PHI, Z) in MeV; they add up to the layers and these to the total.

        A layer in which no voxel is filled has no energy, whatever was drawn for it. `plain`: the
        voxels stand for themselves, and the energies count for nothing.
        """
        levels = drawn.voxels * self.voxel_spread + self.voxel_mean
        odds = drawn.odds if isinstance(drawn, Drawn) else levels - EMPTY / 2
        filled = odds > 0
        if isinstance(drawn, Drawn):
            levels = levels.abs()  # what was drawn below the cut is mirrored there
        mev = levels.clamp(0.0, 18.0).exp() * CUT_MEV
        if plain:
            return torch.where(filled, mev, 0.0)
        # A shower leaves something somewhere.
        best = odds == odds.amax(dim=(1, 2, 3), keepdim=True)
        filled = filled | (best & ~filled.flatten(1).any(dim=1)[:, None, None, None])
        layers = self.layer_energies(drawn.energies, conditions, filled.any(dim=2).any(dim=1))
        return self.corrected(torch.where(filled, mev, 0.0), layers, conditions)

    def corrected(self, mev: Tensor, layers: Tensor, conditions: Conditions) -> Tensor:
        """Voxels (B, R, PHI, Z) in MeV as rings and cells of the detector are, by what was found
        for it, and such that they add up to `layers` (B, Z).
        """
        if len(self.rings):
            mev = mev * self.rings(conditions.features).exp()[:, :, None, None]
        if len(self.cells):
            moves = _between(self.cells(conditions.features), _levels(mev))
            mev = torch.where(mev > 0, (mev * moves.exp()).clamp(min=CUT_MEV), 0.0)
        return closed(mev, layers[:, None, None, :], dim=(1, 2))

    def hits(self, white: Tensor, conditions: Conditions) -> Tensor:
        """Number of hits (B, Z) of each layer from whitened energies (B, K)."""
        z = self.sketch.shape[2]
        raw = self.energies.inverse(white, conditions.features).clamp(max=20.0)
        hits = raw[:, 1 + z : 1 + 2 * z].expm1().clamp(min=0.0).round()
        if self.counted:
            hits = hits * (raw[:, -1:].expm1() / hits.sum(dim=1, keepdim=True).clamp(min=1.0))
        return hits.round()

    def layer_energies(
        self, white: Tensor, conditions: Conditions, filled: Tensor | None = None
    ) -> Tensor:
        """Energy (B, Z) in MeV of each layer from whitened energies (B, K); all of it in the layers
        of `filled` (B, Z).
        """
        raw = self.energies.inverse(white, conditions.features).clamp(-30.0, 1.0)
        raw = raw[:, : 1 + self.sketch.shape[2]]
        offset = _offset(conditions)[:, None]
        mev = (raw.exp() * conditions.energy[:, None] - offset).clamp(min=0.0)
        total, layers = mev[:, :1], mev[:, 1:]
        if filled is not None:
            layers = torch.where(filled, layers.clamp(min=CUT_MEV), 0.0)
        return layers * (total / layers.sum(dim=1, keepdim=True).clamp(min=1e-12))

    def _spread_out(self, raw: Tensor, draw: torch.Generator) -> Tensor:
        z = self.sketch.shape[2]
        ends = (1, 1 + z, 1 + 2 * z, 1 + 2 * z + self.sketch.tokens)
        total, layers, hits, coarse, count = raw.tensor_split(ends, dim=1)
        apart = BLUR * normal(draw, layers.shape, hits.device)
        layers = torch.where(hits == 0, layers + apart, layers)
        hits, count = (
            (n.exp() + uniform(draw, n.shape, n.device) - 0.5).log() for n in (hits, count)
        )
        return torch.cat([total, layers, hits, coarse, count], dim=1)

    def raw_energies(
        self, voxels: Tensor, conditions: Conditions, draw: torch.Generator | None = None
    ) -> Tensor:
        """Total, layers and sketch (B, K) of voxels (B, R, PHI, Z) in MeV, before whitening.

        Where hits are counted, what stands at single values is spread out with `draw`, for a law
        with a density: a number of hits within half of one, and the energy of an empty layer, which
        counts for nothing.
        """
        layers, offset = voxels.sum(dim=(1, 2)), _offset(conditions)[:, None]
        coarse = self.sketch.cut(voxels).sum(dim=-1) + 10 * offset + _percent(conditions)[:, None]
        exact = torch.cat([layers.sum(dim=1, keepdim=True), layers], dim=1) + offset
        hits = (voxels >= CUT_MEV).sum(dim=(1, 2)).to(voxels.dtype)
        count = [hits.sum(dim=1, keepdim=True).log1p()] if self.counted else []
        exact, coarse = ((part / conditions.energy[:, None]).log() for part in (exact, coarse))
        raw = torch.cat([exact, hits.log1p(), coarse, *count], dim=1)
        return raw if draw is None or not self.counted else self._spread_out(raw, draw)


def _levels(voxels: Tensor) -> Tensor:
    """Logarithm of the energy in units of the cut; `EMPTY` for voxels below it."""
    return torch.where(voxels >= CUT_MEV, (voxels / CUT_MEV).clamp(min=1.0).log(), EMPTY)


def _between(values: Tensor, levels: Tensor) -> Tensor:
    """Values (B, `KNOTS`) at their knots, interpolated at levels (B, ...)."""
    at = (levels / APART).clamp(0.0, KNOTS - 1.001)
    left = at.floor()
    low = left.long().flatten(1)
    low, high = (values.gather(1, n).reshape(at.shape) for n in (low, low + 1))
    return low + (at - left) * (high - low)


def _percent(conditions: Conditions) -> Tensor:
    """A hundredth of what a shower leaves in active material, roughly (B,), in MeV."""
    return 0.01 * conditions.energy * conditions.features[:, _SAMPLING].exp()


def _offset(conditions: Conditions) -> Tensor:
    """A tenth of a minimum-ionising particle's loss in an active layer (B,), in MeV."""
    return 0.1 * conditions.features[:, _LOSS].exp()
