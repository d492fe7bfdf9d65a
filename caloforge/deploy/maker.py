"""What makes the showers inside an event loop: a trained model, or an exported file.

Inside Geant4 a model is asked for the showers of one event's particles at a time, on one thread of
a processor, and each shower must follow from its own seed. `ShowerMaker` is all that the event loop
knows of it, so a checkpoint and an exported file are used alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from caloforge.errors import RequestError
from caloforge.files import digest
from caloforge.simulate.beam import Primaries

if TYPE_CHECKING:
    from caloforge.detector.detector import Detector
    from caloforge.learn.reach import Reach
    from caloforge.showers.showers import Showers

__all__ = ["ShowerMaker", "Trained", "open_maker"]


class ShowerMaker(Protocol):
    """Makes showers from particles.

    `valid`: where it may be used (MeV, rad); `info`: what its showers depend on, plain values.
    """

    @property
    def valid(self) -> Reach:
        """Where it may be used."""

    @property
    def info(self) -> dict[str, Any]:
        """What its showers depend on, as plain values for settings and provenance."""

    def check(self, detector: Detector, extrapolate: bool) -> None:
        """Raise `RequestError` for a detector that it cannot be used in."""

    def make(self, detector: Detector, primaries: Primaries) -> Showers:
        """Make the showers of N particles, whose seeds they follow from."""


class Trained:
    """A trained model: a shipped one by name, or a checkpoint folder; on one thread.

    `steps` of the sampler, or the model's own. Raises `RequestError` if there is none.
    """

    def __init__(self, model: str | Path, steps: int | None = None) -> None:
        from caloforge.generate import Generator
        from caloforge.learn.checkpoint import model_folder
        from caloforge.learn.models.family import Manner

        self.generator, self.manner = Generator.load(model, "cpu"), Manner(steps)
        files = [model_folder(model) / name for name in ("model.safetensors", "config.json")]
        self.info: dict[str, Any] = {"model": str(model), "model_sha256": digest(*files),
                                     "steps": steps}  # fmt: skip
        self.valid: Reach = self.generator.model.valid

    def check(self, detector: Detector, extrapolate: bool) -> None:
        """Raise `RequestError` for another mesh, and a detector unlike those trained on.

        The latter not with `extrapolate`.
        """
        detector.described_stack()
        primaries = _within(self.valid)
        self.generator.stream(detector, primaries, self.manner, extrapolate=extrapolate)

    def make(self, detector: Detector, primaries: Primaries) -> Showers:
        """Draw the showers of N particles in one batch."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # an event loop has one, and sums depend on their number
        try:
            (showers,) = self.generator.stream(
                detector, primaries, self.manner, batch=len(primaries), extrapolate=True
            )
        finally:
            torch.set_num_threads(threads)
        return showers


def open_maker(model: str | Path, steps: int | None = None) -> ShowerMaker:
    """Open a model: an exported ``.onnx`` file, a shipped model or a checkpoint folder.

    Raises `RequestError` if there is none, or for `steps` with an exported file.
    """
    if Path(model).suffix != ".onnx":
        return Trained(model, steps)
    from caloforge.deploy.exported import Exported

    if steps is not None:
        raise RequestError("the steps of an exported model were fixed when it was exported")
    return Exported(model)


def _within(valid: Reach) -> Primaries:
    """One particle that is inside a range."""
    return Primaries(
        energy=np.array([valid.energy_mev[0]], np.float32),
        theta=np.array([sum(valid.theta) / 2], np.float32), phi=np.zeros(1, np.float32),
        pdg=np.array(valid.pdg[:1], np.int32), seed=np.ones(1, np.uint64),
    )  # fmt: skip
