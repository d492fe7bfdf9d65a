"""The whole path with the shipped model, very small, and what a user then finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caloforge.cli import main
from caloforge.quickstart import shipped_reference
from caloforge.showers.formats import read_showers


def test_quickstart_makes_everything_it_says(tmp_path: Path, capsys) -> None:
    out = tmp_path / "quick"
    assert main(["quickstart", "--out", str(out), "-n", "40", "--events", "2"]) == 0
    said = capsys.readouterr().out
    assert "x Geant4" in said and str(out / "report.html") in said
    assert len(read_showers(out / "geant4.h5")) == 2
    assert len(read_showers(out / "generated.h5")) == 40
    names = {
        metric["name"]
        for metric in json.loads((out / "metrics.json").read_text())["models"][0]["metrics"]
    }
    assert {"classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio"} <= names
    assert "<svg" in (out / "report.html").read_text("utf-8")


def test_quickstart_refuses_before_it_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["-n", "0"], ["--events", "0"]):
        assert main(["quickstart", "--out", str(tmp_path / "quick"), *wrong]) == 2
        assert "at least 1" in capsys.readouterr().err
    assert not (tmp_path / "quick").exists()


def test_the_reference_is_geant4_and_was_not_trained_on() -> None:
    reference = read_showers(shipped_reference())
    assert len(reference) >= 300
    assert reference.provenance["engine"] == "geant4"
    assert 0.0315 < (reference.visible() / reference.energy).mean() < 0.0330
