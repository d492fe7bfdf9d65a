"""A trained model is a folder: `model.safetensors`, `config.json`, `card.md`.

The weights hold the network and the fitted preprocessing together (prefixes ``network.`` and
``scale.``); the configuration says how to build both and where the model is valid. Nothing in a
checkpoint is executed when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.learn.condition import FEATURE_NAMES
from caloforge.learn.models.family import FAMILIES, family

if TYPE_CHECKING:
    from caloforge.learn.models.diffusion import DiffusionTransformer

__all__ = [
    "Model",
    "ValidRange",
    "diffusion_of",
    "load_model",
    "model_folder",
    "save_model",
    "shipped_models",
]

CHECKPOINT_VERSION = 2


@dataclass(frozen=True)
class ValidRange:
    """Where a model was trained: energy in MeV, theta in rad, PDG codes, and descriptors.

    `descriptors` holds the smallest and largest value of each geometry descriptor, `detectors` the
    names of the detectors.
    """

    energy_mev: tuple[float, float]
    theta: tuple[float, float]
    pdg: tuple[int, ...]
    detectors: tuple[str, ...]
    descriptors: tuple[tuple[float, float], ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ValidRange:
        """Build it from plain values, as they stand in `config.json`."""
        return cls(
            energy_mev=tuple(values["energy_mev"]),
            theta=tuple(values["theta"]),
            pdg=tuple(values["pdg"]),
            detectors=tuple(values["detectors"]),
            descriptors=tuple((low, high) for low, high in values["descriptors"]),
        )


@dataclass(frozen=True)
class Model:
    """A network with its preprocessing, its valid range, and notes on how it was trained.

    The classes of both follow from the family: see `caloforge.learn.models.family`.
    """

    network: Any
    scale: Any
    valid: ValidRange
    notes: dict[str, Any] = field(default_factory=dict)
    family: str = "diffusion"


def diffusion_of(model: Model, name: str) -> DiffusionTransformer:
    """Return the network of a diffusion model; raises `RequestError` for a model of another kind,
    opened as `name`.
    """
    if model.family != "diffusion":
        raise RequestError(f"'{name}' is of kind '{model.family}'; this needs a diffusion model")
    return cast("DiffusionTransformer", model.network)


def shipped_models() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    folder = resources.files("caloforge") / "weights"
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name[0] not in "._")


def save_model(model: Model, folder: Path, *, half: bool = False, card: str = "") -> None:
    """Write a checkpoint folder, whole or not at all; `half` stores weights in 16 bits.

    Raises `RequestError` if it cannot be written there.
    """
    tensors = _tensors(model)
    if half:
        # Scales and offsets carry the absolute energy: they stay in full precision.
        tensors = {
            k: v.half() if k.startswith("network.") and v.is_floating_point() else v
            for k, v in tensors.items()
        }
    config = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "model": model.family,
        "network": model.network.config.to_dict(),
        "features": list(FEATURE_NAMES),
        "valid": asdict(model.valid),
        "notes": model.notes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as path:
        save_file(tensors, path)
        path.chmod(0o644)  # safetensors would keep it to its owner
    with atomic_path(folder / "config.json") as path:
        path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    if card:
        with atomic_path(folder / "card.md") as path:
            path.write_text(card, "utf-8")


def load_model(name_or_folder: str | Path) -> Model:
    """Open a shipped model by name, or a checkpoint folder.

    Raises `RequestError` if there is none, or it is damaged or of another version.
    """
    folder = model_folder(name_or_folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RequestError(f"'{folder}' is no complete checkpoint: {error}") from None
    if config.get("checkpoint_version") != CHECKPOINT_VERSION:
        raise RequestError(f"'{folder}' was written by another version of caloforge; train it anew")
    if config["features"] != list(FEATURE_NAMES):
        raise RequestError(f"'{folder}' was trained on other condition features; train it anew")
    if config["model"] not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise RequestError(f"'{folder}' is of unknown kind '{config['model']}'; known are {known}")
    kind = family(config["model"])
    planned = kind.config(config["network"])
    network, scale = kind.network(planned), kind.scale(planned)
    try:
        network.load_state_dict(_part(tensors, "network."))
        scale.load_state_dict(_part(tensors, "scale."))
    except RuntimeError:
        raise RequestError(f"the weights in '{folder}' do not fit its config.json") from None
    scale.requires_grad_(False)
    valid = ValidRange.from_dict(config["valid"])
    return Model(network.eval(), scale, valid, config["notes"], config["model"])


def descriptor_range(table: Tensor) -> tuple[tuple[float, float], ...]:
    """Smallest and largest value of each descriptor in a table (detectors, D)."""
    assert table.shape[1] == len(DESCRIPTOR_NAMES)
    return tuple((float(low), float(high)) for low, high in zip(
        table.amin(0), table.amax(0), strict=True))  # fmt: skip


def _tensors(model: Model) -> dict[str, Tensor]:
    parts = {"network.": model.network.state_dict(), "scale.": model.scale.state_dict()}
    return {
        prefix + name: value.detach().to("cpu").contiguous()
        for prefix, state in parts.items()
        for name, value in state.items()
    }


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v.to(torch.float32) if v.is_floating_point() else v
            for k, v in tensors.items() if k.startswith(prefix)}  # fmt: skip


def model_folder(name_or_folder: str | Path) -> Path:
    """Folder of a shipped model, or of a checkpoint; raises `RequestError` if there is none."""
    if str(name_or_folder) in shipped_models():
        return Path(str(resources.files("caloforge") / "weights" / str(name_or_folder)))
    folder = Path(name_or_folder)
    if (folder / "config.json").is_file():
        return folder
    known = ", ".join(shipped_models()) or "none"
    raise RequestError(f"there is no model '{name_or_folder}'; the shipped ones are {known}, or "
                       "give a checkpoint folder")  # fmt: skip
