"""Draw the picture of the README: python docs/picture.py OUT.png

Mean visible energy of the Geant4 showers that ship with the package and of showers that the shipped
model generates for the same primaries, in (z, r), and single showers at the energy and angle of one.
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

import caloforge
from caloforge.quickstart import MODEL, shipped_reference
from caloforge.showers.formats import read_showers
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import Primaries


def plane(showers: Showers) -> np.ndarray:
    """Mean visible energy per mm^3 in (r, z), mirrored to both sides of the axis."""
    density = showers.dense().mean(0).sum(1) / showers.mesh.volumes.sum(1)
    return np.concatenate([density[::-1], density])


def draw(axes: Axes, showers: Showers, title: str, norm: LogNorm) -> None:
    mesh = showers.mesh
    edges = np.concatenate([-mesh.edges_r[:0:-1], mesh.edges_r])
    axes.pcolormesh(mesh.edges_z, edges, plane(showers), norm=norm, cmap="magma", rasterized=True)
    axes.set_title(title, fontsize=10)
    axes.set_facecolor("black")


def slice_of(axes: Axes, showers: Showers, title: str, norm: LogNorm) -> None:
    """One shower as points: each filled cell at its place (z', x'), its size by its energy."""
    mesh, cell = showers.mesh, showers.cell.astype(int)
    r, rest = np.divmod(cell, mesh.n_phi * mesh.n_z)
    phi, z = np.divmod(rest, mesh.n_z)
    x = mesh.centres_r[r] * np.cos(mesh.centres_phi[phi])
    order = np.argsort(showers.deposit)
    axes.scatter(
        mesh.centres_z[z][order], x[order], c=showers.deposit[order], norm=norm, cmap="magma",
        s=3 + 4 * np.log1p(showers.deposit[order]), linewidths=0,
    )  # fmt: skip
    axes.set_title(title, fontsize=10)
    axes.set_facecolor("black")
    axes.set_xlim(0, mesh.edges_z[-1])
    axes.set_ylim(-mesh.edges_r[-1], mesh.edges_r[-1])


def main(out: str) -> None:
    geant4 = read_showers(shipped_reference())
    assert geant4.detector is not None
    model = caloforge.load(MODEL)
    stream = model.stream(geant4.detector, Primaries.like(geant4, seed=11))
    from caloforge.showers.showers import concatenate

    made = concatenate(list(stream))
    which = int(np.argmin(np.abs(geant4.energy - 50e3) / 50e3 + np.abs(geant4.theta - 1.4)))
    one = geant4[which : which + 1]
    figure, axes = plt.subplots(2, 4, figsize=(12, 4.6), sharex=True, sharey=True, layout="constrained")
    mean, single = LogNorm(1e-6, 1e-1), LogNorm(1e-2, 50)
    for row, showers, name in ((0, geant4, "Geant4"), (1, made, "caloforge")):
        draw(axes[row, 0], showers, f"{name}: mean of {len(showers)}", mean)
        text = f"{name}: {one.energy[0] / 1e3:.0f} GeV, theta {one.theta[0]:.2f}"
        again = Primaries.like(one[np.zeros(3, int)], seed=5)
        shots = (
            next(model.stream(geant4.detector, again))
            if row
            else geant4[np.argsort(np.abs(np.log(geant4.energy / one.energy[0])))[:3]]
        )
        for column in (1, 2, 3):
            label = text if row else f"Geant4: {shots.energy[column - 1] / 1e3:.0f} GeV"
            slice_of(axes[row, column], shots[column - 1 : column], label, single)
    for axis in axes[-1]:
        axis.set_xlabel("depth z' [mm]")
    for axis in axes[:, 0]:
        axis.set_ylabel("r, x' [mm]")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
