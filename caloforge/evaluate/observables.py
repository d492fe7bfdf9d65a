"""What a physicist looks at in a shower: energies, profiles, moments, hits, cell energies.

All of it is computed from showers after the evaluation cut: a voxel below 0.5 keV of raw visible
energy counts as empty (15.15 keV in the CaloChallenge, arXiv:2410.21611, whose energies are divided
by the sampling fraction 0.033). A source is read in blocks and worked on in its sparse layout, so
memory does not grow with the mesh. What is kept per shower is small: the sums over layers, rings
and sectors, from which profiles, moments and their errors follow.

Moments are energy-weighted over cell centres: first moment <x>, second moment the root of
<(x - <x>)^2>. Containment is interpolated within a cell: inside the radius or depth lies that share
of the visible energy. The maximum is the top of a parabola through the brightest slice and its
neighbours, slices smoothed by (1, 2, 1)/4 first. The azimuth lives in the mesh frame: phi' = 0 is
the direction of growing theta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError

if TYPE_CHECKING:
    from caloforge.detector.mesh import Mesh
    from caloforge.showers.native import ShowerSource
    from caloforge.showers.showers import Showers

__all__ = ["CUT_MEV", "QUANTITIES", "SPECTRUM_EDGES", "Observables", "Quantity", "measure"]

Array = NDArray[Any]

CUT_MEV = 5e-4
# Twelve decades from 1 eV to 1 TeV, ten bins each: cells of any calorimeter fit in.
SPECTRUM_EDGES: NDArray[np.float64] = np.logspace(-6, 6, 121)
_BLOCK_CELLS = 4_000_000  # cells of the mesh times showers in a block


@dataclass(frozen=True, eq=False)
class Observables:
    """What was measured of N showers on one mesh, after the cut of `cut_mev` (MeV).

    energy, theta, phi (N,): primary's kinetic energy in MeV and direction in rad; pdg (N,);
    layer_energy (N, Z), ring_energy (N, R), sector_energy (N, PHI): visible energy in MeV;
    layer_hits (N, Z): cells above the cut; spectrum (N, 120): cells in bins of deposit
    `SPECTRUM_EDGES` (MeV); sector_link (N,): dimensionless, see `neighbour_link`;
    shower_map, shower_map_squares (R, Z): sum over showers of the energy of a ring of a layer over
    the incident energy, and of its square, dimensionless.
    """

    mesh: Mesh
    cut_mev: float
    energy: Array
    theta: Array
    phi: Array
    pdg: Array
    layer_energy: Array
    ring_energy: Array
    sector_energy: Array
    layer_hits: Array
    spectrum: Array
    sector_link: Array
    shower_map: Array
    shower_map_squares: Array

    def __len__(self) -> int:
        """Return the number of showers N."""
        return len(self.energy)

    def select(self, rows: Array) -> Observables:
        """Return chosen showers only (indices or truth values, (M,)), without the shower maps.

        The maps (energy fractions, no unit) are sums over all showers; they are 0 here.
        """
        chosen = {name: getattr(self, name)[rows] for name in _PER_SHOWER}
        nothing = np.zeros_like(self.shower_map)
        return replace(self, **chosen, shower_map=nothing, shower_map_squares=nothing)

    @property
    def visible(self) -> Array:
        """Visible energy (N,) in MeV."""
        return np.asarray(self.layer_energy.sum(axis=1))

    @property
    def response(self) -> Array:
        """Visible over incident energy (N,), dimensionless."""
        return np.asarray(self.visible / self.energy)

    @property
    def hits(self) -> Array:
        """Cells above the cut (N,)."""
        return np.asarray(self.layer_hits.sum(axis=1))

    @property
    def sparsity(self) -> Array:
        """Fraction (N,) of the cells of the mesh that are empty."""
        return np.asarray(1.0 - self.hits / self.mesh.n_cells)

    @property
    def hit_energy(self) -> Array:
        """Mean energy (N,) of the cells above the cut, in MeV; 0 for an empty shower."""
        return _divided(self.visible, self.hits)

    @property
    def z_mean(self) -> Array:
        """Longitudinal first moment (N,) in mm from the entrance; 0 for an empty shower."""
        return _moments(self.layer_energy, self.mesh.centres_z)[0]

    @property
    def z_width(self) -> Array:
        """Longitudinal second moment (N,), a root mean square, in mm; 0 for an empty shower."""
        return _moments(self.layer_energy, self.mesh.centres_z)[1]

    @property
    def r_mean(self) -> Array:
        """Radial first moment (N,) in mm; 0 for an empty shower."""
        return _moments(self.ring_energy, self.mesh.centres_r)[0]

    @property
    def r_width(self) -> Array:
        """Radial second moment (N,), a root mean square, in mm; 0 for an empty shower."""
        return _moments(self.ring_energy, self.mesh.centres_r)[1]

    @property
    def z_max(self) -> Array:
        """Depth (N,) of the shower maximum in mm from the entrance; 0 for an empty shower."""
        return _maximum(self.layer_energy, self.mesh.cell_z_mm)

    def containment_r(self, share: float) -> Array:
        """Radius (N,) in mm that holds a share of the visible energy; 0 for an empty shower."""
        return _containment(self.ring_energy, self.mesh.cell_r_mm, share)

    def containment_z(self, share: float) -> Array:
        """Depth (N,) in mm that holds a share of the visible energy; 0 for an empty shower."""
        return _containment(self.layer_energy, self.mesh.cell_z_mm, share)

    @property
    def phi_cos(self) -> Array:
        """Azimuthal dipole <cos phi'> (N,), dimensionless: where along theta the shower leans."""
        return _moments(self.sector_energy, np.cos(self.mesh.centres_phi))[0]

    @property
    def phi_cos2(self) -> Array:
        """Azimuthal quadrupole <cos 2 phi'> (N,), dimensionless: along theta or across."""
        return _moments(self.sector_energy, np.cos(2 * self.mesh.centres_phi))[0]


