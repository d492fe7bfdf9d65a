"""A calorimeter as a TOML file: a stack of concentric cylinders, or a GDML geometry, and a mesh.

The file is validated strictly. An unknown key, a negative thickness or an unknown material is an
error that names the line and the remedy, because a typing error that is silently ignored becomes a
wrong detector in somebody's results.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from caloforge.detector.materials import material
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError

__all__ = ["Detector", "Gdml", "Layer", "Stack", "load_detector", "named_detectors",
           "parse_detector"]  # fmt: skip

Length = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Layer(_Strict):
    """A shell of one material, `thickness_mm` thick."""

    material: str
    thickness_mm: Length

    @field_validator("material")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return material(name).name
        except RequestError as error:
            raise ValueError(str(error)) from None


class Stack(_Strict):
    """Concentric cylinders repeated outward: absorber first, then the active layer; mm."""

    inner_radius_mm: Length
    layers: int = Field(ge=1, le=10_000, strict=True)
    absorber: Layer | None = None
    active: Layer

    @property
    def pitch_mm(self) -> float:
        """Thickness of one layer, absorber and active together, in mm."""
        return self.active.thickness_mm + (self.absorber.thickness_mm if self.absorber else 0.0)

    @property
    def depth_mm(self) -> float:
        """Thickness of the whole stack in mm."""
        return self.layers * self.pitch_mm

    @property
    def outer_radius_mm(self) -> float:
        """Outer radius in mm."""
        return self.inner_radius_mm + self.depth_mm


class Gdml(_Strict):
    """A GDML geometry: the file, which volumes are sensitive, and where a primary enters.

    `sensitive` are regular expressions on names of logical volumes; `entrance` names the volume
    at whose surface the mesh frame has its origin.
    """

    file: Path
    sensitive: list[str] = Field(min_length=1)
    entrance: str

    @field_validator("sensitive")
    @classmethod
    def _compiles(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return patterns


class Detector(_Strict):
    """A calorimeter with its readout mesh.

    Either `stack` or `gdml` is needed. When both are given, the GDML drives the simulation and the
    stack only describes the detector to a model.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    stack: Stack | None = None
    gdml: Gdml | None = None
    mesh: Mesh

    @model_validator(mode="after")
    def _has_geometry(self) -> Detector:
        if self.stack is None and self.gdml is None:
            raise ValueError("a [stack] or a [gdml] section is missing; add one of them")
        return self

    def described_stack(self) -> Stack:
        """Return the stack that describes this detector to a model.

        Raises `RequestError` for a GDML detector without one.
        """
        if self.stack is None:
            raise RequestError(
                f"'{self.name}' has no [stack]: add one beside [gdml] that describes it to models"
            )
        return self.stack

    def to_toml(self) -> str:
        """Write the detector as the text of a TOML file, which `parse_detector` reads back."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def named_detectors() -> list[str]:
    """Names of the detectors that ship with the package, sorted."""
    folder = resources.files("caloforge.detector") / "named"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[0] != "_")


def load_detector(name_or_path: str | Path) -> Detector:
    """Open a named detector or a TOML file.

    Raises `RequestError` if neither exists or the file is not valid.
    """
    spec = str(name_or_path)
    if spec in named_detectors():
        text = (resources.files("caloforge.detector") / "named" / f"{spec}.toml").read_text("utf-8")
        return parse_detector(text, spec)
    path = Path(spec)
    if not path.is_file():
        known = ", ".join(named_detectors())
        raise RequestError(
            f"unknown detector '{spec}': no such file, and the named ones are {known}"
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the detector file '{spec}': {error}") from None
    return _anchored(parse_detector(text, spec), path.parent)


def parse_detector(text: str, source: str = "detector") -> Detector:
    """Parse and validate the text of a detector file; `source` names it in errors.

    Raises `RequestError`, in one line with the line number, for anything that is not valid.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{source} is no valid TOML: {error}") from None
    try:
        return Detector.model_validate(data)
    except ValidationError as error:
        raise RequestError(_explain(error, text, source)) from None


def _anchored(detector: Detector, folder: Path) -> Detector:
    """Resolve the GDML file relative to the folder of the detector file."""
    if detector.gdml is None:
        return detector
    path = (folder / detector.gdml.file).resolve()
    if not path.is_file():
        raise RequestError(
            f"'{detector.name}': there is no GDML file '{path}'; correct [gdml] file"
        )
    return detector.model_copy(update={"gdml": detector.gdml.model_copy(update={"file": path})})


def _explain(error: ValidationError, text: str, source: str) -> str:
    """Turn pydantic's first complaint into one line with the place and the remedy."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    line = _line_of(keys, text)
    place = f"{source}, line {line}" if line else source
    return f"{place}: {_complaint(first, '.'.join(keys))}"


def _complaint(first: Any, name: str) -> str:
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        return f"unknown key '{name}'; remove it or correct its spelling"
    if kind == "missing":
        return f"'{name}' is missing; add it"
    if kind == "value_error":
        return f"{name + ': ' if name else ''}{first['ctx']['error']}"
    if kind == "string_pattern_mismatch":
        return f"'{name}' = {given!r} may hold letters, digits, '.', '_', '+' and '-' only"
    return f"'{name}' = {given!r} is not valid: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _line_of(keys: list[str], text: str) -> int | None:
    """Line (from 1) of the deepest of the nested `keys` that can be found in a TOML text."""
    found, section = None, ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            section = header[1].strip()
            if keys and section == keys[0]:
                found = found or number
            continue
        key = re.match(r"\s*([\w-]+)\s*=", line)
        path = ([*section.split(".")] if section else []) + ([key[1]] if key else [])
        if key and path == keys[: len(path)]:
            return number
    return found
