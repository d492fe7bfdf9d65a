"""From a trained model and conditions to showers, in batches, reproducibly.

Every shower has a seed of its own, from which its noise is drawn; a shower therefore does not
depend on the batch in which it is made. Outside the range in which the model was trained a request
is refused, unless the caller insists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from caloforge import __version__
from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError
from caloforge.files import claimed_folder
from caloforge.learn.checkpoint import Model, ValidRange, load_model
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.family import Manner, family
from caloforge.learn.noise import Noise
from caloforge.learn.reach import outside
from caloforge.progress import progress
from caloforge.showers.formats import DIALECTS, open_showers, write_showers
from caloforge.showers.native import ShowerSource, ShowerWriter, blocks
from caloforge.showers.showers import Showers, concatenate
from caloforge.simulate.beam import Beam, Primaries, event_seeds

__all__ = ["Generator", "check_detector", "check_mesh", "check_range", "generate_file"]

MOST_SHOWERS = 10**7


@dataclass(frozen=True)
class Generator:
    """A trained model, ready to generate; `name` is what it was opened by."""

    model: Model
    name: str

    @classmethod
    def load(cls, name_or_folder: str | Path, device: str = "auto") -> Generator:
        """Open a shipped model by name or a checkpoint folder; `device` as torch names it.

        Raises `RequestError` when there is no such model or device.
        """
        model = load_model(name_or_folder)
        where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model.network.to(where)
            model.scale.to(where)
        except (RuntimeError, AssertionError) as error:
            raise RequestError(f"device '{where}' cannot be used: {error}") from None
        return cls(model, str(name_or_folder))

    def generate(
        self,
        detector: str | Path | Detector,
        energy: ArrayLike,
        theta: ArrayLike = np.pi / 2,
        phi: ArrayLike = 0.0,
        n: int = 1,
        *,
        pdg: ArrayLike = 11,
        seed: int = 0,
        batch: int = 64,
        extrapolate: bool = False,
        **manner: Any,
    ) -> Showers:
        """Generate n showers.

        energy in MeV, theta and phi in rad, pdg: one value for all or (n,) each. The same seed
        gives the same showers, whatever `batch`. `manner`: fields of
        `caloforge.learn.models.family.Manner`, such as ``steps=2``. `leakage` is not modelled and
        is 0. Raises `RequestError` outside the valid range, unless `extrapolate`, and for a manner
        in which the model cannot be drawn.
        """
        primaries = Primaries(
            energy=np.broadcast_to(np.asarray(energy, np.float32), (n,)),
            theta=np.broadcast_to(np.asarray(theta, np.float32), (n,)),
            phi=np.broadcast_to(np.asarray(phi, np.float32), (n,)),
            pdg=np.broadcast_to(np.asarray(pdg, np.int32), (n,)),
            seed=event_seeds(seed, 0, n),
        )
        which = detector if isinstance(detector, Detector) else load_detector(detector)
        asked = Manner(**manner)
        parts = self.stream(which, primaries, asked, batch=batch, extrapolate=extrapolate)
        return concatenate(list(parts))

    def stream(
        self,
        detector: Detector,
        primaries: Primaries,
        manner: Manner | None = None,
        *,
        batch: int = 64,
        extrapolate: bool = False,
    ) -> Iterator[Showers]:
        """Check the request at once, then yield the showers of `primaries` batch by batch.

        Raises `RequestError` like `generate`, and for a mesh that the model does not know.
        """
        kind = family(self.model.family)
        if kind.draw is None:
            raise RequestError(f"'{self.name}' does not generate: {kind.why}")
        settled = kind.settle(self.model, manner or Manner(), self.name)
        self.check(detector, primaries, extrapolate)
        if batch < 1:
            raise RequestError("the number of showers a batch must be at least 1")
        keep_freed_memory()
        said = {name: value for name, value in asdict(settled).items() if value is not None}
        provenance = {
            "caloforge": __version__, "engine": "model", "model": self.name,
            "extrapolate": extrapolate, **said,
        }  # fmt: skip
        return (
            self._draw(detector, primaries[start : start + batch], settled, provenance)
            for start in range(0, len(primaries), batch)
        )

    def told(self, detector: Detector, primaries: Primaries) -> Conditions:
        """Return the conditions of primaries in a detector, on the model's device."""
        number = np.zeros(len(primaries), np.int64)
        given = conditions([detector], number, primaries.energy, primaries.theta, primaries.pdg)
        return given.to(next(self.model.network.parameters()).device)

    def check(self, detector: Detector, primaries: Primaries, extrapolate: bool = False) -> None:
        """Raise `RequestError` for a mesh that the model does not know, and outside its valid range
        unless `extrapolate`.
        """
        check_mesh(self.model, detector)
        if not extrapolate:
            check_range(self.model.valid, detector, primaries)

    @torch.inference_mode()
    def _draw(
        self, detector: Detector, primaries: Primaries, manner: Manner,
        provenance: dict[str, object],
    ) -> Showers:  # fmt: skip
        given, drawn = self.told(detector, primaries), family(self.model.family).draw
        assert drawn is not None
        noise = Noise(primaries.seed, given.energy.device)
        made = drawn(self.model.network, self.model.scale, given, noise, manner)
        return Showers.from_dense(
            made.cpu().numpy(), mesh=detector.mesh, energy=primaries.energy, theta=primaries.theta,
            phi=primaries.phi, pdg=primaries.pdg, seed=primaries.seed, detector=detector,
            provenance=provenance,
        )  # fmt: skip


