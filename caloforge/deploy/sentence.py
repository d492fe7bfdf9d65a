"""A prior for one detector as one function: conditions and noise in, showers out.

It has three parts, so that the graph of one place is made once and then repeated: what comes before
the first place, a place, and what the decoder makes of the sentence. What depends on the detector
alone is worked out when it is made (`caloforge.learn.models.speaker`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caloforge.deploy.onecall import told
from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors
from caloforge.detector.detector import Detector
from caloforge.generate import check_mesh
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Manner, family
from caloforge.learn.models.speaker import Choice, Speaker
from caloforge.learn.models.vqvae import spelled
from caloforge.learn.noise import Dealt

__all__ = ["Sentence"]


class Sentence(nn.Module):
    """Showers of one detector, their voxels drawn in `steps` parts.

    Raises `RequestError` for a mesh that the model does not know, and another number of parts than
    it can be drawn in.
    """

    table: Tensor

    def __init__(self, model: Model, detector: Detector, steps: int | None) -> None:
        super().__init__()
        check_mesh(model, detector)
        self.manner = family(model.family).settle(model, Manner(steps=steps), "the model")
        self.network, self.scale = model.network, model.scale
        self.steps, self.detector = self.manner.steps or 1, detector
        self.register_buffer("table", torch.from_numpy(descriptors(detector))[None])
        known = model.network.config.tokeniser
        self.layers, self.places = known.layers, known.tokens
        self.spoken = 2 * known.quantities + (4 if known.layers else 1) * known.tokens
        self.noise = self.spoken
        self.noise += 2 * math.prod(known.shape) if known.loss == "beliefs" else 0
        pitch = self.table[:, [DESCRIPTOR_NAMES.index(n) for n in ("cell_r_moliere", "cell_z_x0")]]
        with torch.no_grad():
            self.speaker = Speaker(model.network, pitch)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Showers (B, R, PHI, Z), raw visible energy in MeV.

        conditions (B, 4): kinetic energy in MeV, theta and phi in rad, PDG code; noise (B, M):
        standard normal numbers, M = `self.noise`.
        """
        energies, x, fixed, own, memory = self.begin(conditions, noise)
        codes: list[Tensor] = []
        told: list[Tensor] = []
        for each in zip(*(part.chunk(self.places, dim=1) for part in own), strict=True):
            x, code, pair, memory = self.place(x, fixed, each, memory)
            codes.append(code)
            told.append(pair)
        return self.end(conditions, noise, energies, torch.cat(codes, 1), torch.cat(told, 1))

    def begin(
        self, conditions: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Energies (B, k), whitened, of the whole shower, and what `Speaker.begin` gives."""
        given, dealt = self._told(conditions), Dealt(noise)
        energies = self.network.draw_energies(given, dealt)
        chance, normal = self.network.dice(dealt)
        c = self.network.condition_of(energies, given)
        return energies, *self.speaker.begin(c, chance, normal)

    def place(
        self, x: Tensor, fixed: list[Tensor], own: Sequence[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """See `Speaker.place`: the next place (B, D), the code (B, 1), a pair and the memory."""
        return self.speaker.place(x, fixed, own, memory, Choice())

    def end(
        self, conditions: Tensor, noise: Tensor, energies: Tensor, codes: Tensor, pairs: Tensor
    ) -> Tensor:
        """Showers (B, R, PHI, Z) in MeV of energies (B, k), codes (B, N) and what the profile told
        of their places (B, 3 N).
        """
        given, dealt = self._told(conditions), Dealt(noise[:, self.spoken :])
        told = pairs.reshape(-1, self.places, 3) if self.layers else pairs
        return spelled(
            self.network.tokeniser, self.scale, codes, self.network.all_energies(energies, told),
            given, dealt, self.steps,
        )  # fmt: skip

    def _told(self, conditions: Tensor) -> Conditions:
        return told(conditions, self.table, self.detector)
