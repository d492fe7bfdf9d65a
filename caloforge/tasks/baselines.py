r"""What a sceptic would compare with: the calibrated sum, and boosted trees on shower features.

*The calibrated sum.* The logarithm of the energy as a polynomial in the logarithm of the visible
energy, and, *with angle correction*, in :math:`\cos^2\theta` and its product with it. It is given
the **true** angle, as if a tracker had measured it: more than any other method here knows.

*Trees* (`forest`) get features of a shower that do not know the primary: visible energy, hits,
moments, containment, azimuthal numbers, shares of layers, rings and sectors, hits of layers, and
the cell spectrum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.observables import Observables, measure
from caloforge.showers.showers import Showers
from caloforge.tasks.events import Deal

__all__ = ["calibrated_sum", "shower_features"]

Array = NDArray[Any]
NOTHING_MEV = 1e-3  # Stands for "nothing" under a logarithm.


def shower_features(showers: Showers) -> NDArray[np.float32]:
    """Features (N, F) of N showers that follow from the voxels alone; ln MeV, mm or no unit.

    The first is the logarithm of the visible energy in GeV.
    """
    obs = measure(showers)
    visible = np.maximum(obs.visible, NOTHING_MEV)[:, None]
    hits = np.maximum(obs.hits, 1)[:, None]
    scalars = [
        np.log(visible[:, 0] / 1e3), np.log(hits[:, 0]), np.log(obs.hit_energy + NOTHING_MEV),
        obs.z_mean, obs.z_width, obs.z_max, obs.containment_z(0.1), obs.containment_z(0.9),
        obs.r_mean, obs.r_width, obs.containment_r(0.5), obs.containment_r(0.9),
        obs.phi_cos, obs.phi_cos2, obs.sector_link,
    ]  # fmt: skip
    shares = [part / visible for part in (obs.layer_energy, obs.ring_energy, obs.sector_energy)]
    used = obs.spectrum[:, 25:75] / hits  # 0.3 keV to 30 GeV, ten bins a decade
    rows = [np.stack(scalars, axis=1), *shares, obs.layer_hits / hits, used, _first_hits(obs)]
    return np.hstack(rows).astype(np.float32)


def _first_hits(obs: Observables) -> Array:
    """Hits and logarithms of the energy (MeV) of the first layers: where a shower begins."""
    few = min(8, obs.mesh.n_z)
    return np.hstack([obs.layer_hits[:, :few], np.log(obs.layer_energy[:, :few] + NOTHING_MEV)])


def calibrated_sum(
    showers: Showers, deal: Deal, energy_like: Array, *, angle: bool = True
) -> Array:
    """Logarithms (N,) of the energies in MeV of all N showers, from their sums alone.

    `energy_like` (N,): logarithm of a rough energy in MeV, to weigh showers by its root. `angle`:
    with a correction by the true theta.
    """
    x = np.log(np.maximum(showers.visible(), NOTHING_MEV)) - 5.0
    columns = [np.ones_like(x), x, x**2]
    if angle:
        slant = np.cos(showers.theta.astype(float)) ** 2
        columns += [slant, slant * x, slant**2]
    rows, y = np.stack(columns, axis=1), np.log(showers.energy.astype(float))
    taught = np.concatenate([deal.train, deal.choose])  # nothing has to be chosen
    weight = np.exp((energy_like[taught] - np.log(1e3)) / 2)
    terms = np.linalg.lstsq(rows[taught] * weight[:, None], y[taught] * weight, rcond=None)[0]
    return np.asarray(rows @ terms)