_PER_SHOWER = (
    "energy", "theta", "phi", "pdg", "layer_energy", "ring_energy", "sector_energy", "layer_hits",
    "spectrum", "sector_link",
)  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """One number per shower: how it is called, computed, measured and drawn.

    `symbol` is in TeX, `of` gives the values (N,) in `unit` ("" where there is none).
    `log`: binned and drawn in equal steps of log10. `relative`: a difference of means is quoted as
    a ratio (of quantities that grow with the energy), else in the unit.
    """

    name: str
    title: str
    symbol: str
    unit: str
    formula: str
    of: Callable[[Observables], Array]
    log: bool = False
    relative: bool = False


_VISIBLE, _HITS = r"E_\mathrm{vis}", r"N_\mathrm{hits}"
_TABLE = (
    Quantity("visible", "Visible energy", f"${_VISIBLE}$", "MeV",
             "sum of the cell energies above the cut",
             lambda o: o.visible, log=True, relative=True),
    Quantity("response", "Response", rf"${_VISIBLE}/E_\mathrm{{inc}}$", "",
             "visible over incident energy", lambda o: o.response, relative=True),
    Quantity("z_mean", "Longitudinal first moment", r"$\langle z\rangle$", "mm",
             "sum(E z)/sum(E)", lambda o: o.z_mean),
    Quantity("z_width", "Longitudinal second moment", r"$\sigma_z$", "mm",
             "root of sum(E (z - <z>)^2)/sum(E)", lambda o: o.z_width),
    Quantity("z_max", "Depth of the shower maximum", r"$z_\mathrm{max}$", "mm",
             "top of a parabola through the brightest slice", lambda o: o.z_max),
    Quantity("z_90", "Depth of 90 % containment", "$z_{90}$", "mm",
             "depth that holds 90 % of the visible energy", lambda o: o.containment_z(0.9)),
    Quantity("r_mean", "Radial first moment", r"$\langle r\rangle$", "mm",
             "sum(E r)/sum(E)", lambda o: o.r_mean),
    Quantity("r_width", "Radial second moment", r"$\sigma_r$", "mm",
             "root of sum(E (r - <r>)^2)/sum(E)", lambda o: o.r_width),
    Quantity("r_50", "Radius of 50 % containment", "$r_{50}$", "mm",
             "radius that holds 50 % of the visible energy", lambda o: o.containment_r(0.5)),
    Quantity("r_90", "Radius of 90 % containment", "$r_{90}$", "mm",
             "radius that holds 90 % of the visible energy", lambda o: o.containment_r(0.9)),
    Quantity("phi_cos", "Azimuthal dipole", r"$\langle\cos\varphi\rangle$", "",
             "sum(E cos phi)/sum(E)", lambda o: o.phi_cos),
    Quantity("phi_cos2", "Azimuthal quadrupole", r"$\langle\cos 2\varphi\rangle$", "",
             "sum(E cos 2 phi)/sum(E)", lambda o: o.phi_cos2),
    Quantity("phi_link", "Azimuthal smoothness", r"$c_\varphi$", "",
             "sum(E_k E_(k+1))/sum(E_k^2) over the sectors k of every layer",
             lambda o: o.sector_link),
    Quantity("hits", "Hits per shower", f"${_HITS}$", "", "number of cells above the cut",
             lambda o: o.hits.astype(float), log=True, relative=True),
    Quantity("hit_energy", "Mean energy of a hit", f"${_VISIBLE}/{_HITS}$", "MeV",
             "visible energy over number of hits", lambda o: o.hit_energy, relative=True),
)  # fmt: skip

