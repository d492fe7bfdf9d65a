"""The verbs task train and task run from the command line, and how they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from caloforge.cli import main
from caloforge.detector.detector import Detector, load_detector
from caloforge.learn.checkpoint import Model, save_model
from caloforge.showers.formats import write_showers
from caloforge.showers.showers import Showers

Toy = Callable[..., Showers]


def test_train_then_run(
    tiny_model: Model, toy: Toy, small_detector: Detector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model, Path("model"))
    write_showers(toy(small_detector, 120), Path("data.h5"))
    write_showers(toy(small_detector, 40, seed=1), Path("test.h5"))
    write_showers(toy(load_detector("par04-siw"), 3), Path("other.h5"))
    asked = ["task", "train", "energy", "data.h5", "--test", "test.h5", "--model", "model"]
    assert main([*asked, "--out", "run", "--block", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["question"]["name"] == "energy" and len(found["scores"]) == 4
    assert main(["task", "run", "run", "test.h5", "--out", "out.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == ["energy_GeV"] and found["score"]["scaled_resolution"]["value"] > 0
    assert main([*asked, "--out", "run"]) == 2, "the folder is taken"
    assert main([*asked, "--out", "again", "--level", "0"]) == 2
    assert main(["task", "train", "bins", "data.h5", "--out", "again", "--edges", "1,x"]) == 2
    assert main(["task", "run", "run", "other.h5", "--out", "no.csv"]) == 2
    assert main(["task", "run", "nothing", "test.h5", "--out", "no.csv"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("caloforge: ") for line in errors) == 5
    assert not Path("again").exists() and not Path("no.csv").exists()
