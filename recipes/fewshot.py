"""The few-shot curves of docs/tasks.md: a task, from few labels to many, by every method.

    python recipes/fewshot.py TASK --data GEANT4.h5 ... --test OTHER.h5 ... --out runs/fewshot
        [--models base untrained FOLDER ...] [--blocks 1 3 6] [--poolings mean+total] [--levels 1]
        [--methods linear mlp tuned scratch sceptics] [--labels 100 1000 20000] [--seeds 0 1 2]
        [--particles e-,gamma] [--table]

A row is one answer: (task, particles, method, model, view, labels, seed). What is in ``rows.jsonl``
is not done again, so a run that was stopped goes on; features are computed once and kept beside it.
``untrained`` is the network of `base` with random weights, ``inputs`` no network at all: a linear
layer on what the networks are shown of the energies (method ``linear`` only). ``scratch`` and
``sceptics`` do not depend on the model and are done once. ``denoising`` needs no labels (give
``--labels 0``): the class under which the model denoises the first 1,000 judging showers best;
``likelihood`` likewise: the class under which a prior takes all judging showers for likeliest.
``--table`` prints Markdown: means over seeds, errors of the bootstrap over showers and of the
spread over seeds in quadrature, and the ratio to the linear head of the first model with the same
labels on the same showers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.memory import keep_freed_memory
from caloforge.showers.showers import Showers
from caloforge.tasks.baselines import shower_features
from caloforge.tasks.blind import Blind
from caloforge.tasks.denoising import denoising_losses, preferred
from caloforge.tasks.events import Deal, deal, read_all
from caloforge.tasks.features import View, features, glances, scalars
from caloforge.tasks.head import Lesson, answers, fit_linear
from caloforge.tasks.likelihood import log_likelihoods
from caloforge.tasks.methods import FROZEN, learned, response_of, sceptics
from caloforge.tasks.question import Question, question_of
from caloforge.tasks.scores import compared, score, summary
from caloforge.tasks.tuning import fresh

DENOISED, LEVELS = 1000, 4


@dataclass(frozen=True)
class Row:
    """One answer: what was asked, of how many labels, by which method, on which features."""

    task: str
    method: str
    model: str
    block: int
    pooling: str
    level: float
    labels: int
    seed: int
    particles: str

    @property
    def key(self) -> str:
        """What it is called on disk."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["base"])
    parser.add_argument("--blocks", type=int, nargs="+", default=[3])
    parser.add_argument("--poolings", nargs="+", default=["mean+total"])
    parser.add_argument("--levels", type=float, nargs="+", default=[1.0])
    parser.add_argument("--methods", nargs="+", default=["linear", "mlp", "sceptics"])
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--particles")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not asked.table:
        keep_freed_memory()
        torch.set_num_threads(1)
        study(asked)
    print(table(asked.out))


def study(asked: argparse.Namespace) -> None:
    showers = read_all([*asked.data, *asked.test])
    tested = len(showers) - len(read_all(asked.data)) if asked.test else 0
    question = question_of(asked.task, showers, asked.particles)
    files = hashlib.sha256(showers.deposit.tobytes()).hexdigest()[:8]
    for row in rows_of(asked):
        if row.key in done(asked.out):
            continue
        dealt = deal(question, showers, labels=row.labels or None, tested=tested, seed=row.seed)
        if row.method == "denoising":
            dealt = replace(dealt, test=dealt.test[:DENOISED])
        began = time.process_time()
        for name, out in answered(row, question, showers, dealt, asked.out, files).items():
            record(asked.out, row, name, question, showers, dealt, out, began)


def rows_of(asked: argparse.Namespace) -> list[Row]:
    rows = []
    for seed in asked.seeds:
        for labels in asked.labels:
            for method in asked.methods:
                alone = method in ("scratch", "sceptics")
                for model in asked.models[: 1 if alone else None]:
                    if model == "inputs" and method != "linear":
                        continue
                    one = method in ("sceptics", "denoising", "likelihood") or model == "inputs"
                    views = [
                        (b, p, t)
                        for b in asked.blocks
                        for p in asked.poolings
                        for t in asked.levels
                    ][: 1 if one else None]
                    rows += [
                        Row(asked.task, method, "" if alone else model, *view, labels, seed,
                            asked.particles or "")
                        for view in views
                    ]  # fmt: skip
    return rows


