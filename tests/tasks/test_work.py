"""From files to a task model and back to predictions, and what the page and the card say."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, save_model
from caloforge.showers.formats import write_showers
from caloforge.showers.showers import Showers
from caloforge.tasks.features import View
from caloforge.tasks.work import Order, run_task, train_task

Toy = Callable[..., Showers]


@pytest.fixture(scope="module")
def place(
    tiny_model: Model, toy: Toy, small_detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_model(tiny_model, folder / "model")
    showers = toy(small_detector, 240)
    # Half are photons, which begin later: their first layers are empty.
    late = np.arange(240) % 2 == 1
    kept = ~(late[showers.rows] & (showers.cell % 10 < 3))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(showers.rows[kept], minlength=240))])
    showers = showers.with_(
        pdg=np.where(late, 22, 11), offsets=offsets, cell=showers.cell[kept],
        deposit=showers.deposit[kept],
    )  # fmt: skip
    write_showers(showers, folder / "data.h5")
    write_showers(toy(small_detector, 60, seed=4), folder / "more.h5", "lemurs")
    return folder


def order(place: Path, task: str, **more: object) -> Order:
    return Order(task, model=str(place / "model"), block=2, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["energy", "theta", "particle", "bins"])
def test_a_task_is_learned_judged_and_told(place: Path, tmp_path: Path, task: str) -> None:
    edges = (5e3, 2e4, 1e5) if task == "bins" else None
    found = train_task(order(place, task, edges_mev=edges), [place / "data.h5"], tmp_path / "task")
    assert json.loads((tmp_path / "task" / "metrics.json").read_text()) == found
    methods = list(found["scores"])
    assert "trees" in methods and ("sum, true angle" in methods) == (task == "energy")
    page, card = ((tmp_path / "task" / n).read_text() for n in ("report.html", "card.md"))
    assert found["headline"] in page and all(f"| {m} |" in card for m in methods)
    assert not re.search(r"(src|href)=\"http|<script", page), "one file, without network"
    assert page.count("<svg") >= 1
    if task == "particle":
        assert found["scores"][methods[0]]["accuracy"]["value"] > 0.9


def test_predictions_in_both_formats_are_the_same_and_speak_of_their_unit(
    place: Path, tmp_path: Path
) -> None:
    train_task(order(place, "energy", sceptics=False), [place / "data.h5"], tmp_path / "task")
    for name in ("out.csv", "out.h5"):
        found = run_task(tmp_path / "task", place / "data.h5", tmp_path / name)
        assert found["showers"] == 240 and "√(GeV/E)" in found["headline"]
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    with h5py.File(tmp_path / "out.h5") as file:
        values = file["energy_GeV"][:]
    assert [float(row["energy_GeV"]) for row in rows] == pytest.approx(values, rel=1e-5)
    assert values.min() > 0.5 and values.max() < 200


def test_particles_come_with_probabilities(place: Path, tmp_path: Path) -> None:
    train_task(order(place, "particle", sceptics=False), [place / "data.h5"], tmp_path / "task")
    run_task(tmp_path / "task", place / "data.h5", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        named = [name.decode() for name in file["particle"][:]]
        table = np.stack([file["p(e-)"][:], file["p(gamma)"][:]], axis=1)
    assert table.sum(axis=1) == pytest.approx(1.0)
    assert named == [["e-", "gamma"][k] for k in table.argmax(axis=1)]


def test_features_are_found_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "task"
    first = train_task(order(place, "energy"), [place / "data.h5"], out)
    (out / "config.json").unlink()

    def fail(*_: object) -> None:
        raise AssertionError("computed anew")

    monkeypatch.setattr("caloforge.tasks.work.features", fail)
    assert train_task(order(place, "energy"), [place / "data.h5"], out) == first
    (out / "config.json").unlink()
    with pytest.raises(AssertionError, match="anew"):  # another view has other features
        other = Order("energy", model=str(place / "model"), block=1)
        train_task(other, [place / "data.h5"], out)


def test_by_default_half_of_the_blocks_and_the_pooling_of_the_task(tiny_model: Model) -> None:
    assert Order("energy").view(tiny_model) == View(1, "mean+total")
    assert [Order(task).backbone for task in ("energy", "particle")] == ["base", "codes"]
    assert Order("particle", seed=4).view(tiny_model) == View(1, "front", seed=4)
    assert Order("energy", block=2, pooling="mean").view(tiny_model) == View(2, "mean")


@pytest.mark.parametrize(
    ("task", "more", "words"),
    [
        ("energy", {"method": "magic"}, "unknown method"),
        ("energy", {"labels": 10_000}, "not 10000"),
        ("phi", {}, "turns with the particle"),
        ("particle", {"particles": "e-,mu-"}, "no showers of mu-"),
    ],
)
def test_what_cannot_be_done_leaves_nothing_behind(
    place: Path, tmp_path: Path, task: str, more: dict[str, object], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        train_task(order(place, task, **more), [place / "data.h5"], tmp_path / "task")
    assert not (tmp_path / "task").exists()


def test_a_folder_is_not_overwritten_and_names_of_files_are_checked(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="holds a model already"):
        train_task(order(place, "energy"), [place / "data.h5"], place / "model")
    with pytest.raises(RequestError, match=r"\.csv or \.h5"):
        run_task(place / "model", place / "data.h5", tmp_path / "out.txt")
