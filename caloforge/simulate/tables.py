"""Cross sections of one element in the text formats that Geant4's models read.

`element_files` gives the seven files of the open data set (see `physics_data`): scaled
bremsstrahlung (Seltzer and Berger 1986, doi:10.1016/0092-640X(86)90014-8), photoelectric absorption
(EPDL97 and Kissel's shells through xraylib) and Rayleigh scattering (EPDL97 through xraylib).
xraylib speaks keV and barn; Geant4's files speak MeV. Imported only where tables are written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xraylib

__all__ = ["element_files"]

Array = npt.NDArray[np.float64]

POINTS_PER_DECADE = 40
LOWEST_KEV = 0.1  # edges below are left out: their electrons never leave the atom's cell
LAST_KEV = (999.9, 799.9)  # the last energies of xraylib, just inside its tables
TOP_MEV = 1e8  # the tables end far above any shower photon: 100 TeV
EDGE = 5e-4  # relative distance from an edge at which its two sides are read
NO_FIT_MEV = 1e12  # above this Geant4 would use fitted coefficients: never
MM2_PER_BARN = 1e-22  # Geant4's unit of area is mm^2


def element_files(z: int, bremsstrahlung: Path) -> dict[str, str]:
    """Return the tables of the element of atomic number `z` (1..92), by path under ``G4LEDATA``.

    `bremsstrahlung` is the folder of Seltzer and Berger's values (``grid.csv`` in keV and
    ``ZZ.csv`` in millibarn).
    """
    shells = _shells(z)
    return {
        f"brem_SB/br{z}": _bremsstrahlung(z, bremsstrahlung),
        f"epics2017/phot/pe-cs-{z}.dat": _photo_above(z, shells),
        f"epics2017/phot/pe-le-cs-{z}.dat": _photo_below(z, shells),
        f"epics2017/phot/pe-ss-cs-{z}.dat": _photo_shells(z, shells),
        f"epics2017/phot/pe-high-{z}.dat": _binding_energies(shells),
        f"epics2017/phot/pe-low-{z}.dat": _binding_energies(shells),
        f"epics2017/rayl/re-cs-{z}.dat": _rayleigh(z),
    }


def _bremsstrahlung(z: int, folder: Path) -> str:
    grid = (folder / "grid.csv").read_text(encoding="ascii").splitlines()
    energy_kev, fraction = (np.array(line.split(","), dtype=float) for line in grid[:2])
    values = np.loadtxt(folder / f"{z:02d}.csv", delimiter=",")
    if values.shape != (energy_kev.size, fraction.size):
        raise ValueError(f"{folder}/{z:02d}.csv has shape {values.shape}")
    rows = [fraction, np.log(energy_kev / 1e3), *values]
    return f"3 {fraction.size} {energy_kev.size}\n" + "\n".join(_row(row) for row in rows) + "\n"


def _shells(z: int) -> list[tuple[int, float]]:
    """List (xraylib's shell number, binding energy in keV), most bound first, K always."""
    found = []
    for shell in range(31):
        energy = _try(partial(xraylib.EdgeEnergy, z, shell))
        if energy is not None and energy > (0.0 if shell == 0 else LOWEST_KEV):
            found.append((shell, energy))
    return sorted(found, key=lambda item: -item[1])


def _photo_above(z: int, shells: list[tuple[int, float]]) -> str:
    last = next(e for e in LAST_KEV if _try(partial(xraylib.CSb_Photo, z, e)) is not None)
    energy, sigma = _segment(partial(_photo, z), shells[0][1], last)
    tail = np.geomspace(last, TOP_MEV * 1e3, 8 * POINTS_PER_DECADE)[1:]
    sigma = np.concatenate([sigma, _continuation(z, last)(tail)])
    return _table(np.concatenate([energy, tail]) / 1e3, sigma, 3)


def _continuation(z: int, last: float) -> Callable[[Array], Array]:
    """Fit a/E + b/E^3 through the photoelectric cross section at 0.6 and 1.0 of `last` (keV)."""
    points = np.array([0.6 * last, last])
    matrix = np.stack([1 / points, 1 / points**3], axis=1)
    a, b = np.linalg.solve(matrix, [_photo(z, float(e)) for e in points])
    return lambda energy: a / energy + b / energy**3


def _photo_below(z: int, shells: list[tuple[int, float]]) -> str:
    edges = [energy for _, energy in reversed(shells)]
    if len(edges) == 1:  # only a K shell: Geant4 never looks below it
        edges.insert(0, 0.5 * edges[0])
    parts = [_segment(partial(_photo, z), a, b) for a, b in pairwise(edges)]
    energy, sigma = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return _table(energy / 1e3, sigma, 3)


def _photo_shells(z: int, shells: list[tuple[int, float]]) -> str:
    text = []
    for number, (shell, edge) in enumerate(shells):
        energy, sigma = _segment(partial(_photo_shell, z, shell), edge, 800.0)
        energy, scaled = energy / 1e3, sigma * (energy / 1e3) ** 3
        head = f"{energy[0]:.9g} {energy[-1]:.9g} {energy.size} {number}\n"
        text.append(head + _pairs(energy, scaled))
    return "".join(text)


def _photo_shell(z: int, shell: int, energy: float) -> float:
    """Photoelectric cross section of one shell in barn at `energy` keV."""
    return _photo(z, energy) * _share(z, shell, energy)


def _share(z: int, shell: int, energy: float) -> float:
    """Share of `shell` in the photoelectric cross section at `energy` keV.

    Beyond the last energy of the shells' tables (50, 90 or 300 keV) it is held at its value there.
    The cross sections per gram are compared, because those per atom (``CSb_Photo_Partial``) are
    those of a single electron of the shell.
    """
    for e in (energy, 200.0, 90.0, 50.0):
        if e > energy:
            continue
        part = _try(partial(xraylib.CS_Photo_Partial, z, shell, e))
        total = _try(partial(xraylib.CS_Photo_Total, z, e))
        if part is not None and total:
            return part / total
    return 0.0


def _binding_energies(shells: list[tuple[int, float]]) -> str:
    rows = "".join(f"{energy / 1e3:.9g} 0 0 0 0 0 0\n" for _, energy in shells)
    return f"{len(shells)} {len(shells)} {NO_FIT_MEV:g}\n{rows}"


def _rayleigh(z: int) -> str:
    energy, sigma = _segment(partial(xraylib.CSb_Rayl, z), LOWEST_KEV, 799.0)
    return _table(energy / 1e3, sigma * MM2_PER_BARN, 2)


def _photo(z: int, energy: float) -> float:
    """Photoelectric cross section in barn at `energy` keV; E^-3 below xraylib's first energy."""
    first = LOWEST_KEV * (1 + EDGE)
    if energy >= first:
        return float(xraylib.CSb_Photo(z, energy))
    return float(xraylib.CSb_Photo(z, first)) * (first / energy) ** 3


def _segment(sigma: Callable[[float], float], low: float, high: float) -> tuple[Array, Array]:
    """Sample `sigma` (barn, of keV) between two edges, reading its ends just inside of them."""
    points = max(4, int(np.ceil(POINTS_PER_DECADE * np.log10(high / low))))
    energy = np.geomspace(low, high * (1 - 1e-6), points)
    inside = np.clip(energy, low * (1 + EDGE), high * (1 - EDGE))
    return energy, np.array([sigma(float(e)) for e in inside])


def _table(energy: Array, sigma: Array, power: int) -> str:
    """Write energies (MeV) and ``sigma * E^power`` as ``G4PhysicsVector::Retrieve`` reads them."""
    head = f"{energy[0]:.9g} {energy[-1]:.9g} {energy.size}\n{energy.size}\n"
    return head + _pairs(energy, sigma * energy**power)


def _pairs(energy: Array, values: Array) -> str:
    pairs = zip(energy.tolist(), values.tolist(), strict=True)
    return "".join(f"{e:.9g} {v:.9g}\n" for e, v in pairs)


def _row(values: Array) -> str:
    return " ".join(f"{value:.8g}" for value in values)


def _try(value: Callable[[], float]) -> float | None:
    """Return `value`, or None outside xraylib's tables (it raises `ValueError` there)."""
    try:
        return float(value())
    except ValueError:
        return None
