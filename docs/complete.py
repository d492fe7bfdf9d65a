"""Draw the picture of a completed shower: ``python docs/complete.py GEANT4.h5 OUT.png [MODEL]``.

The first third of each Geant4 shower is kept, the model draws the rest. Left: one shower, three
endings. Right: does what is drawn know what was kept? The energy behind the cut against that before
it, for Geant4's own ends and the drawn ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from caloforge.complete import complete
from caloforge.generate import Generator
from caloforge.showers.formats import read_showers

KEPT = 15
SHOWERS = 300


def main(geant4: Path, out: Path, model: str = "base") -> None:
    """Complete showers and draw both panels."""
    showers = read_showers(geant4)[:SHOWERS]
    generator = Generator.load(model)
    endings = [complete(generator, showers, KEPT, seed=s).dense() for s in (1, 2, 3)]
    truth, mesh = showers.dense(), showers.mesh
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    one = int(np.argmin(np.abs(showers.energy - 20e3)))
    left.step(mesh.centres_z, truth[one].sum((0, 1)), where="mid", color="black", label="Geant4")
    for number, ending in enumerate(endings):
        left.step(mesh.centres_z[KEPT - 1 :], ending[one].sum((0, 1))[KEPT - 1 :], where="mid",
                  label=f"drawn end {number + 1}", alpha=0.8)  # fmt: skip
    left.axvline(KEPT * mesh.cell_z_mm, color="gray", linestyle=":")
    left.set(xlabel="depth [mm]", ylabel="visible energy in a layer [MeV]",
             title=f"{showers.energy[one] / 1e3:.0f} GeV, first {KEPT} layers kept")  # fmt: skip
    left.legend()
    before = truth[..., :KEPT].sum((1, 2, 3)) / showers.energy
    for name, source, colour in (("Geant4", truth, "black"), ("drawn", endings[0], "C0")):
        behind = source[..., KEPT:].sum((1, 2, 3)) / showers.energy
        rho = np.corrcoef(before, behind)[0, 1]
        right.scatter(100 * before, 100 * behind, s=8, color=colour, alpha=0.6,
                      label=f"{name}, correlation {rho:+.2f}")  # fmt: skip
    right.set(xlabel="visible before the cut [% of the incident energy]",
              ylabel="behind it [%]", title=f"{len(showers)} showers of 1-100 GeV")  # fmt: skip
    right.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
