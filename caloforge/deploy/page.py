"""Exported models in a page: one HTML file in which a browser makes showers, without a network.

The page carries the ONNX files (target `plain`), ONNX Runtime Web (MIT, its WebAssembly build, here
on one thread) and scripts of our own for the controls and the drawing. Binary parts are compressed
by gzip, written in base64 and unpacked by the browser. A policy in its head (W3C Content Security
Policy, level 3) forbids the page every connection, so it works from disk and sends nothing. The
runtime comes with the package: `web/onnxruntime/README.md` says which files, from where and under
which licences.
"""

from __future__ import annotations

import base64
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caloforge import __version__
from caloforge.detector.detector import Detector, parse_detector
from caloforge.errors import RequestError
from caloforge.files import atomic_path

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["write_page"]

_WEB = Path(__file__).with_name("web")
_RUNTIME = _WEB / "onnxruntime"
_KEYS = (
    "caloforge", "target", "detector", "n_r", "n_phi", "n_z", "cell_r_mm", "cell_z_mm", "noise",
    "energy_min_mev", "energy_max_mev", "theta_min", "theta_max", "pdg", "units",
)  # fmt: skip
_REMEDY = "export it with caloforge, format onnx, target plain"


@dataclass(frozen=True)
class _Exported:
    """An exported file: its bytes, its detector and its metadata (MeV, mm, rad)."""

    path: Path
    content: bytes
    detector: Detector
    metadata: dict[str, str]


def write_page(files: Sequence[Path], out: Path) -> Path:
    """Write a page in which the models of `files` make showers, and return its path.

    `files` are ONNX exports of target `plain`, one or several detectors; lengths, energies and
    angles in them are in mm, MeV and rad. The same files give the same page, byte by byte. Raises
    `RequestError` for a file that is missing, is no such export, or would be overwritten, and
    where `onnx` is not installed.
    """
    if not files:
        raise RequestError("no model for the page: name one or several ONNX files")
    if any(out.resolve() == file.resolve() for file in files):
        raise RequestError(f"the page would overwrite the model '{out}'; choose another --out")
    exported = [_read(Path(file)) for file in files]
    with atomic_path(out) as sibling:
        sibling.write_text(_rendered(exported), encoding="utf-8")
    return out


# --- what comes in ----------------------------------------------------------------------------


def _read(path: Path) -> _Exported:
    """Read one export; raises `RequestError` where it does not keep the contract."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"cannot read '{path}': {reason}; {_REMEDY}") from None
    model = _parsed(path, content)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise RequestError(f"'{path}' has no metadata of caloforge ({missing[0]}); {_REMEDY}")
    if metadata["target"] != "plain":
        raise RequestError(f"'{path}' is of target {metadata['target']}; {_REMEDY}")
    ends = {end.name for end in (*model.graph.input, *model.graph.output)}
    if not {"conditions", "noise", "showers"} <= ends:
        raise RequestError(f"'{path}' lacks conditions, noise or showers; {_REMEDY}")
    if any(weight.external_data for weight in model.graph.initializer):
        raise RequestError(f"'{path}' keeps its weights in another file; {_REMEDY}")
    return _Exported(path, content, parse_detector(metadata["detector"], str(path)), metadata)


def _parsed(path: Path, content: bytes) -> ModelProto:
    try:
        import onnx
    except ImportError:
        raise RequestError(
            "reading ONNX needs the package onnx: pip install 'caloforge[export]'"
        ) from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's DecodeError, of a package without types
        raise RequestError(f"'{path}' is no ONNX file; {_REMEDY}") from None
    if not model.graph.node:
        raise RequestError(f"'{path}' is no ONNX file; {_REMEDY}")
    return model


# --- what goes out ----------------------------------------------------------------------------


def _rendered(exported: Sequence[_Exported]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(_text("page.html.j2"))
    names = Counter(model.detector.name for model in exported)
    about = [_about(model, names[model.detector.name] > 1) for model in exported]
    # Safe: the style and the script are ours, and in JSON no tag can be closed.
    inlined = json.dumps({"models": about}, ensure_ascii=False).replace("<", "\\u003c")
    return template.render(
        version=__version__,
        detectors=", ".join(sorted(names)),
        about=Markup(inlined),
        style=Markup(_text("page.css")),
        script=Markup(_text("drawing.js") + _text("page.js")),
        licence=(_RUNTIME / "LICENSE.txt").read_text(encoding="utf-8"),
        parts={
            "notices": _packed(_unpacked("ThirdPartyNotices.txt.xz")),
            "runtime": _packed((_RUNTIME / "ort.wasm.bundle.min.mjs").read_bytes()),
            "wasm": _packed(_unpacked("ort-wasm-simd-threaded.wasm.xz")),
            **{f"model-{k}": _packed(model.content) for k, model in enumerate(exported)},
        },
    )


def _about(model: _Exported, ambiguous: bool) -> dict[str, Any]:
    """What the script has to know of a model: plain numbers, MeV, mm and rad."""
    known, name = model.metadata, model.detector.name
    try:
        return {
            "name": f"{name} ({model.path.stem})" if ambiguous else name,
            "built": _built(model.detector),
            "shape": [int(known[key]) for key in ("n_r", "n_phi", "n_z")],
            "cell": [float(known[key]) for key in ("cell_r_mm", "cell_z_mm")],
            "noise": int(known["noise"]),
            "energy": [float(known[key]) for key in ("energy_min_mev", "energy_max_mev")],
            "theta": [float(known[key]) for key in ("theta_min", "theta_max")],
            "pdg": [int(code) for code in known["pdg"].split(",")],
        }
    except ValueError as error:
        raise RequestError(f"'{model.path}' has odd metadata: {error}; {_REMEDY}") from None


def _built(detector: Detector) -> str:
    """Describe the stack in a line, thicknesses in mm; empty for a detector that has none."""
    stack = detector.stack
    if stack is None:
        return ""
    layers = [layer for layer in (stack.absorber, stack.active) if layer is not None]
    parts = " + ".join(
        f"{layer.thickness_mm:g} mm {layer.material.removeprefix('G4_')}" for layer in layers
    )
    return f"{stack.layers} layers of {parts}"


def _text(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")


def _unpacked(name: str) -> bytes:
    """A file of the runtime, which the package keeps by xz: half the size of gzip."""
    return lzma.decompress((_RUNTIME / name).read_bytes())


def _packed(content: bytes) -> str:
    """Compress by gzip, which browsers unpack, and write in base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")
