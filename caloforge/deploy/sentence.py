"""A prior for one detector as one function: conditions and noise in, showers out.

It has three parts, so that the graph of one place is made once and then repeated: what comes before
the first place, a place, and what the decoder makes of the sentence. What depends on the detector
alone is worked out when it is made (`caloforge.learn.models.speaker`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from caloforge.deploy.chain import chained
from caloforge.deploy.onecall import told
from caloforge.deploy.onnxfile import graph_of
from caloforge.detector.descriptors import descriptors
from caloforge.detector.detector import Detector
from caloforge.generate import check_mesh
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import PITCH, Conditions
from caloforge.learn.models.family import Manner, family
from caloforge.learn.models.prior import spelled
from caloforge.learn.models.speaker import Choice, Speaker
from caloforge.learn.noise import Dealt

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Sentence", "sentence_graph"]


class Sentence(nn.Module):
    """Showers of one detector, their voxels drawn in `steps` parts.

    Raises `RequestError` for a mesh that the model does not know, and another number of parts than
    it can be drawn in.
    """

    table: Tensor

    def __init__(
        self, model: Model, detector: Detector, steps: int | None = None, name: str = "the model"
    ) -> None:
        super().__init__()
        check_mesh(model, detector)
        self.manner = family(model.family).settle(model, Manner(steps=steps), name)
        self.network, self.scale = model.network.requires_grad_(False), model.scale
        self.steps, self.detector = self.manner.steps or 1, detector
        self.register_buffer("table", torch.from_numpy(descriptors(detector))[None])
        known = model.network.config.tokeniser
        self.layers, self.places = known.layers, known.tokens
        self.spoken = 2 * known.quantities + (4 if known.layers else 1) * known.tokens
        self.noise = self.spoken
        self.noise += 2 * math.prod(known.shape) if known.loss == "beliefs" else 0
        with torch.no_grad():
            self.speaker = Speaker(model.network, self.table[:, PITCH])

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Showers (B, R, PHI, Z), raw visible energy in MeV.

        conditions (B, 4): kinetic energy in MeV, theta and phi in rad, PDG code; noise (B, M):
        standard normal numbers, M = `self.noise`.
        """
        left, energies, x, fixed, own, memory = self.begin(conditions, noise)
        codes, told = self.speaker.follow(x, fixed, own, memory, Choice())
        return self.end(conditions, left, energies, codes, told.flatten(1))

    def begin(
        self, conditions: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Noise that is left for the voxels (B, M), energies (B, k), whitened, of the whole shower,
        and what `Speaker.begin` gives.
        """
        given, dealt = self._told(conditions), Dealt(noise)
        energies = self.network.draw_energies(given, dealt)
        chance, normal = self.network.dice(dealt)
        c = self.network.condition_of(energies, given)
        return noise[:, self.spoken :], energies, *self.speaker.begin(c, chance, normal)

    def place(
        self, x: Tensor, fixed: list[Tensor], own: Sequence[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """See `Speaker.place`: the next place (B, D), the code (B, 1), a pair and the memory."""
        return self.speaker.place(x, fixed, own, memory, Choice())

    def end(
        self, conditions: Tensor, left: Tensor, energies: Tensor, codes: Tensor, pairs: Tensor
    ) -> Tensor:
        """Showers (B, R, PHI, Z) in MeV of energies (B, k), codes (B, N) and what the profile told
        of their places (B, 3 N).
        """
        given, dealt = self._told(conditions), Dealt(left)
        told = pairs.reshape(-1, self.places, 3) if self.layers else pairs
        return spelled(
            self.network.tokeniser, self.scale, codes, self.network.all_energies(energies, told),
            given, dealt, self.steps,
        )  # fmt: skip

    def _told(self, conditions: Tensor) -> Conditions:
        return told(conditions, self.table, self.detector)


class _First(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        conditions, noise = self.module.inward(*inputs)
        left, energies, x, fixed, own, memory = self.module.inner.begin(conditions, noise)
        return conditions, left, energies, x, *fixed, *own, *memory


class _Link(nn.Module):
    def __init__(self, inner: Sentence, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.inner, self.sizes = inner, sizes

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        end = sum(self.sizes)
        fixed, own = list(rest[: self.sizes[0]]), rest[self.sizes[0] : end]
        x, code, pair, memory = self.inner.place(x, fixed, own, list(rest[end:]))
        return x, code, pair, *memory


class _Last(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Tensor) -> Tensor:
        showers: Tensor = self.module.outward(self.module.inner.end(*given))
        return showers


def sentence_graph(module: Any, example: tuple[Tensor, ...]) -> ModelProto:
    """The graph of a module whose `inner` is a `Sentence`, of its inputs' `example` (B, ...).

    The module says how its inputs become conditions and noise (`inward`) and what becomes of
    showers (`outward`).
    """
    from torch.export import Dim

    inner, batch = module.inner, {0: Dim("batch")}
    left, energies, x, fixed, own, memory = inner.begin(*module.inward(*example))
    names = [[f"{kind}{k}" for k in range(len(values))] for kind, values in
             (("fixed", fixed), ("own", own), ("memory", memory))]  # fmt: skip
    names[1] = [f"{name}#" for name in names[1]]
    first = graph_of(
        _First(module), example, ["conditions", "noise"][: len(example)],
        ["given", "left", "energies", "x", *names[0], *names[1], *names[2]],
        (tuple(batch for _ in example),),
    )  # fmt: skip
    own = [part.chunk(inner.places, dim=1)[0] for part in own]
    memory = [torch.cat([part.new_zeros(part.shape[0], part.shape[1], 3, part.shape[3]), part], 2)
              for part in memory]  # fmt: skip
    later = batch | {2: Dim("seen")}
    link = graph_of(
        _Link(inner, (len(fixed), len(own))),
        (x, *fixed, *own, *memory),
        ["x", *names[0], *names[1], *names[2]],
        ["next_x", "code#", "pair#", *(f"next_{name}" for name in names[2])],
        (batch, (*(batch for _ in fixed), *(batch if part.shape[0] > 1 else {} for part in own),
                 *(later for _ in memory))),
    )  # fmt: skip
    b, n = x.shape[0], inner.places
    conditions = module.inward(*example)[0]
    told = x.new_zeros(b, 3 * n if inner.layers else 0)
    given = (conditions, left, energies, torch.zeros(b, n, dtype=torch.long), told)
    last = graph_of(
        _Last(module), given, ["given", "left", "energies", "code#", "pair#"], ["showers"],
        (tuple(batch for _ in given),),
    )  # fmt: skip
    return chained(first, link, last, n)
