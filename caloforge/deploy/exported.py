"""A model that was exported as ONNX (target ``plain``), used as any C++ program would use it.

The file takes ``conditions`` float32 (B, 4), kinetic energy in MeV, theta and phi in rad, PDG code,
and ``noise`` float32 (B, M), standard normal numbers of the caller's engine; it gives ``showers``
float32 (B, R, PHI, Z), raw visible energy in MeV. Its metadata say for which detector and which
range it was made. It runs in ONNX Runtime on one thread, without torch. The noise of a shower comes
from its own seed (Philox, Salmon et al., doi:10.1145/2063384.2063405).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.detector.detector import Detector, parse_detector
from caloforge.errors import RequestError, WorkError
from caloforge.files import digest
from caloforge.simulate.beam import Primaries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from caloforge.showers.showers import Showers

__all__ = ["Exported", "ExportedRange", "noise"]


@dataclass(frozen=True)
class ExportedRange:
    """Where an exported model may be used: energy in MeV, theta in rad, PDG codes."""

    energy_mev: tuple[float, float]
    theta: tuple[float, float]
    pdg: tuple[int, ...]


class Exported:
    """An exported file, opened.

    Raises `RequestError` if ``onnxruntime`` is not installed, or the file is missing, damaged, or
    no export of target ``plain``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._session = _session(self.path)
        told = dict(self._session.get_modelmeta().custom_metadata_map)
        if told.get("target") != "plain":
            raise RequestError(
                f"'{path}' is no export of target 'plain'; make it with 'caloforge export'"
            )
        try:
            self.numbers = int(told["noise"])
            self.detector = parse_detector(told["detector"], str(path))
            self.valid = ExportedRange(
                (float(told["energy_min_mev"]), float(told["energy_max_mev"])),
                (float(told["theta_min"]), float(told["theta_max"])),
                tuple(int(code) for code in told["pdg"].split(",")),
            )
        except (KeyError, ValueError) as error:
            raise RequestError(f"the metadata of '{path}' lack {error}; export it anew") from None
        self.info: dict[str, Any] = {"model": str(path), "model_sha256": digest(self.path),
                                     "exported_by": told.get("caloforge", "?")}  # fmt: skip

    def check(self, detector: Detector, extrapolate: bool) -> None:
        """Raise `RequestError` for another mesh, and another detector unless `extrapolate`."""
        own = self.detector
        if detector.mesh.shape != own.mesh.shape:
            raise RequestError(
                f"the mesh of '{detector.name}', {detector.mesh.shape} cells, does not fit "
                f"'{self.path}', which was exported for {own.mesh.shape}; export it for yours"
            )
        if not extrapolate and (detector.stack, detector.mesh) != (own.stack, own.mesh):
            raise RequestError(
                f"'{self.path}' was exported for '{own.name}', not for '{detector.name}'; export "
                "the model for it, or add --extrapolate"
            )

    def make(self, detector: Detector, primaries: Primaries) -> Showers:
        """Make the showers of N particles in one call.

        Raises `WorkError` if the file gives no showers.
        """
        from caloforge.showers.showers import Showers

        p = primaries
        given = np.stack([p.energy, p.theta, p.phi, p.pdg.astype(np.float32)], axis=1)
        fed = {"conditions": given.astype(np.float32), "noise": noise(p.seed, self.numbers)}
        try:
            (voxels,) = self._session.run(["showers"], fed)
            return Showers.from_dense(
                voxels, mesh=detector.mesh, energy=p.energy, theta=p.theta, phi=p.phi, pdg=p.pdg,
                seed=p.seed, detector=detector, provenance=self.info,
            )  # fmt: skip
        except Exception as error:
            raise WorkError(f"'{self.path}' made no showers: {error}") from None


def noise(seeds: NDArray[np.uint64], numbers: int) -> NDArray[np.float32]:
    """Standard normal numbers (B, M) without unit, each row from its own seed (B,)."""
    streams = (np.random.Generator(np.random.Philox(key=int(seed))) for seed in seeds)
    return np.stack([stream.standard_normal(numbers, np.float32) for stream in streams])


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise RequestError(
            "onnxruntime is not installed: pip install 'caloforge[export]'"
        ) from None
    if not path.is_file():
        raise RequestError(f"there is no model '{path}'; correct the path")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has an exception of its own for each kind of damage
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"'{path}' is no ONNX model that can be run: {reason}") from None
