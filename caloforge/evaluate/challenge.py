"""The CaloChallenge's high-level features and histograms, number for number.

Definitions: arXiv:2410.21611 and the organisers' evaluation, with which the tests compare. All is
computed from voxels as a challenge file stores them: flat, in MeV divided by the sampling fraction,
in the stored precision, voxels below the cut set to zero. Other files are first put into that form
(raw visible energy over 0.033, whatever the detector), so that the numbers of any file can stand
beside published ones.

Per layer: energy, sparsity, radial centre and width; where the azimuth is divided also centre and
width in x = r cos(alpha) and y = r sin(alpha), which the challenge calls eta and phi. A width is
sqrt(<x^2> - <x>^2). Separation power: half the sum of (h1 - h2)^2/(h1 + h2), both histograms
normalised inside their range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.binning import Binning
from caloforge.showers.dialects import LAYOUTS, DenseFile, VoxelFile
from caloforge.showers.native import ShowerSource

__all__ = ["ChallengeFeatures", "Histogram", "Source", "challenge_features", "histograms",
           "voxel_blocks", "voxel_edges"]  # fmt: skip

Array = NDArray[Any]
Source = ShowerSource | VoxelFile
_TINY = 1e-16  # MeV: the challenge's guard against empty layers
_BLOCK_VOXELS = 8_000_000
VOXEL_BINS = 50
GROUPS = 40  # parts of a sample in which voxels are counted apart, for the error


@dataclass(frozen=True, eq=False)
class ChallengeFeatures:
    """Features of N showers in L layers, of which A have more than one sector.

    energy (N,): incident, total (N,), layer (N, L): MeV in the challenge's units; sparsity (N, L);
    x, y, x_width, y_width (N, A) and r, r_width (N, L): mm. voxels (G, V): numbers of voxels in
    bins of `voxel_edges` (MeV), for each of G parts of the sample; empty without edges.
    """

    binning: Binning
    energy: Array
    total: Array
    layer: Array
    sparsity: Array
    x: Array
    y: Array
    x_width: Array
    y_width: Array
    r: Array
    r_width: Array
    voxels: Array

    def __len__(self) -> int:
        """Return the number of showers N."""
        return len(self.energy)

    @property
    def response(self) -> Array:
        """Total over incident energy (N,), no unit."""
        return np.asarray(self.total / self.energy)

    def matrix(self, rows: Array | slice = slice(None)) -> Array:
        """Features (M, 2 + 4 L + 4 A) of chosen showers, as the challenge's classifiers take them.

        log10 of the incident energy (MeV), of layer energies and of the total (+ 1e-8 MeV), the
        rest in units of 100 mm, sparsities as they are.
        """
        column = (slice(None), None)
        parts = [
            np.log10(self.energy[rows])[column],
            np.log10(self.layer[rows] + 1e-8),
            *(v[rows] / 1e2 for v in (self.x, self.y, self.x_width, self.y_width)),
            np.log10(self.total[rows] + 1e-8)[column],
            self.sparsity[rows],
            *(v[rows] / 1e2 for v in (self.r, self.r_width)),
        ]
        return np.concatenate(parts, axis=1)


def voxel_blocks(
    source: Source, binning: Binning, rows: Array | None = None, size: int | None = None
) -> Iterator[tuple[Array, Array]]:
    """Yield incident energies (n,) in MeV and voxels (n, V), flat, cut, in the challenge's units.

    `rows` (M,), rising: only these showers; `size`: showers in a block.
    """
    step = size or _block(binning)
    for start in range(0, len(source), step):
        stop = min(start + step, len(source))
        chosen: Array | slice = slice(None)
        if rows is not None:
            here = rows[(rows >= start) & (rows < stop)] - start
            if not len(here):
                continue
            chosen = here
        energy, voxels = stored(source, start, stop)
        voxels = voxels[chosen]
        yield energy[chosen], np.where(voxels < binning.cut, np.zeros_like(voxels), voxels)


def _block(binning: Binning) -> int:
    return max(1, min(1000, _BLOCK_VOXELS // binning.n_voxels))


def stored(source: Source, start: int, stop: int) -> tuple[Array, Array]:
    """Incident energies (n,) in MeV and voxels (n, V) of showers start to stop, as a file of the
    challenge holds them (visible MeV over 0.033).
    """
    if isinstance(source, VoxelFile) or (
        isinstance(source, DenseFile) and source.dialect == "calochallenge"
    ):
        return source.stored(start, stop)
    showers = source.read(start, stop)
    return showers.energy, LAYOUTS["calochallenge"].pack(showers.dense())


def voxel_edges(source: Source, binning: Binning) -> Array:
    """Edges (51,) in MeV of the voxel spectrum: from the cut to the reference's largest voxel."""
    largest = max(v.max(initial=0) for _, v in voxel_blocks(source, binning))
    largest = np.maximum(largest, binning.cut * 1.001)
    return np.logspace(np.log10(binning.cut), np.log10(largest), VOXEL_BINS)


