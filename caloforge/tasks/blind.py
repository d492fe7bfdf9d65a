r"""Conditions for a model that must not know the primary: they follow from the shower alone.

A generator is told energy, angle and particle; whoever reconstructs them does not have them. The
whitening of the energies divides by the incident energy, and the maps of active material are drawn
for an angle, so setting a few features to "not told" would not be enough: the answer would come in
through the preprocessing. Here everything is what can be assumed of a shower of which only the
voxels and the detector are known:

- the energy is that of which the model's whitening expects the observed visible energy,
  :math:`E_{vis}(E) = E_{obs}`, a curve that is inverted once for a detector; a model without such
  a whitening takes the visible energy over the calculated sampling fraction of electrons
  (hep-ex/0001020);
- the angle is a right one, :math:`\theta = \pi/2`, for features and maps;
- the particle is an electron.

Features that are made with them are the same whatever the truth is (tests/tasks/test_blind.py).
What the angle does to a shower is still seen, as sampling layers that are cut at another slant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.condition import FEATURE_NAMES, PARTICLES, Conditions, conditions
from caloforge.learn.preprocess import ShowerScale
from caloforge.simulate.parametric import medium

__all__ = ["Blind", "as_particle", "check_told"]

LOWEST, HIGHEST, POINTS = 1e2, 1e6, 400  # MeV; of the curve that is inverted.
_PARTICLE = FEATURE_NAMES.index(f"pdg_{PARTICLES[0]}")
_ENERGY = FEATURE_NAMES.index("log_energy")
_OVER = FEATURE_NAMES.index("log_energy_over_critical")
_CRITICAL = FEATURE_NAMES.index("log_critical_energy_mev")
_LOSS = FEATURE_NAMES.index("log_active_loss_mev")


class Blind:
    """Assumed conditions of showers in one detector, for a model with the preprocessing `scale`.

    Raises `RequestError` for a detector that has no describing stack.
    """

    def __init__(self, scale: Any, detector: Detector, device: torch.device) -> None:
        one = conditions([detector], np.zeros(1, np.int64), [1e4], [np.pi / 2], [11])
        self.one = one.to(device)
        self._energy = np.geomspace(LOWEST, HIGHEST, POINTS)
        seen = medium(detector.described_stack()).visible * self._energy
        if isinstance(scale, ShowerScale):
            seen = self._expected(scale)
        # A shower of more energy leaves more: what the curve of a poor model does otherwise is cut.
        self._visible = np.maximum(np.maximum.accumulate(seen), 1e-6)

    @torch.inference_mode()
    def _expected(self, scale: ShowerScale) -> NDArray[np.float64]:
        """Visible energies (P,) in MeV that the whitening expects of the curve's energies."""
        energy = torch.from_numpy(self._energy).float().to(self.one.energy.device)
        mean = scale.energies.moments(self._features(energy))[0][:, 0].cpu().double().numpy()
        offset = 0.1 * float(self.one.features[0, _LOSS].exp())
        return np.asarray(np.exp(mean) * self._energy - offset)

    def energy(self, visible: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energy (N,) in MeV that a visible energy (N,) suggests, within the curve's ends."""
        seen = np.log(np.maximum(visible, 1e-9))
        suggested = np.interp(seen, np.log(self._visible), np.log(self._energy))
        return np.asarray(np.exp(suggested))

    def __call__(self, voxels: Tensor) -> Conditions:
        """Conditions of showers of which the voxels (B, R, PHI, Z) in MeV are known."""
        visible = voxels.sum(dim=(1, 2, 3)).cpu().double().numpy()
        energy = torch.from_numpy(self.energy(visible)).float().to(voxels.device)
        b, one = len(energy), self.one
        return Conditions(
            self._features(energy), one.maps.expand(b, -1, -1, -1, -1), one.pitch.expand(b, -1),
            energy,
        )  # fmt: skip

    def _features(self, energy: Tensor) -> Tensor:
        features = self.one.features.repeat(len(energy), 1)
        features[:, _ENERGY] = (energy / 1e3).log()
        features[:, _OVER] = energy.log() - features[:, _CRITICAL]
        return features


def as_particle(given: Conditions, code: int) -> Conditions:
    """The same conditions for another particle, by its PDG code."""
    features = given.features.clone()
    for number, known in enumerate(PARTICLES):
        features[:, _PARTICLE + number] = float(known == code)
    return given._replace(features=features)


def check_told(codes: Sequence[int], tells: bool = True) -> None:
    """Refuse, with `RequestError`, particles (PDG codes) that models are never told; all of them if
    one `tells` none apart.
    """
    unknown = [code for code in codes if code not in PARTICLES]
    if unknown or not tells:
        raise RequestError(f"the model is not told particles with PDG code {unknown}; it can tell "
                           f"apart {', '.join(map(str, PARTICLES))}")  # fmt: skip