def answered(
    row: Row, question: Question, showers: Showers, dealt: Deal, out: Path, files: str
) -> dict[str, np.ndarray]:
    """Outputs for the showers that judge, by name of the method."""
    view = View(row.block, row.pooling, row.level)
    if row.method == "sceptics":
        rows = kept(out / f"showers-{files}.npy", lambda: shower_features(showers))
        return sceptics(question, showers, dealt, seed=row.seed, rows=rows)
    if row.model == "inputs":
        rows = kept(out / f"inputs-{files}.npy", lambda: inputs(load_model("base"), showers))
        return {row.method: linear(question, showers, dealt, rows)}
    if row.method == "denoising":
        losses = denoising_losses(
            load_model(row.model), showers[dealt.test], question.codes, levels=LEVELS
        )
        return {
            "denoising": preferred(losses),
            "denoising, energies": preferred(losses[:, :, :1]),
            "denoising, voxels": preferred(losses[:, :, 1:]),
        }
    if row.method == "likelihood":
        return {"likelihood": likelihood(load_model(row.model), showers[dealt.test], question)}
    model = load_model("base" if row.model in ("", "untrained") else row.model)
    if row.model == "untrained":
        model = fresh(model, 0)
    judged = showers[dealt.test]
    rows = None
    if row.method in FROZEN:
        name = hashlib.sha256(f"{row.model}/{view}/{files}".encode()).hexdigest()[:12]
        rows = kept(out / f"features-{name}.npy", lambda: features(model, showers, view))
    reader = learned(
        question, showers, dealt, backbone="base", view=view, method=row.method, rows=rows,
        seed=row.seed, model=model,
    )  # fmt: skip
    return {row.method: reader.read(judged) if rows is None else reader.outputs(rows[dealt.test])}


def likelihood(model: Model, showers: Showers, question: Question) -> np.ndarray:
    """Logarithms (N, C) of the likelihood of the classes."""
    assert showers.detector is not None
    blind = Blind(model.scale, showers.detector, torch.device("cpu"))
    return np.concatenate([
        log_likelihoods(model, voxels, blind(voxels), question.codes)
        for voxels in glances(showers, torch.device("cpu"))
    ])  # fmt: skip


def inputs(model: Model, showers: Showers) -> np.ndarray:
    """What a network is shown of the energies, whitened (N, 3 + K), without a network."""
    assert showers.detector is not None
    blind, rows = Blind(model.scale, showers.detector, torch.device("cpu")), []
    for voxels in glances(showers, torch.device("cpu")):
        given = blind(voxels)
        rows.append(torch.cat([scalars(given), model.scale(voxels, given).energies], dim=1).numpy())
    return np.concatenate(rows)


def linear(question: Question, showers: Showers, dealt: Deal, rows: np.ndarray) -> np.ndarray:
    target = question.target(showers)
    lessons = [Lesson.of(question, rows[p], target[p]) for p in (dealt.train, dealt.choose)]
    head = fit_linear(question, *lessons)
    found = [answers(question, rows[p], head.answer(rows[p])) for p in (dealt.choose, dealt.test)]
    if question.name != "energy":
        return found[1]
    fit = response_of(found[0][:, 0], target[dealt.choose], rows[dealt.choose])
    return fit.corrected(found[1][:, 0])[:, None]


def kept(path: Path, make: Any) -> np.ndarray:
    """Read an array, or make it and keep it."""
    if not path.is_file():
        values = make()
        with path.with_suffix(".tmp").open("wb") as stream:
            np.save(stream, values)
        path.with_suffix(".tmp").replace(path)
    return np.load(path)


def done(out: Path) -> set[str]:
    return {line["key"] for line in lines(out)}


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / "rows.jsonl"
    found = map(json.loads, path.read_text().splitlines() if path.is_file() else ())
    return list({(line["key"], line["method"]): line for line in found}.values())