def challenge_features(
    source: Source,
    binning: Binning,
    edges: Array | None = None,
    advance: Callable[[int], None] | None = None,
) -> ChallengeFeatures:
    """Compute the features of every shower of a source, in blocks (energies in MeV, mm).

    `edges` (E,) in MeV: bins of the voxel spectrum; `advance(n)` is called after n more showers.
    """
    # Blocks small enough that every group gets some, for the error of the voxel spectrum.
    size = min(_block(binning), -(-len(source) // GROUPS))
    columns = _Columns(binning)
    parts: list[dict[str, Array]] = []
    spectrum = np.zeros((GROUPS, 0 if edges is None else len(edges) - 1))
    for block, (energy, voxels) in enumerate(voxel_blocks(source, binning, size=size)):
        parts.append(columns.of(energy, voxels))
        if edges is not None:
            spectrum[block % GROUPS] += np.histogram(voxels[voxels > 0], edges)[0]
        if advance is not None:
            advance(len(energy))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    used = spectrum[: min(GROUPS, len(parts))]
    return ChallengeFeatures(binning, **joined, voxels=used)


class _Columns:
    """Positions of the voxels of every layer, and what the challenge computes with them.

    Operations come in the challenge's order and precision, so that the numbers are the same to the
    last bit: a value on the edge of a histogram's bin must fall on the same side.
    """

    def __init__(self, binning: Binning) -> None:
        self.binning = binning
        self.positions = [layer.centres() for layer in binning.layers]

    def of(self, energy: Array, voxels: Array) -> dict[str, Array]:
        """Features of one block: energies (n,) and voxels (n, V) in MeV."""
        offsets, found = self.binning.offsets, []
        for k, (x, y, r) in enumerate(self.positions):
            layer = np.ascontiguousarray(voxels[:, offsets[k] : offsets[k + 1]])
            total = layer.sum(axis=-1)
            axes = (x, y, r) if self.binning.layers[k].n_alpha > 1 else (r,)
            moments = [_centre_and_width(axis, layer, total) for axis in axes]
            found.append((total, 1.0 - (layer > 0).mean(axis=-1), moments))
        transverse = [moments for _, _, moments in found if len(moments) == 3]
        table = {
            "layer": [total for total, _, _ in found],
            "sparsity": [share for _, share, _ in found],
            "x": [m[0][0] for m in transverse], "x_width": [m[0][1] for m in transverse],
            "y": [m[1][0] for m in transverse], "y_width": [m[1][1] for m in transverse],
            "r": [m[-1][0] for _, _, m in found], "r_width": [m[-1][1] for _, _, m in found],
        }  # fmt: skip
        empty = np.zeros((len(energy), 0))
        stacked = {k: np.stack(v, axis=1) if v else empty for k, v in table.items()}
        return {"energy": energy.reshape(-1), "total": voxels.sum(axis=-1), **stacked}


def _centre_and_width(axis: Array, layer: Array, total: Array) -> tuple[Array, Array]:
    """Energy-weighted mean and spread (n,) of positions (V,) in mm; energies (n, V), sums (n,)."""
    guarded = total + _TINY
    centre = (axis * layer).sum(axis=-1) / guarded
    square = (axis * axis * layer).sum(axis=-1) / guarded
    return centre, np.sqrt((square - centre**2).clip(min=0.0))


# --- histograms -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Histogram:
    """One of the challenge's histograms: edges (n_bins + 1,) and the values (N,) that fill it.

    `family` names what is averaged over the layers; `layer` is the layer's number, or None.
    """

    name: str
    family: str
    layer: int | None
    edges: Array
    of: Callable[[ChallengeFeatures], Array]

    def counts(self, features: ChallengeFeatures, rows: Array | slice = slice(None)) -> Array:
        """Entries (n_bins,) of chosen showers; values outside the edges are left out."""
        return np.histogram(self.of(features)[rows], self.edges)[0].astype(float)


def histograms(reference: ChallengeFeatures) -> Iterator[Histogram]:
    """Every histogram of the challenge but that of the voxels, with its edges in MeV or mm.

    The edges of the layer energies run from the cut to the reference's largest, as there.
    """
    binning = reference.binning
    shares = np.linspace(0.5, 1.5, 101)
    yield Histogram("etot_einc", "etot_einc", None, shares, lambda f: f.response)
    for k, layer in enumerate(binning.layers):
        # In the stored precision, as there: the largest lies on an edge.
        top = np.maximum(reference.layer[:, k].max(), binning.cut * 1.001)
        edges = np.logspace(np.log10(binning.cut), np.log10(top), 40)
        yield _one("layer", k, layer.number, edges)
    for place, k in enumerate(binning.in_alpha):
        number, limits = binning.layers[k].number, binning.limits(k)
        for name in ("x", "y"):
            yield _one(name, place, number, np.linspace(-limits.centre, limits.centre, 101))
        for name in ("x_width", "y_width"):
            yield _one(name, place, number, np.linspace(0.0, limits.width, 101))
    for k, layer in enumerate(binning.layers):
        limits = binning.limits(k)
        yield _one("r", k, layer.number, np.linspace(0.0, limits.radius, 101))
        yield _one("r_width", k, layer.number, np.linspace(0.0, limits.radial_width, 101))
        yield _one("sparsity", k, layer.number, np.linspace(0.0, 1.0, 21))


def _one(family: str, column: int, layer: int, edges: Array) -> Histogram:
    def of(features: ChallengeFeatures) -> Array:
        return np.asarray(getattr(features, family)[:, column])

    return Histogram(f"{family}_{layer:02d}", family, layer, edges, of)
