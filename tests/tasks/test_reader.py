"""A saved task model answers as before; a changed backbone and damaged folders are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, save_model
from caloforge.showers.showers import Showers
from caloforge.tasks.events import deal
from caloforge.tasks.features import View
from caloforge.tasks.methods import learned
from caloforge.tasks.question import Question
from caloforge.tasks.reader import Reader, load_reader, save_reader
from caloforge.tasks.tuning import fresh

Toy = Callable[..., Showers]
ENERGY = Question("energy")


@pytest.fixture(scope="module")
def backbone(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    save_model(tiny_model, folder)
    return folder


def made(backbone: Path, showers: Showers, method: str) -> Reader:
    dealt = deal(ENERGY, showers)
    return learned(ENERGY, showers, dealt, backbone=str(backbone), view=View(), method=method)


@pytest.mark.parametrize("method", ["linear", "mlp", "boosted", "tuned"])
def test_what_is_read_answers_as_what_was_written(
    backbone: Path, toy: Toy, small_detector: Detector, tmp_path: Path, method: str
) -> None:
    showers = toy(small_detector, 120)
    reader = made(backbone, showers, method)
    save_reader(reader, tmp_path / "task", "# card")
    again = load_reader(tmp_path / "task")
    assert (again.read(showers) == reader.read(showers)).all()
    assert again.question == ENERGY and again.notes["method"] == method
    assert again.own == (method == "tuned")


def test_a_backbone_that_has_changed_is_noticed(
    tiny_model: Model, toy: Toy, small_detector: Detector, tmp_path: Path
) -> None:
    save_model(tiny_model, tmp_path / "backbone")
    reader = made(tmp_path / "backbone", toy(small_detector, 120), "linear")
    save_reader(reader, tmp_path / "task", "")
    save_model(fresh(tiny_model, 1), tmp_path / "backbone")
    with pytest.raises(RequestError, match="has changed"):
        load_reader(tmp_path / "task")


def test_what_is_no_task_model_is_refused(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no complete task model"):
        load_reader(tmp_path)
    with pytest.raises(RequestError, match="no task model"):
        load_reader(backbone)


def test_another_version_is_refused(
    backbone: Path, toy: Toy, small_detector: Detector, tmp_path: Path
) -> None:
    save_reader(made(backbone, toy(small_detector, 120), "linear"), tmp_path, "")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"reader_version": 99}))
    with pytest.raises(RequestError, match="another version"):
        load_reader(tmp_path)
