"""Draw the picture of the README: python docs/picture.py OUT.png

Mean visible energy in (z, r) of Geant4 showers that ship with the package and of showers that the
shipped model generates for the same primaries, and three single showers of each at like energies.
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
from caloforge.showers.showers import Showers, concatenate
from caloforge.simulate.beam import Primaries

SHOWERS = 400
MEAN, SINGLE = LogNorm(1e-6, 1e-1), LogNorm(1e-2, 50)  # MeV/mm3 and MeV


def draw_mean(axes: Axes, showers: Showers, title: str) -> None:
    """Mean visible energy per volume in (z, r), mirrored to both sides of the axis."""
    mesh = showers.mesh
    density = showers.dense().mean(0).sum(1) / mesh.volumes.sum(1)
    edges = np.concatenate([-mesh.edges_r[:0:-1], mesh.edges_r])
    plane = np.concatenate([density[::-1], density])
    axes.pcolormesh(mesh.edges_z, edges, plane, norm=MEAN, cmap="magma", rasterized=True)
    axes.set_title(title, fontsize=10)
    axes.set_facecolor("black")


def draw_shower(axes: Axes, shower: Showers, name: str) -> None:
    """One shower as points, each filled cell at its place (z', x')."""
    mesh, order = shower.mesh, np.argsort(shower.deposit)
    cell, energy = shower.cell.astype(int)[order], shower.deposit[order]
    r, rest = np.divmod(cell, mesh.n_phi * mesh.n_z)
    phi, z = np.divmod(rest, mesh.n_z)
    x = mesh.centres_r[r] * np.cos(mesh.centres_phi[phi])
    axes.scatter(mesh.centres_z[z], x, c=energy, norm=SINGLE, cmap="magma",
                 s=3 + 4 * np.log1p(energy), linewidths=0)  # fmt: skip
    axes.set_title(f"{name}: {shower.energy[0] / 1e3:.0f} GeV", fontsize=10)
    axes.set_facecolor("black")
    axes.set_xlim(0, mesh.edges_z[-1])
    axes.set_ylim(-mesh.edges_r[-1], mesh.edges_r[-1])


def main(out: str) -> None:
    """Draw the picture into the file `out`."""
    geant4 = read_showers(shipped_reference())[:SHOWERS]
    assert geant4.detector is not None
    model = caloforge.load(MODEL)
    made = concatenate(list(model.stream(geant4.detector, Primaries.like(geant4, seed=11))))
    chosen = [int(np.argmin(np.abs(geant4.energy - gev * 1e3))) for gev in (10, 30, 80)]
    figure, axes = plt.subplots(
        2, 4, figsize=(12, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    for row, (showers, name) in enumerate(((geant4, "Geant4"), (made, "caloforge"))):
        draw_mean(axes[row, 0], showers, f"{name}: mean of {SHOWERS} showers")
        for column, which in enumerate(chosen, 1):
            draw_shower(axes[row, column], showers[which : which + 1], name)
        axes[row, 0].set_ylabel("r and x' [mm]")
    for axis in axes[-1]:
        axis.set_xlabel("depth z' [mm]")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
