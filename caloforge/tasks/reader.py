"""A saved answer to a question: a folder with `model.safetensors`, `config.json` and `card.md`.

It holds the head, and the network where that was tuned; a frozen backbone is named, with the hash
of its weights, and looked up when the folder is opened. Nothing in it is executed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from caloforge.errors import RequestError
from caloforge.files import atomic_path, digest
from caloforge.learn.checkpoint import Model, load_model, model_folder
from caloforge.showers.showers import Showers
from caloforge.tasks.features import SCALARS, View, cut, features
from caloforge.tasks.forest import Forest
from caloforge.tasks.head import Head, Response, answers
from caloforge.tasks.question import Question

__all__ = ["Reader", "backbone_hash", "load_reader", "save_reader"]

Array = NDArray[Any]
READER_VERSION = 1


@dataclass(frozen=True)
class Reader:
    """A question, the view of a (cut) model, the head on it, and the correction of an energy.

    `backbone`: name or folder of the model; `own`: its weights are part of this (it was tuned);
    `detector`: the detector file's text; `notes`: how it was made and what was measured.
    """

    question: Question
    model: Model
    view: View
    head: Head | Forest
    backbone: str
    own: bool = False
    response: Response | None = None
    detector: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def outputs(self, rows: Array) -> Array:
        """Outputs (N, K) of features (N, F): ln MeV or rad, or logarithms of probabilities."""
        out = answers(self.question, rows, self.head.answer(rows))
        if self.response is not None:
            out = self.response.corrected(out[:, 0])[:, None]
        return out

    def read(self, showers: Showers) -> Array:
        """Outputs (N, K) for N showers, see `outputs`.

        Raises `RequestError` for showers without a detector or on a mesh of other cells.
        """
        return self.outputs(features(self.model, showers, self.view))


def backbone_hash(name: str | Path) -> str:
    """SHA-256 of the weights of a shipped model or a checkpoint folder."""
    return digest(model_folder(name) / "model.safetensors")


def save_reader(reader: Reader, folder: Path, card: str) -> None:
    """Write the folder, its files whole or not at all; raises `RequestError` if it cannot be."""
    tensors = {f"head.{k}": v.contiguous() for k, v in reader.head.state_dict().items()}
    if reader.own:
        state = reader.model.network.state_dict()
        tensors |= {f"network.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
    response = reader.response
    config = {
        "reader_version": READER_VERSION,
        "question": reader.question.to_dict(),
        "view": asdict(reader.view),
        "head": reader.head.to_dict(),
        "backbone": {"name": reader.backbone, "sha256": backbone_hash(reader.backbone),
                     "own_weights": reader.own},
        "response": None if response is None else {"terms": response.terms, "ends": response.ends},
        "detector": reader.detector,
        "notes": reader.notes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as path:
        save_file(tensors, path)
        path.chmod(0o644)
    with atomic_path(folder / "card.md") as path:
        path.write_text(card, "utf-8")
    with atomic_path(folder / "config.json") as path:
        path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def load_reader(folder: Path) -> Reader:
    """Open what `save_reader` wrote.

    Raises `RequestError` if it is none, damaged, of another version, or if the backbone is missing
    or not the one that it was made with.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RequestError(f"'{folder}' is no complete task model: {error}") from None
    if "reader_version" not in config:
        raise RequestError(f"'{folder}' is no task model; make one with 'caloforge task train'")
    if config["reader_version"] != READER_VERSION:
        raise RequestError(f"'{folder}' was written by another version of caloforge; train it anew")
    base = config["backbone"]
    if backbone_hash(base["name"]) != base["sha256"]:
        raise RequestError(f"the model '{base['name']}' has changed since '{folder}' was made from "
                           "it; train it anew")  # fmt: skip
    view, model = View(**config["view"]), load_model(base["name"])
    model = replace(model, network=cut(model.network, view.block))
    head = (Forest if "trees" in config["head"] else Head)(**config["head"])
    parts: dict[str, dict[str, Any]] = {"head": {}, "network": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    try:
        head.load_state_dict(parts["head"])
        if base["own_weights"]:
            model.network.load_state_dict(parts["network"])
    except RuntimeError:
        raise RequestError(f"the weights in '{folder}' do not fit its config.json") from None
    assert head.inputs > SCALARS
    response = config["response"]
    return Reader(
        Question.from_dict(config["question"]), model, view, head.eval(), base["name"],
        base["own_weights"], None if response is None else Response(**response),
        config["detector"], config["notes"],
    )  # fmt: skip