def record(
    out: Path, row: Row, name: str, question: Question, showers: Showers, dealt: Deal,
    found: np.ndarray, began: float,
) -> None:  # fmt: skip
    target, energy = question.target(showers)[dealt.test], showers.energy[dealt.test].astype(float)
    said = score(question, found, target, energy)
    parts = summary(question, found, target, energy)
    (out / "answers").mkdir(exist_ok=True)
    np.savez(answers_of(out, row.key, name), parts=parts, out=found, target=target, energy=energy)
    line = {
        "key": row.key, **asdict(row), "method": name, "test": len(dealt.test),
        "cpu_s": round(time.process_time() - began, 1), "question": question.to_dict(),
        "score": said,
    }  # fmt: skip
    with (out / "rows.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    print(name, row.model, row.block, row.pooling, row.level, row.labels, row.seed,
          json.dumps(brief(said)), flush=True)  # fmt: skip


def answers_of(out: Path, key: str, method: str) -> Path:
    return out / "answers" / f"{key}-{method.replace(', ', '-').replace(' ', '-')}.npz"


def brief(said: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a table: name to value and error."""
    if "scaled_resolution" in said:
        return {"% sqrt(GeV)": scaled(said["scaled_resolution"], 100)}
    if "resolution_rad" in said:
        return {"rad": scaled(said["resolution_rad"], 1)}
    found = {"right [%]": scaled(said["accuracy"], 100)}
    return found | {f"{p['signal']}/{p['background']}": scaled(p["auc"], 1) for p in said["pairs"]}


def scaled(estimate: dict[str, float], factor: float) -> list[float]:
    return [factor * estimate["value"], factor * estimate["error"]]


def table(out: Path) -> str:
    """Rows as Markdown, a table for each task, means over seeds; see the module."""
    every = lines(out)
    tasks = sorted({(line["task"], line["particles"]) for line in every})
    parts = []
    for task, particles in tasks:
        found = [x for x in every if (x["task"], x["particles"]) == (task, particles)]
        parts.append(f"**{task} {particles}**\n\n{table_of(out, found)}")
    return "\n\n".join(parts) or "nothing yet"


def table_of(out: Path, every: list[dict[str, Any]]) -> str:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in every:
        key = tuple(line[k] for k in ("labels", "method", "model", "block", "pooling", "level"))
        groups.setdefault(key, []).append(line)
    names = list(brief(every[0]["score"]))
    head = ["labels", "method", "features", *names, "ratio to linear", "seeds", "CPU s"]
    text = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for key in sorted(groups, key=lambda k: (k[0], k[1], str(k[2:]))):
        found, (labels, method, model, block, pooling, level) = groups[key], key
        plain = method in ("trees", "sum", "sum, true angle") or model == "inputs"
        view = model if plain else f"{Path(model).name}, block {block}, {pooling}, level {level:g}"
        cells = [str(labels), method, view]
        for name in names:
            each = np.array([brief(line["score"])[name] for line in found])
            spread = each[:, 0].std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else 0.0
            cells.append(f"{each[:, 0].mean():.4g} ± {np.hypot(each[:, 1].mean(), spread):.2g}")
        seconds = np.mean([line["cpu_s"] for line in found])
        cells += [ratio(out, found), str(len(found)), f"{seconds:.0f}"]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def ratio(out: Path, found: list[dict[str, Any]]) -> str:
    """Ratio of the headline to that of the first linear view, with the same labels and seed."""
    view = ("model", "block", "pooling", "level")
    same = ("task", "particles", "labels", "seed", "test")
    linear = [x for x in lines(out) if x["method"] == "linear"
              and all(x[k] == found[0][k] for k in ("task", "particles"))]  # fmt: skip
    mates = [x for x in linear if all(x[k] == linear[0][k] for k in view)]
    pairs = []
    for line in found:
        other = next((x for x in mates if all(x[k] == line[k] for k in same)), None)
        if other is None or other["key"] == line["key"]:
            return "-" if other is None else "1"
        parts = (np.load(answers_of(out, x["key"], x["method"]))["parts"] for x in (line, other))
        pairs.append(compared(Question.from_dict(line["question"]), *parts))
    value = np.mean([p.value for p in pairs])
    spread = np.std([p.value for p in pairs], ddof=1) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
    return f"{value:.3f} ± {np.hypot(np.mean([p.error for p in pairs]), spread):.3f}"


if __name__ == "__main__":
    main()
