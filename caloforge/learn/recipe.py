"""A training run as one readable TOML file, validated strictly."""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from caloforge.errors import RequestError
from caloforge.files import read_toml
from caloforge.learn.settings import (
    TABLES,
    BroadcastSettings,
    GraphSettings,
    MaskedViTSettings,
    PriorSettings,
    VaeSettings,
    VoxelSettings,
    VqvaeSettings,
)

__all__ = ["DIAL", "Recipe", "load_recipe", "recipe_of"]

# What follows from the size, for the default mesh: about 20 tokens a parameter (arXiv:2203.15556)
# in all, larger batches for larger networks, and a learning rate that falls with the root of the
# width.
DIAL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "micro": dict(batch=64, steps=6000, learning_rate=5e-3),
        "student": dict(batch=64, steps=15_000, learning_rate=4.5e-3),
        "tiny": dict(batch=64, steps=7500, learning_rate=4.5e-3),
        "slides": dict(batch=64, steps=2500, learning_rate=4e-3),
        "small": dict(batch=64, steps=15_000, learning_rate=4e-3),
        "base": dict(batch=128, steps=7000, learning_rate=3e-3),
        "large": dict(batch=256, steps=10_000, learning_rate=2.5e-3),
    }
)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """What to train, on what, and how long.

    model: the kind, see `caloforge.learn.models.family`; voxels, ...: tables of single kinds, see
    `caloforge.learn.settings`; data: paths or glob patterns of shower files, relative to the
    working directory; size: one of the sizes of the model; process, calls, head, plain, geometry,
    positions: see `DiffusionConfig`;
    start: a shipped model or a checkpoint folder whose weights to begin from; method, rank: what
    of it an adaptation changes (`caloforge.learn.adapt`), and the rank of adapters; masked: share
    of the showers of which some tokens are seen clean and the others have to be found (masked
    modelling); untold: share of the showers whose conditions are withheld (for guidance); steps,
    batch, learning_rate: optimiser steps, showers a step, rate of the optimiser (the size decides
    them where they are not given); warmup: steps of linear warm-up; decay: share of the steps, at
    the end, in which the learning rate falls to zero; weight_decay: of the optimiser; ema: decay
    of the averaged weights a step; inner: steps in a row on one detector, after which the averaged
    weights go the share `outer` of the way to what was learned (Reptile; 0: plain training); clip:
    largest gradient norm; scale_steps: steps of the fit of the preprocessing; precision: one of
    Fabric's or ``auto`` (bfloat16 on a GPU, 32 bits on a CPU); validate_every: steps between
    validation losses; patience: validations without a better one after which a run ends, keeping
    the best weights (0: never, and the last are kept); checkpoint_minutes: minutes between
    checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["diffusion", "vit", "vae", "broadcast", "graph", "vqvae", "prior"] = "diffusion"
    size: Literal["micro", "student", "tiny", "small", "base", "large", "slides"] = "tiny"
    data: list[str] = Field(min_length=1)
    start: str | None = None
    method: Literal["full", "bias", "lora", "head", "energies"] | None = None
    rank: int = Field(default=8, ge=1)
    process: Literal["flow", "edm", "ddpm", "beliefs"] = "flow"
    calls: int = Field(default=0, ge=0, le=64)
    head: Literal["bayes", "noise"] = "bayes"
    plain: bool = False
    geometry: Literal["descriptors", "onehot"] = "descriptors"
    positions: Literal["fixed", "learned"] = "fixed"
    masked: float = Field(default=0.0, ge=0, le=1)
    untold: float = Field(default=0.0, ge=0, lt=1)
    steps: int = Field(ge=1)
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0, le=10)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: int = Field(default=200, ge=0)
    decay: float = Field(default=0.3, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    inner: int = Field(default=0, ge=0)
    outer: float = Field(default=0.5, gt=0, le=1)
    clip: Positive = 1.0
    scale_steps: int = Field(default=2000, ge=1)
    voxels: VoxelSettings | None = None
    vit: MaskedViTSettings | None = None
    vae: VaeSettings | None = None
    broadcast: BroadcastSettings | None = None
    vqvae: VqvaeSettings | None = None
    prior: PriorSettings | None = None
    graph: GraphSettings | None = None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    validate_every: int = Field(default=500, ge=1)
    patience: int = Field(default=0, ge=0)
    checkpoint_minutes: Positive = 3.0
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _dial(cls, values: Any) -> Any:
        """Let the size decide what is not given."""
        if not isinstance(values, dict):
            return values
        return dict(DIAL.get(str(values.get("size", "tiny")), {})) | values

    @model_validator(mode="after")
    def _tables(self) -> Recipe:
        """Refuse tables of other kinds of models, which would be left unread."""
        for name in TABLES:
            read = name == self.model or (name == "voxels" and self.model != "diffusion")
            if getattr(self, name) is not None and not read:
                raise ValueError(f"table [{name}] is not read by model = '{self.model}'")
        return self

    def files(self) -> list[Path]:
        """Return the data files; raises `RequestError` for a pattern that matches none."""
        found: list[Path] = []
        for pattern in self.data:
            matches = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
            if not matches:
                raise RequestError(f"no file matches '{pattern}'; correct 'data' in the recipe")
            found += [Path(match) for match in matches]
        return found


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply changes such as ``steps=100`` (TOML values).

    Raises `RequestError` for a missing file, an unknown key or a value out of range.
    """
    return recipe_of(read_toml(Path(path), "recipe"), changes, str(path))


def recipe_of(values: Mapping[str, Any], changes: Sequence[str], source: str) -> Recipe:
    """Make a recipe of values and changes such as ``steps=100``; `source` is its name in errors.

    Raises `RequestError` for an unknown key or a value out of range.
    """
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for key, value in (_change(text) for text in changes):
        table, _, inner = key.rpartition(".")
        (values.setdefault(table, {}) if table in TABLES else values)[inner or key] = value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            nested = len(first["loc"]) > 1
            asked = TABLES[str(first["loc"][0])] if nested else Recipe
            known = ", ".join(asked.model_fields)
            raise RequestError(f"recipe '{source}': unknown key '{key}'; known: {known}") from None
        place = f"'{key}': " if key else ""
        said = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"recipe '{source}': {place}{said[:1].lower() + said[1:]}") from None


def _change(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise RequestError(f"'--set {text}' is not of the form key=value")
    try:
        return key.strip(), tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
