"""Distilling: a student learns from showers that its teacher draws, in slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.distill import distill
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.showers.formats import open_showers

CHANGES = ["size=micro", "batch=16", "scale_steps=100", "warmup=3"]


@pytest.fixture
def teacher(tiny_model: Model, tmp_path: Path) -> Path:
    save_model(tiny_model, tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_student_of_two_steps(teacher: Path, small_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    asked = dict(steps=2, detectors=[str(small_file)], showers=60)
    changes = [*CHANGES, "steps=12"]
    part = distill(teacher, out, **asked, changes=changes, minutes=1e-6)  # type: ignore[arg-type]
    assert part.step < 12
    made = open_showers(out / "showers" / "small.h5")
    assert len(made) == 60 and made.provenance["model"] == str(teacher)
    made.close()
    before = (out / "showers" / "small.h5").read_bytes()
    whole = distill(teacher, out, **asked, changes=changes, resume=True)  # type: ignore[arg-type]
    assert whole.step == 12
    assert (out / "showers" / "small.h5").read_bytes() == before  # the teacher is asked once
    student = load_model(out)
    assert student.network.config.calls == 2 and student.network.config.process == "beliefs"


def test_the_student_draws_in_as_many_steps_as_it_was_made_for(
    teacher: Path, small_file: Path, small_detector: Detector, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    distill(
        teacher,
        out,
        steps=1,
        detectors=[str(small_file)],
        showers=40,
        changes=[*CHANGES, "steps=3"],
    )
    energy = np.full(3, 2e4)
    one, asked = (
        Generator.load(out).generate(
            small_detector, energy, 1.5, n=3, extrapolate=True, steps=steps
        )
        for steps in (None, 1)
    )
    assert np.array_equal(one.dense(), asked.dense()) and one.provenance["steps"] == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 0}, "at least 1"),
        ({"detectors": []}, "named detector"),
        ({"changes": ["colour=red"]}, "colour"),
        ({"detectors": ["nowhere.toml"]}, "nowhere"),
    ],
)
def test_wrong_requests_leave_nothing(
    teacher: Path, small_file: Path, tmp_path: Path, change: dict[str, object], word: str
) -> None:
    asked: dict[str, object] = {"detectors": [str(small_file)], "showers": 20, "changes": CHANGES}
    with pytest.raises(RequestError, match=word):
        distill(teacher, tmp_path / "student", **(asked | change))  # type: ignore[arg-type]
    assert not (tmp_path / "student").exists()
