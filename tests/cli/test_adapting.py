"""The verb adapt from the command line: a checkpoint that generates, and an answer for a machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from caloforge.cli import main
from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model, save_model
from caloforge.showers.formats import write_showers
from caloforge.showers.showers import Showers


def test_adapt_then_generate(
    tiny_model: Model, toy: Callable[..., Showers], small_detector: Detector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model, Path("model"))
    write_showers(toy(small_detector, 60), Path("new.h5"), "lemurs")  # any dialect is read
    asked = ["adapt", "model", "new.h5", "--out", "run", "--steps", "3", "--guard", "new.h5"]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("run/adaptation.json").read_text())
    assert found["detectors"] == ["small"] and found["guarded"][0]["showers"] == 60
    assert main(asked) == 2 and main([*asked, "--resume"]) == 0
    assert main(["generate", "run", "out.h5", "--like", "new.h5", "-n", "3"]) == 0