def check_mesh(model: Model, detector: Detector) -> None:
    """Refuse, with `RequestError`, a detector on a mesh that the model does not know."""
    shape = model.network.config.shape
    if detector.mesh.shape != shape:
        raise RequestError(
            f"the mesh of '{detector.name}', {detector.mesh.shape} cells, does not fit the "
            f"model, which knows {shape}; use such a mesh or train a model for yours"
        )


def check_range(valid: ValidRange, detector: Detector, primaries: Primaries) -> None:
    """Refuse primaries or a detector outside the range in which a model was trained.

    Raises `RequestError` that names the quantity, the range and the way out.
    """
    beyond = outside(valid, primaries)
    quantities = (
        ("energy", primaries.energy / 1e3, np.array(valid.energy_mev) / 1e3, "GeV"),
        ("theta", primaries.theta, np.array(valid.theta), "rad"),
    )
    for name, values, (low, high), unit in quantities:
        if beyond[name].any():
            raise RequestError(
                f"{name} {values.min():.4g} to {values.max():.4g} {unit} is outside the trained "
                f"range, {low:.4g} to {high:.4g} {unit}; stay inside or add --extrapolate"
            )
    if beyond["pdg"].any():
        unknown = primaries.pdg[beyond["pdg"]].min()
        raise RequestError(
            f"the model was not trained on particles with PDG code {unknown}; "
            f"it knows {', '.join(map(str, valid.pdg))}; or add --extrapolate"
        )
    check_detector(valid, detector)


def check_detector(valid: ValidRange, detector: Detector) -> None:
    """Refuse a detector that was not trained on and does not lie among those that were, in every
    descriptor; raises `RequestError` that names it.
    """
    if detector.name in valid.detectors:
        return
    numbers = descriptors(detector)
    for name, value, (low, high) in zip(DESCRIPTOR_NAMES, numbers, valid.descriptors, strict=True):
        margin = 0.05 * (high - low) + 1e-6
        if not low - margin <= value <= high + margin:
            raise RequestError(
                f"'{detector.name}' is unlike every detector the model was trained on: {name} is "
                f"{value:.3g}, trained {low:.3g} to {high:.3g}; train on it or add --extrapolate"
            )


def generate_file(
    model: str | Path,
    out: Path,
    *,
    detector: str | None = None,
    n: int | None = None,
    beam: Beam | None = None,
    like: Path | None = None,
    seed: int = 0,
    manner: Manner | None = None,
    batch: int = 64,
    extrapolate: bool = False,
    dialect: str = "native",
    device: str = "auto",
    command: str = "",
) -> dict[str, Any]:
    """Generate showers into a file, streamed; returns showers, seconds and showers per second.

    The primaries come from `beam`, or from the file `like` (the first n of it, in its order, or all
    of it over and over when n is larger). Raises `RequestError` for what cannot be generated or
    written; then there is no file.
    """
    if dialect not in DIALECTS:
        raise RequestError(f"unknown dialect '{dialect}'; known are {', '.join(DIALECTS)}")
    with claimed_folder(out.absolute().parent):
        generator = Generator.load(model, device)
        which, primaries = _request(detector, n, beam, like, seed)
        drawn = generator.stream(which, primaries, manner, batch=batch, extrapolate=extrapolate)
        began = time.perf_counter()
        _write(drawn, which, len(primaries), out, {"seed": seed, "command": command}, dialect)
    seconds = time.perf_counter() - began
    rate = len(primaries) / seconds
    return {"file": str(out), "showers": len(primaries), "seconds": round(seconds, 3),
            "showers_per_second": round(rate, 2)}  # fmt: skip


def _request(
    detector: str | None, n: int | None, beam: Beam | None, like: Path | None, seed: int
) -> tuple[Detector, Primaries]:
    """Settle the detector and the primaries."""
    if n is not None and not 1 <= n <= MOST_SHOWERS:
        raise RequestError(f"the number of showers must be at least 1 and at most {MOST_SHOWERS}")
    if like is None:
        if detector is None:
            raise RequestError("name a detector with --detector, or a file with --like")
        return load_detector(detector), (beam or Beam()).primaries(seed, 0, n or 100)
    source = open_showers(like)
    try:
        which = load_detector(detector) if detector else source.detector
        if which is None:
            raise RequestError(f"'{like}' does not say its detector; name it with --detector")
        return which, _primaries_like(source, n or len(source), seed)
    finally:
        source.close()


def _primaries_like(source: ShowerSource, n: int, seed: int) -> Primaries:
    """The primaries of a file, over and over until there are n, with fresh seeds."""
    if len(source) == 0:
        raise RequestError("the file of --like holds no showers; give another")
    parts = [Primaries.like(block, seed) for block in blocks(source)]
    index = np.arange(n) % len(source)
    energy, theta, phi, pdg = (
        np.concatenate([getattr(part, name) for part in parts])[index]
        for name in ("energy", "theta", "phi", "pdg")
    )
    return Primaries(energy, theta, phi, pdg, event_seeds(seed, 0, n))


def _write(
    drawn: Iterator[Showers], detector: Detector, n: int, out: Path, noted: dict[str, Any],
    dialect: str,
) -> None:  # fmt: skip
    """Write the showers as they come; other dialects are rewritten from the native one."""
    native = out if dialect == "native" else out.with_name(f".{out.name}.native.{os.getpid()}.tmp")
    try:
        with (
            progress("generate", n, "showers") as advance,
            ShowerWriter(native, detector.mesh, detector) as writer,
        ):
            for showers in drawn:
                writer.append(showers)
                writer.provenance = showers.provenance | noted
                advance(len(showers))
        if dialect != "native":
            source = open_showers(native)
            write_showers(source, out, dialect)
            source.close()
    finally:
        if native != out:
            native.unlink(missing_ok=True)