QUANTITIES: Mapping[str, Quantity] = {quantity.name: quantity for quantity in _TABLE}


def measure(
    source: ShowerSource,
    cut_mev: float = CUT_MEV,
    block: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Observables:
    """Measure every shower of a source, read in blocks of `block` showers (by default by memory).

    Deposits below `cut_mev` (MeV) count as empty. `advance(n)` is called after every n showers.
    Raises `RequestError` for a cut that is negative or not finite, a block below 1, or no showers.
    """
    if not (np.isfinite(cut_mev) and cut_mev >= 0):
        raise RequestError(f"evaluation cut of {cut_mev} MeV: give 0 or a positive energy")
    if block is None:
        block = int(np.clip(_BLOCK_CELLS // source.mesh.n_cells, 16, 1024))
    if block < 1 or len(source) == 0:
        raise RequestError("nothing to measure: a block and a source need at least one shower")
    parts = []
    for start in range(0, len(source), block):
        showers = source.read(start, min(start + block, len(source)))
        parts.append(_measure_block(showers, cut_mev))
        if advance is not None:
            advance(len(showers))
    return _joined(parts)


def _measure_block(showers: Showers, cut_mev: float) -> Observables:
    # A stored zero is no hit, even without a cut.
    kept = showers.above(max(cut_mev, float(np.finfo(np.float32).tiny)))
    mesh, n = kept.mesh, len(kept)
    shower, deposit = kept.rows, kept.deposit.astype(float)
    ring, sector, layer = np.unravel_index(kept.cell.astype(np.int64), mesh.shape)
    decade = np.log10(deposit) - np.log10(SPECTRUM_EDGES[0])
    bins = len(SPECTRUM_EDGES) - 1
    colour = np.clip(np.floor(decade * 10).astype(np.int64), 0, bins - 1)
    fraction = deposit / kept.energy.astype(float)[shower]
    place = ring * mesh.n_z + layer
    rings = _sums(shower, place, n, mesh.n_r * mesh.n_z, fraction).reshape(n, mesh.n_r, mesh.n_z)
    return Observables(
        mesh, cut_mev, kept.energy.astype(float), kept.theta, kept.phi, kept.pdg,
        layer_energy=_sums(shower, layer, n, mesh.n_z, deposit),
        ring_energy=_sums(shower, ring, n, mesh.n_r, deposit),
        sector_energy=_sums(shower, sector, n, mesh.n_phi, deposit),
        layer_hits=_sums(shower, layer, n, mesh.n_z).astype(np.int32),
        spectrum=_sums(shower, colour, n, bins).astype(np.int32),
        sector_link=neighbour_link(
            _sums(shower, layer * mesh.n_phi + sector, n, mesh.n_z * mesh.n_phi, deposit)
            .reshape(n, mesh.n_z, mesh.n_phi)
        ),
        shower_map=rings.sum(axis=0), shower_map_squares=(rings**2).sum(axis=0),
    )  # fmt: skip


def _sums(row: Array, column: Array, rows: int, columns: int, weight: Array | None = None) -> Array:
    """Add weights (K,), or count, by row and column: (rows, columns)."""
    flat = np.bincount(row * columns + column, weight, rows * columns)
    return flat.reshape(rows, columns)


def neighbour_link(sectors: Array) -> Array:
    """Likeness (N,) of neighbouring sectors, from energies (N, Z, PHI) in MeV; dimensionless.

    The sum of E_k E_(k+1) over the sum of E_k^2, k running round the circle in every layer: near 1
    for a smooth azimuth, near the mean squared over the mean square for sectors in random order.
    It does not change when the whole shower turns. 0 for an empty shower.
    """
    product = (sectors * np.roll(sectors, -1, axis=-1)).sum(axis=(1, 2))
    return _divided(product, (sectors**2).sum(axis=(1, 2)))


def _moments(energy: Array, position: Array) -> tuple[Array, Array]:
    """Energy-weighted mean and root mean square (N,) of positions (M,), weights (N, M)."""
    share = _divided(energy, energy.sum(axis=1, keepdims=True))
    centre = share @ position
    spread = (share * (position - centre[:, None]) ** 2).sum(axis=1)
    return centre, np.sqrt(spread)


def _containment(energy: Array, width: float, share: float) -> Array:
    """Distance (N,) from the first edge within which a share of the energies (N, M) lies."""
    inside = np.cumsum(_divided(energy, energy.sum(axis=1, keepdims=True)), axis=1)
    cell = np.argmax(inside >= share - 1e-9, axis=1)
    row = np.arange(len(energy))
    before = np.where(cell > 0, inside[row, cell - 1], 0.0)
    within = _divided(share - before, inside[row, cell] - before)
    return np.where(inside[:, -1] > 0, (cell + np.clip(within, 0, 1)) * width, 0.0)


def _maximum(energy: Array, width: float) -> Array:
    """Place (N,) of the largest of smoothed energies (N, M), from a parabola, in units of width."""
    padded = np.pad(energy, ((0, 0), (2, 2)))
    smooth = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4  # one more at either end
    row, top = np.arange(len(energy)), np.argmax(smooth[:, 1:-1], axis=1) + 1
    left, middle, right = (smooth[row, top + k] for k in (-1, 0, 1))
    shift = _divided(left - right, 2 * (left - 2 * middle + right))
    return np.where(middle > 0, (top - 0.5 + np.clip(shift, -0.5, 0.5)) * width, 0.0)


def _divided(numerator: Array, denominator: Array) -> Array:
    """Quotient, 0 where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.zeros(shape), where=denominator != 0)


def _joined(parts: list[Observables]) -> Observables:
    fields = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _PER_SHOWER}
    for name in ("shower_map", "shower_map_squares"):
        fields[name] = np.sum([getattr(p, name) for p in parts], axis=0)
    return Observables(parts[0].mesh, parts[0].cut_mev, **fields)
