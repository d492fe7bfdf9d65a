r"""The decoder of a variational autoencoder as a file that Geant4's example Par04 loads.

Par04 draws the latent vector itself, from the generator of Geant4, and hands it over together with
four conditions (`par04.VaeInput`); it multiplies what it gets by the incident energy. The same
seed of Geant4 therefore gives the same showers, unlike with the other type of model. A file is
``onnx``, for any autoencoder, one input (B, L + 4), or ``lwtnn`` (`caloforge.deploy.lwtnn`).
LibTorch is left out: Par04 reads the conditions one place too far there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.deploy import par04
from caloforge.deploy.export import check_place, described, export, onnx_runner, require
from caloforge.deploy.lwtnn import check_dense, folded, write_lwtnn
from caloforge.deploy.onecall import told
from caloforge.deploy.onnxfile import write_onnx
from caloforge.detector.descriptors import descriptors
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError, WorkError
from caloforge.files import atomic_path
from caloforge.generate import check_detector, check_mesh
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.losses import unit

__all__ = ["Decoder", "export_model"]

KINDS = ("vae", "broadcast")
LIBRARIES = {"onnx": "ONNX", "lwtnn": "LWTNN"}
AGREEMENT = 1e-4  # Of the energy of a shower; a cell at the edge of the cut may differ.


class Decoder(nn.Module):
    """A model for one detector as Par04 calls it: its numbers in, fractions of the energy out."""

    table: Tensor

    def __init__(self, model: Model, detector: Detector) -> None:
        super().__init__()
        self.network, self.scale, self.detector = model.network, model.scale, detector
        self.register_buffer("table", torch.from_numpy(descriptors(detector))[None])

    def forward(self, numbers: Tensor) -> Tensor:
        """Cells (B, R, PHI, Z), fractions of the incident energy, from `par04.VaeInput` (B, L + 4).

        The particle is an electron.
        """
        latent = self.network.config.latent
        energy, theta = numbers[:, latent], numbers[:, latent + 1] * (math.pi / 2)
        energy = energy * par04.VAE_ENERGY_MEV
        blank = torch.zeros_like(energy)
        given = told(
            torch.stack([energy, theta, blank, blank + 11.0], 1), self.table, self.detector
        )
        found = self.network.decode(numbers[:, :latent], given)
        if unit(self.network.config.loss):
            # ONNX Runtime's Sigmoid is good to 1e-7, and so many of a primary are a whole cell.
            expected = found._replace(voxels=1 / (1 + (-found.voxels).exp()))
        else:
            expected = found
        mev: Tensor = self.scale.inverse(expected, given)
        return mev / energy[:, None, None, None]


def export_model(
    model: str | Path,
    out: Path,
    *,
    detector: str | Path | Detector,
    format: str = "onnx",
    target: str = "plain",
    steps: int | None = None,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """Write a model of any kind for one detector to `out`; see `caloforge.deploy.export.export`.

    Of an autoencoder it is the decoder, for Par04 only. Raises `RequestError` for what that cannot
    be written as, `WorkError` if the file does not do what the model does.
    """
    opened = load_model(model)
    if opened.family not in KINDS and format != "lwtnn":
        return export(model, out, detector=detector, format=format, target=target, steps=steps,
                      extrapolate=extrapolate)  # fmt: skip
    _check(opened, str(model), out, format, target, steps)
    which = detector if isinstance(detector, Detector) else load_detector(detector)
    check_mesh(opened, which)
    if not extrapolate:
        check_detector(opened.valid, which)
    with atomic_path(out) as sibling, torch.no_grad():
        write = _write_onnx if format == "onnx" else _write_lwtnn
        agreement = write(opened, which, sibling)
    macro, latent = out.with_suffix(".mac"), opened.network.config.latent
    stack = which.described_stack()
    layers = stack.layers, stack.pitch_mm
    with atomic_path(macro) as sibling:
        text = par04.macro(out.name, LIBRARIES[format], which.mesh, layers, latent)
        sibling.write_text(text, "utf-8")
    megabytes = round(out.stat().st_size / 1e6, 2)
    return {"file": str(out), "format": format, "target": target, "detector": which.name,
            "latent": latent, "megabytes": megabytes, "agreement": float(f"{agreement:.2g}"),
            "macro": str(macro)}  # fmt: skip


def _check(model: Model, name: str, out: Path, format: str, target: str, steps: int | None) -> None:
    if format == "lwtnn":
        check_dense(model, name)
    if format not in LIBRARIES:
        raise RequestError(
            f"the decoder of '{name}' is written as {' or '.join(LIBRARIES)}, not '{format}'; "
            "Par04 hands a decoder in LibTorch its conditions in wrong places"
        )
    if target != "par04":
        raise RequestError(
            f"'{name}' is of kind '{model.family}', which is exported for Par04 only; add "
            "--target par04"
        )
    if steps is not None:
        raise RequestError(f"'{name}' is drawn in one call; leave out --steps")
    require(format)
    check_place(out)


def _metadata(model: Model, detector: Detector) -> dict[str, str]:
    """What a file says of itself; every value is a text, lengths in mm, energies in MeV."""
    return described(model, detector) | {
        "target": "par04",
        "latent": str(model.network.config.latent),
        "pdg": "11",
        "units": "fraction of the incident energy",
    }


def _example(latent: int) -> Tensor:
    """Numbers of three showers (3, L + 4)."""
    z = torch.randn(3, latent, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [par04.VaeInput(tuple(row), energy, theta).vector() for row, energy, theta in
            zip(z, (2e4, 5e3, 9e4), (1.5, 1.2, 2.0), strict=True)]  # fmt: skip
    return torch.tensor(rows)


def _write_onnx(model: Model, detector: Detector, path: Path) -> float:
    module, example = Decoder(model, detector).eval(), _example(model.network.config.latent)
    write_onnx(module, (example,), _metadata(model, detector), path)
    return _agreement(onnx_runner(path)(example), module(example).numpy())


def _write_lwtnn(model: Model, detector: Detector, path: Path) -> float:
    module, example = Decoder(model, detector).eval(), _example(model.network.config.latent)
    decoder = folded(model, detector)
    write_lwtnn(decoder, _metadata(model, detector), path)
    found, wanted = decoder(example.double().numpy()), module(example).numpy()
    # Par04 drops what is below the cut; the module has dropped it already.
    return _agreement(np.where(wanted.reshape(found.shape) > 0, found, 0.0), wanted)


def _agreement(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Largest difference of a shower (B, ...) as a share of it, no unit."""
    found, wanted = (x.reshape(len(x), -1) for x in (found, wanted))
    worst = float((np.abs(found - wanted).sum(1) / wanted.sum(1).clip(1e-30)).max())
    if not worst < AGREEMENT:
        raise WorkError(f"the exported file differs from the model by {worst:.1e} of a shower")
    return worst
