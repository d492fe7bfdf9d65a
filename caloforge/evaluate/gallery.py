"""Single showers in three dimensions, for a page: what to draw, and the script that turns it.

A few showers of the reference are chosen by energy, and beside each the generated shower whose
primary is nearest. Cells are points at their centres in the mesh frame (mm), coloured by log10 of
the deposit in MeV. The drawing is Plotly's (MIT), carried inside the page in compressed form and
unpacked by the browser when the showers come into view: no network, no server.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from caloforge.evaluate.observables import Observables
    from caloforge.showers.native import ShowerSource
    from caloforge.showers.showers import Showers

__all__ = ["packed_plotly", "showers_3d"]

Array = NDArray[Any]
_SHARES = (0.1, 0.5, 0.9, 0.99)  # places in the order of the energies
_MOST = 1500  # cells of a shower, the brightest


def showers_3d(
    labels: Sequence[str], sources: Sequence[ShowerSource], samples: Sequence[Observables],
    cut_mev: float,
) -> dict[str, Any]:  # fmt: skip
    """Choose showers of every source, the reference first, and put them into plain values.

    Energies in MeV, places in mm, angles in rad; deposits below `cut_mev` (MeV) are left out.
    """
    reference = samples[0]
    order = np.argsort(reference.energy)
    chosen = [int(order[min(int(s * len(order)), len(order) - 1)]) for s in _SHARES]
    panels = []
    for label, source, sample in zip(labels, sources, samples, strict=True):
        rows = chosen if sample is reference else [_nearest(reference, k, sample) for k in chosen]
        showers = [_points(source.read(row, row + 1), cut_mev) for row in rows]
        panels.append({"label": label, "showers": showers})
    names = [f"{reference.energy[k] / 1e3:.3g} GeV, θ = {reference.theta[k]:.2f} rad"
             for k in chosen]  # fmt: skip
    mesh = reference.mesh
    return {"names": names, "panels": panels, "radius": float(mesh.edges_r[-1]),
            "depth": float(mesh.edges_z[-1])}  # fmt: skip


def _nearest(reference: Observables, row: int, sample: Observables) -> int:
    """Return the shower of a sample whose primary is nearest in energy and angle."""
    gap = (np.log(sample.energy / reference.energy[row]) / 0.1) ** 2
    gap = gap + ((sample.theta - reference.theta[row]) / 0.1) ** 2
    return int(np.argmin(gap))


def _points(shower: Showers, cut_mev: float) -> dict[str, Any]:
    """Cells of one shower as lists: x, y, z in mm and log10 of the deposit in MeV."""
    kept, mesh = shower.above(cut_mev), shower.mesh
    brightest = np.argsort(-kept.deposit)[:_MOST]
    ring, sector, layer = np.unravel_index(kept.cell[brightest].astype(np.int64), mesh.shape)
    r, phi = mesh.centres_r[ring], mesh.centres_phi[sector]
    columns = {"x": r * np.cos(phi), "y": r * np.sin(phi), "z": mesh.centres_z[layer]}
    found: dict[str, Any] = {k: np.round(v, 1).tolist() for k, v in columns.items()}
    found["c"] = np.round(np.log10(kept.deposit[brightest].astype(float)), 2).tolist()
    found["text"] = f"{kept.visible()[0]:.3g} MeV in {len(kept.cell)} cells"
    return found


@cache
def packed_plotly() -> str:
    """Plotly's script (no unit), compressed by gzip and written in base64."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, mtime=0)).decode("ascii")
