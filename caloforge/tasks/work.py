"""From files of showers to a saved answer, and from a saved answer to predictions."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.detector.detector import parse_detector
from caloforge.errors import RequestError
from caloforge.files import atomic_path, claimed_folder
from caloforge.learn.checkpoint import Model, load_model
from caloforge.showers.showers import Showers
from caloforge.tasks.events import LEAST, Deal, deal, read_all
from caloforge.tasks.features import View, features
from caloforge.tasks.methods import FROZEN, METHODS, check_method, learned, sceptics, spread_out
from caloforge.tasks.page import card, headline, page
from caloforge.tasks.question import Question, question_of
from caloforge.tasks.reader import Reader, backbone_hash, load_reader, save_reader
from caloforge.tasks.scores import compared, pairs, score, summary

__all__ = ["Order", "run_task", "train_task"]

Array = NDArray[Any]

# Where a shower begins tells particles apart, and at what slant its layers are cut.
POOLING = {"particle": "front", "theta": "front"}
# What a shower would be likely to be if it were another particle, only a prior says.
BACKBONE = {"particle": "codes"}


@dataclass(frozen=True)
class Order:
    """What is to be learned: `task` (see `QUESTIONS`), by `method` (see `METHODS`), on the features
    of `model`, from `labels` labels (of each class; all by default).

    `model`: by default `BACKBONE`, else ``base``. `block`, `pooling`, `level`: see `View`; by
    default half of the blocks, and `POOLING`.
    `particles`: names by commas; `edges_mev`: bins of energy; `sceptics`: compare with the rest.
    """

    task: str
    method: str = "linear"
    model: str | None = None
    block: int | None = None
    pooling: str | None = None
    level: float = 1.0
    labels: int | None = None
    particles: str | None = None
    edges_mev: tuple[float, ...] | None = None
    sceptics: bool = True
    seed: int = 0

    @property
    def backbone(self) -> str:
        """The model whose features are used."""
        return self.model or BACKBONE.get(self.task, "base")

    def view(self, model: Model) -> View:
        """How `model` looks; raises `RequestError` for what it does not have."""
        half = max(1, len(getattr(model.network, "blocks", ())) // 2)
        block = half if self.block is None else self.block
        pooling = self.pooling or POOLING.get(self.task, "mean+total")
        return View(block, pooling, self.level, self.seed).check(model.network)


def train_task(
    order: Order, data: Sequence[Path], out: Path, test: Sequence[Path] = (), command: str = ""
) -> dict[str, Any]:
    """Learn a task from files of showers, judge it, and write the folder `out`; energies in MeV.

    It holds the task model, its card, `metrics.json`, `report.html`, and the features, which are
    found again by a run that was stopped. Without `test` files a fifth of the data judges. Returns
    what `metrics.json` holds. Raises `RequestError` for what cannot be asked or learned; then
    nothing is written.
    """
    check_method(order.method)
    if (out / "config.json").exists():
        raise RequestError(f"'{out}' holds a model already; name another folder with --out")
    model = load_model(order.backbone)
    view = order.view(model)
    showers, tested = _together(data, test)
    question = question_of(order.task, showers, order.particles, order.edges_mev)
    dealt = deal(question, showers, labels=order.labels, tested=tested, seed=order.seed)
    with claimed_folder(out):
        rows = None
        if order.method in FROZEN:
            rows = _features(order, view, model, showers, dealt, out)
        reader = learned(
            question, showers, dealt, backbone=order.backbone, view=view, method=order.method,
            rows=rows, seed=order.seed, model=model,
        )  # fmt: skip
        judged = showers[dealt.test]
        own = reader.read(judged) if rows is None else reader.outputs(rows[dealt.test])
        named = {f"{order.backbone}, {order.method}": own}
        if order.sceptics:
            named |= sceptics(question, showers, dealt, seed=order.seed)
        return _written(order, question, reader, dealt, judged, named, out, command)


def _together(data: Sequence[Path], test: Sequence[Path]) -> tuple[Showers, int]:
    """All showers, those that only judge last, and how many these are."""
    everything = read_all([*data, *test])
    if not test:
        return everything, 0
    return everything, len(everything) - len(read_all(data))


def _features(
    order: Order, view: View, model: Model, showers: Showers, dealt: Deal, out: Path
) -> Array:
    """Features (N, F) of the showers that are used, from the folder where they are there."""
    used = np.concatenate([dealt.train, dealt.choose, dealt.test])
    said = [backbone_hash(order.backbone), asdict(view), len(showers), used.tolist()]
    digest = hashlib.sha256(json.dumps(said).encode())
    digest.update(showers.deposit.tobytes())
    digest.update(showers.cell.tobytes())
    key, kept = digest.hexdigest(), out / "features.npz"
    if kept.is_file():
        with np.load(kept) as found:
            if str(found["key"]) == key:
                return spread_out(len(showers), used, found["rows"])
    rows = features(model, showers[used], view)
    with atomic_path(kept) as path, path.open("wb") as stream:
        np.savez(stream, key=np.array(key), rows=rows)
    return spread_out(len(showers), used, rows)


def _written(
    order: Order, question: Question, reader: Reader, dealt: Deal, judged: Showers,
    named: dict[str, Array], out: Path, command: str,
) -> dict[str, Any]:  # fmt: skip
    target, energy = question.target(judged), judged.energy.astype(float)
    scores = {name: score(question, o, target, energy, order.seed) for name, o in named.items()}
    parts = {name: summary(question, o, target, energy) for name, o in named.items()}
    own = next(iter(named))
    ratios = {
        name: asdict(compared(question, part, parts[own], order.seed))
        for name, part in parts.items()
        if name != own
    }
    rocs = {n: pairs(question, o, target, order.seed) for n, o in named.items()
            if question.classes}  # fmt: skip
    notes = {
        "method": f"{order.method} ({METHODS[order.method]})", "backbone": order.backbone,
        "view": f"after block {reader.view.block}, pooling {reader.view.pooling}, noise level "
                f"{reader.view.level:g}",
        "detector": judged.detector.name if judged.detector else "",
        "labels": f"{len(dealt.train)} to learn, {len(dealt.choose)} to choose; "
                  f"{len(dealt.test)} showers judge",
        "seed": order.seed, "command": command, "caloforge": __version__,
    }  # fmt: skip
    reader = replace(reader, notes={**reader.notes, **notes})
    record = {
        "question": question.to_dict(), "headline": headline(question, scores[own]),
        "scores": scores, "ratios": ratios, "made": notes,
    }  # fmt: skip
    for name, text in (
        ("metrics.json", json.dumps(record, indent=1) + "\n"),
        ("report.html", page(question, scores, ratios, rocs, notes)),
    ):
        with atomic_path(out / name) as path:
            path.write_text(text, "utf-8")
    save_reader(reader, out, card(question, scores, ratios, notes))
    return record


# --- predictions --------------------------------------------------------------------------------


def run_task(folder: Path, data: Path, out: Path) -> dict[str, Any]:
    """Answer the question of a task model for every shower of a file, into a .csv or .h5 file.

    Energies are written in GeV, theta in rad, classes with their probabilities. Where the file says
    the truth, the answers are judged by it. Raises `RequestError` for a file that does not fit.
    """
    if out.suffix not in (".csv", ".h5"):
        raise RequestError(f"predictions are written to a .csv or .h5 file, not to '{out.name}'")
    reader = load_reader(folder)
    showers = read_all([data])
    _check_detector(reader, showers, folder)
    found = reader.read(showers)
    columns = _columns(reader.question, found)
    with claimed_folder(out.absolute().parent), atomic_path(out) as path:
        (_write_csv if out.suffix == ".csv" else _write_hdf5)(path, columns)
    result: dict[str, Any] = {"file": str(out), "showers": len(showers),
                              "columns": list(columns)}  # fmt: skip
    target = reader.question.target(showers)
    known = np.flatnonzero(target != -1)
    if reader.question.name == "theta" and np.ptp(showers.theta) < 1e-6:
        known = known[:0]  # a dialect without angles
    if len(known) >= LEAST:
        energy = showers.energy[known].astype(float)
        said = score(reader.question, found[known], target[known], energy)
        result |= {"headline": headline(reader.question, said), "score": said}
    return result


def _check_detector(reader: Reader, showers: Showers, folder: Path) -> None:
    known, given = parse_detector(reader.detector), showers.detector
    assert given is not None
    if (known.stack, known.mesh, known.gdml) != (given.stack, given.mesh, given.gdml):
        raise RequestError(f"'{folder}' was taught with '{known.name}', the showers are of "
                           f"'{given.name}'; train it for that detector")  # fmt: skip


def _columns(question: Question, found: Array) -> dict[str, Array]:
    if question.name == "energy":
        return {"energy_GeV": np.exp(found[:, 0]) / 1e3}
    if question.name == "theta":
        return {"theta_rad": found[:, 0]}
    names = np.array(question.classes)
    return {question.name: names[found.argmax(axis=1)],
            **{f"p({n})": np.exp(found[:, k]) for k, n in enumerate(names)}}  # fmt: skip


def _write_csv(path: Path, columns: dict[str, Array]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            rows.writerow([v if isinstance(v, str) else f"{v:.6g}" for v in row])


def _write_hdf5(path: Path, columns: dict[str, Array]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            text = values.dtype.kind == "U"
            file.create_dataset(name, data=values.astype(object) if text else values,
                                dtype=h5py.string_dtype() if text else np.float64)  # fmt: skip
