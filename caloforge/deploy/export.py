"""From a checkpoint to a file that other programs run: ONNX, or TorchScript for LibTorch.

A file holds one detector, the whole way from conditions to voxels in MeV, and what it is in its
metadata. Targets:

- ``plain``: `conditions` (B, 4), kinetic energy in MeV, theta and phi in rad, PDG code, and `noise`
  (B, M), so that the seed is the caller's; gives (B, R, PHI, Z) in MeV;
- ``par04``: what Geant4's example Par04 loads unmodified (see `par04`): one input (B, 8) for ONNX,
  (8,) for TorchScript; electrons; noise inside; gives GeV;
- ``ddml``: the input of ``par04`` for both formats, MeV: DDML multiplies by nothing.

Every file is run once before it is kept, and compared with torch where the noise is
given.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from caloforge import __version__
from caloforge.deploy import par04
from caloforge.deploy.onecall import OneCall
from caloforge.deploy.onnxfile import whole_graph, write_graph
from caloforge.deploy.sentence import Sentence, sentence_graph
from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError, WorkError
from caloforge.files import atomic_path
from caloforge.generate import check_detector
from caloforge.learn.checkpoint import Model, diffusion_of, load_model
from caloforge.learn.models.process import PROCESSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMATS", "TARGETS", "check_place", "described", "draws_of", "export", "one_call",
    "onnx_runner", "require",
]  # fmt: skip

FORMATS: tuple[str, ...] = ("onnx", "torchscript")
AGREEMENT = 1e-3  # Of the energy of a shower; a voxel at the edge of being filled may differ.


_SAMPLING = DESCRIPTOR_NAMES.index("log_sampling_fraction")


class _Plain(nn.Module):
    """Conditions and noise in, MeV out."""

    def __init__(self, inner: OneCall | Sentence) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Cells (B, R, PHI, Z) from conditions (B, 4) and noise (B, M)."""
        showers: Tensor = self.inner(conditions, noise)
        return showers

    def inward(self, conditions: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Conditions (B, 4) and noise (B, M), as they are handed in."""
        return conditions, noise

    def outward(self, showers: Tensor) -> Tensor:
        """Showers (B, R, PHI, Z), as they are given out."""
        return showers


class _Par04(nn.Module):
    """Eight numbers in, noise inside; `unit` MeV are one of the output's unit.

    (B, 8) to (B, R, PHI, Z), or (8,) to (R PHI Z,) where it is flat.
    """

    def __init__(self, inner: OneCall | Sentence, unit: float, flat: bool) -> None:
        super().__init__()
        self.inner, self.unit, self.flat = inner, unit, flat

    def forward(self, numbers: Tensor) -> Tensor:
        """Cells of showers from eight numbers."""
        return self.outward(self.inner(*self.inward(numbers)))

    def inward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Conditions (B, 4) and noise (B, M) from eight numbers (B, 8)."""
        rows = numbers.reshape(-1, par04.CONDITIONS)
        energy, phi, theta = 1e3 * rows[:, 0], rows[:, 1], rows[:, 2]
        conditions = torch.stack([energy, theta, phi, torch.full_like(energy, 11.0)], dim=1)
        noise = torch.randn(rows.shape[0], self.inner.noise, device=rows.device)
        return conditions, noise

    def outward(self, showers: Tensor) -> Tensor:
        """Showers (B, R, PHI, Z), or flat, in the unit of the file."""
        return (showers.reshape(-1) if self.flat else showers) / self.unit


# Target -> the module around a model, for a format.
TARGETS: Mapping[str, Any] = MappingProxyType(
    {
        "plain": lambda inner, format: _Plain(inner),
        "par04": lambda inner, format: _Par04(inner, 1e3, format == "torchscript"),
        "ddml": lambda inner, format: _Par04(inner, 1.0, False),
    }
)


def export(
    model: str | Path,
    out: Path,
    *,
    detector: str | Path | Detector,
    format: str = "onnx",
    target: str = "plain",
    steps: int | None = None,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """Write a model for one detector to `out`; returns what was written and how well it agrees.

    `steps`: draws of the voxels, the model's own by default. For ``par04`` the macro that uses the
    file is written beside it. Raises `RequestError` for an unknown format or target, a detector
    outside the model's range unless `extrapolate`, and a model that cannot be drawn in few steps;
    `WorkError` if the file does not do what the model does.
    """
    for name, value, known in (("format", format, FORMATS), ("target", target, tuple(TARGETS))):
        if value not in known:
            raise RequestError(f"unknown {name} '{value}'; known are {', '.join(known)}")
    if steps is not None and steps < 1:
        raise RequestError(f"the number of steps must be at least 1, not {steps}")
    require(format)
    check_place(out)
    opened = load_model(model)
    which = detector if isinstance(detector, Detector) else load_detector(detector)
    if not extrapolate:
        check_detector(opened.valid, which)
    inner = one_call(opened, which, steps, str(model))
    module = TARGETS[target](inner, format).eval()
    told = _metadata(opened, which, inner, target)
    with atomic_path(out) as sibling, torch.no_grad():
        if format == "onnx":
            graph = sentence_graph if isinstance(inner, Sentence) else whole_graph
            write_graph(graph(module, _example(inner, target)), told, sibling)
        else:
            _write_torchscript(module, inner, told, sibling)
        run = onnx_runner(sibling) if format == "onnx" else _torch_runner(sibling)
        agreement = _compare(run, inner, target, rank_one=format == "torchscript")
    megabytes = round(out.stat().st_size / 1e6, 2)
    written = {"file": str(out), "format": format, "target": target, "detector": which.name,
               "steps": inner.steps, "noise": inner.noise, "megabytes": megabytes,
               "agreement": agreement}  # fmt: skip
    if target == "par04":
        written["macro"] = str(_write_macro(out, format, which))
    return written


def one_call(
    model: Model, detector: Detector, steps: int | None = None, name: str = "the model"
) -> OneCall | Sentence:
    """A model for one detector as one function of conditions (B, 4) and noise (B, M), for export.

    `steps`: draws of the voxels, the model's own by default. Raises `RequestError` for a model,
    opened as `name`, of a kind or on a mesh that it cannot be made for.
    """
    if model.family == "prior":
        return Sentence(model, detector, steps, name).eval()
    diffusion_of(model, name)
    return OneCall(model, detector, draws_of(model) if steps is None else steps).eval()


def draws_of(model: Model) -> int:
    """Draws of the voxels that a model was made for, or that suit any (a number, no unit)."""
    return model.network.config.calls or PROCESSES["beliefs"].steps


def check_place(out: Path) -> None:
    """Raise `RequestError` if the folder that a file is to be written to is not there."""
    if not out.absolute().parent.is_dir():
        raise RequestError(f"there is no folder '{out.absolute().parent}'; make it first")


def require(format: str) -> None:
    """Raise `RequestError` if a package that writes files of this format is not installed."""
    if format != "onnx":
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"writing ONNX needs the package {error.name}: pip install 'caloforge[export]'"
        ) from None


def _metadata(
    model: Model, detector: Detector, inner: OneCall | Sentence, target: str
) -> dict[str, str]:
    """What the file says of itself; every value is a text, lengths in mm, energies in MeV."""
    return described(model, detector) | {
        "target": target,
        "noise": str(inner.noise if target == "plain" else 0), "steps": str(inner.steps),
        "pdg": ",".join(map(str, model.valid.pdg)) if target == "plain" else "11",
        "units": "GeV mm rad" if target == "par04" else "MeV mm rad",
    }  # fmt: skip


def described(model: Model, detector: Detector) -> dict[str, str]:
    """What every exported file says of itself: the detector, its mesh, where the model is valid.

    Every value is a text; lengths in mm, energies in MeV, angles in rad.
    """
    mesh, valid = detector.mesh, model.valid
    return {
        "caloforge": __version__, "detector": detector.to_toml(),
        "n_r": str(mesh.n_r), "n_phi": str(mesh.n_phi), "n_z": str(mesh.n_z),
        "cell_r_mm": repr(mesh.cell_r_mm), "cell_z_mm": repr(mesh.cell_z_mm),
        "energy_min_mev": repr(valid.energy_mev[0]), "energy_max_mev": repr(valid.energy_mev[1]),
        "theta_min": repr(valid.theta[0]), "theta_max": repr(valid.theta[1]),
    }  # fmt: skip


def _example(inner: OneCall | Sentence, target: str, flat: bool = False) -> tuple[Tensor, ...]:
    """Inputs of three showers (of one where the input is flat)."""
    if target == "plain":
        conditions = torch.tensor([[2e4, 1.5, 0.3, 11], [5e3, 1.2, -2.0, 11], [9e4, 2.0, 3.0, 11]])
        draw = torch.Generator().manual_seed(0)
        return conditions, torch.randn(3, inner.noise, generator=draw)
    rows = [par04.DiffusionInput(e, phi, theta).vector() for e, phi, theta in
            ((20.0, 0.3, 1.5), (5.0, -2.0, 1.2), (90.0, 3.0, 2.0))]  # fmt: skip
    return (torch.tensor(rows[0]) if flat else torch.tensor(rows),)


def _write_torchscript(
    module: nn.Module, inner: OneCall | Sentence, told: dict[str, str], path: Path
) -> None:
    flat = told["target"] == "par04"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what Par04 loads
        example = _example(inner, told["target"], flat)
        script = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        script.save(str(path), _extra_files=told)


def onnx_runner(path: Path) -> Any:
    """Return the ONNX file as a function of tensors (B, ...), which gives an array (B, ...)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> NDArray[np.float32]:
        fed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        found: NDArray[np.float32] = session.run(None, fed)[0]
        return found

    return run


def _torch_runner(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(*inputs: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = script(*inputs).numpy()
        return found

    return run


def _compare(run: Any, inner: OneCall | Sentence, target: str, rank_one: bool) -> float:
    """Largest difference of a shower's voxels, as a share of its energy; 0 where noise is inside.

    Raises `WorkError` if the file does something else than the model.
    """
    inputs = _example(inner, target, rank_one and target == "par04")
    found = run(*inputs)
    if target != "plain":
        unit, again = (1e3 if target == "par04" else 1.0), run(*inputs)
        sums = found.reshape(-1, np.prod(inner.network.config.shape)).sum(1) * unit
        energy = inputs[0].reshape(-1, par04.CONDITIONS)[:, 0].numpy() * 1e3
        share = sums / energy / np.exp(inner.table[0, _SAMPLING].item())
        if np.array_equal(found, again) or not ((share > 0.2) & (share < 5)).all():
            raise WorkError("the exported file draws no showers of the right energy")
        return 0.0
    wanted = inner(*inputs).numpy()
    one = run(*(value[:1] for value in inputs))
    energy = wanted.sum(axis=(1, 2, 3))
    worst = float((np.abs(found - wanted).sum(axis=(1, 2, 3)) / energy).max())
    alone = float(np.abs(one[0] - found[0]).sum() / energy[0])
    if not max(worst, alone) < AGREEMENT:
        raise WorkError(
            f"the exported file differs from the model by {max(worst, alone):.1e} of a shower"
        )
    return float(f"{worst:.2g}")


def _write_macro(out: Path, format: str, detector: Detector) -> Path:
    path, stack = out.with_suffix(".mac"), detector.described_stack()
    library = "ONNX" if format == "onnx" else "TORCH"
    with atomic_path(path) as sibling:
        text = par04.macro(out.name, library, detector.mesh, (stack.layers, stack.pitch_mm))
        sibling.write_text(text, "utf-8")
    return path
