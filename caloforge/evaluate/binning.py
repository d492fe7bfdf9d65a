"""The voxels of the CaloChallenge: layers of rings and sectors, each layer cut in its own way.

The challenge (arXiv:2410.21611) describes a calorimeter by one line of XML a layer: the radial
edges in mm and the number of sectors in the azimuth alpha. Voxels are stored flat, layer by layer,
sector by sector, the ring fastest; energies are in MeV, divided by the sampling fraction (0.033 for
datasets 2 and 3). A `Mesh` is the special case of equal layers; dataset 1 is not, and its voxels
fit no mesh.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.showers.dialects import CHALLENGE_SAMPLING_FRACTION

if TYPE_CHECKING:
    from caloforge.detector.mesh import Mesh

__all__ = ["DATASET_1", "Binning", "Layer", "read_binning"]

Array = NDArray[Any]
CHALLENGE_RADIUS_MM = 41.85  # outer radius of datasets 2 and 3, to which the histograms were made


@dataclass(frozen=True)
class Layer:
    """One layer: its number, its radial edges (n_r + 1,) in mm, its number of sectors."""

    number: int
    r_edges: tuple[float, ...]
    n_alpha: int

    @property
    def size(self) -> int:
        """Number of voxels."""
        return (len(self.r_edges) - 1) * self.n_alpha

    def centres(self) -> tuple[Array, Array, Array]:
        """Centres x, y and r (size,) in mm of the voxels, the ring fastest."""
        edges = np.asarray(self.r_edges)
        alpha = np.linspace(-np.pi, np.pi, self.n_alpha + 1)
        # Written as the challenge writes it, to the last bit, two forms of one mean included.
        rings, sectors = (e[:-1] + np.diff(e) / 2 for e in (edges, alpha))
        r, angle = np.tile(rings, self.n_alpha), np.repeat(sectors, len(rings))
        means = np.tile((edges[:-1] + edges[1:]) * 0.5, self.n_alpha)
        return r * np.cos(angle), r * np.sin(angle), means


@dataclass(frozen=True)
class Limits:
    """Half-widths in mm of the challenge's histograms of a layer: centres, widths, radii."""

    centre: float
    width: float
    radius: float
    radial_width: float


@dataclass(frozen=True)
class Binning:
    """The voxels of a calorimeter as the challenge stores them.

    name: what it is called; layers: those with voxels; cut: energy in MeV, in the challenge's
    units, below which a voxel counts as empty; cylinder: whether all layers are alike (datasets 2
    and 3), for which the challenge makes its histograms otherwise than for dataset 1.
    """

    name: str
    layers: tuple[Layer, ...]
    cut: float
    cylinder: bool = False

    @classmethod
    def of_mesh(cls, mesh: Mesh, cut_mev: float) -> Binning:
        """Binning of a mesh; `cut_mev` is in MeV of raw visible energy."""
        edges = tuple(round(float(e), 9) for e in mesh.edges_r)  # 13.95, not 13.950000000000001
        layers = tuple(Layer(k, edges, mesh.n_phi) for k in range(mesh.n_z))
        return cls("mesh", layers, cut_mev / CHALLENGE_SAMPLING_FRACTION, cylinder=True)

    @cached_property
    def offsets(self) -> Array:
        """First voxel of each layer, and the number of voxels at the end: (L + 1,)."""
        return np.concatenate([[0], np.cumsum([layer.size for layer in self.layers])])

    @property
    def n_voxels(self) -> int:
        """Number of voxels in all."""
        return int(self.offsets[-1])

    @property
    def in_alpha(self) -> list[int]:
        """Indices of the layers with more than one sector: those with transverse centres."""
        return [k for k, layer in enumerate(self.layers) if layer.n_alpha > 1]

    def limits(self, index: int) -> Limits:
        """Limits of the histograms of a layer, in mm; those of dataset 2 grow with the radius."""
        layer = self.layers[index]
        if self.cylinder:
            scale = layer.r_edges[-1] / CHALLENGE_RADIUS_MM
            scale = 1.0 if abs(scale - 1) < 1e-9 else scale
            return Limits(30 * scale, 30 * scale, 42 * scale, 20 * scale)
        outer = layer.number in (12, 13)
        deep = 1500.0 if outer or layer.number == 14 else 500.0
        return Limits(500.0 if outer else 100.0, 400.0 if outer else 100.0, deep, deep)


def _of_rows(name: str, rows: Mapping[int, tuple[tuple[int, ...], int]]) -> Binning:
    layers = tuple(
        Layer(number, tuple(float(e) for e in edges), n_alpha)
        for number, (edges, n_alpha) in rows.items()
    )
    return Binning(name, layers, cut=1.0)


_WIDE = (0, 5, 10, 30, 50, 100, 200, 400, 600)
_MIDDLE = (0, 50, 100, 200, 400, 600)
_TILES = (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400)

# Dataset 1, by its number of voxels: radial edges in mm and sectors of every layer with voxels.
DATASET_1: Mapping[int, Binning] = MappingProxyType(
    {
        368: _of_rows(
            "CaloChallenge dataset 1, photons",
            {
                0: (_WIDE, 1),
                1: ((0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200), 10),
                2: ((0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300,
                     350, 400), 10),
                3: (_MIDDLE, 1),
                12: ((0, 100, 200, 400, 1000, 2000), 1),
            },
        ),
        533: _of_rows(
            "CaloChallenge dataset 1, pions",
            {
                0: (_WIDE, 1),
                1: ((0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200), 10),
                2: ((0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400), 10),
                3: (_MIDDLE, 1),
                12: ((*_TILES, 1000, 2000), 10),
                13: ((*_TILES, 600, 1000, 2000), 10),
                14: ((0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000), 1),
            },
        ),
    }
)  # fmt: skip


def read_binning(path: str | Path, cut: float = 1.0) -> Binning:
    """Read a binning XML of the challenge (radial edges in mm); `cut` in MeV, as stored.

    Raises `RequestError` if the file is missing, no such XML, or describes no voxels.
    """
    path = Path(path)
    try:
        rows = list(ET.parse(path).getroot().iter("Layer"))
        layers = tuple(_of_element(row) for row in rows if "," in row.attrib["r_edges"])
    except OSError:
        raise RequestError(f"there is no binning '{path}'; correct the path") from None
    except (ET.ParseError, KeyError, ValueError):
        raise RequestError(
            f"'{path}' is no binning XML of the CaloChallenge: each <Layer> needs id, r_edges "
            "(mm, rising) and n_bin_alpha"
        ) from None
    if not layers:
        raise RequestError(f"'{path}' describes no layer with voxels; take another binning")
    return Binning(path.stem, layers, cut)


def _of_element(row: ET.Element) -> Layer:
    edges = tuple(float(e) for e in row.attrib["r_edges"].split(","))
    n_alpha = int(row.attrib["n_bin_alpha"])
    if n_alpha < 1 or any(b <= a for a, b in zip(edges, edges[1:], strict=False)):
        raise ValueError("edges must rise")
    return Layer(int(row.attrib["id"]), edges, n_alpha)
