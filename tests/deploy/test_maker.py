"""A trained model in the event loop: each shower from its own seed, refused where it must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.deploy.maker import Trained, open_maker
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.models.family import Manner
from caloforge.simulate.beam import Beam


def test_showers_are_those_of_generate(model: Path, small_detector: Detector) -> None:
    asked = Beam("e-,gamma", (2e3, 5e4), (1.0, 2.0)).primaries(3, 0, 4)
    made = Trained(model, steps=2).make(small_detector, asked)
    (same,) = Generator.load(model).stream(small_detector, asked, Manner(2))
    assert np.array_equal(made.dense(), same.dense())


def test_it_is_named_by_what_it_contains(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    first, second = Trained(model), Trained(copy)
    assert first.info["model_sha256"] == second.info["model_sha256"]
    with (copy / "config.json").open("a") as stream:
        stream.write("\n")
    assert Trained(copy).info["model_sha256"] != first.info["model_sha256"]


def test_it_is_refused_before_anything_runs(model: Path, small_detector: Detector) -> None:
    maker = open_maker(model)
    maker.check(small_detector, False)
    with pytest.raises(RequestError, match="does not fit the model"):
        maker.check(load_detector("par04-siw"), True)
    stack = small_detector.described_stack()
    iron = stack.absorber.model_copy(update={"material": "G4_Fe"})
    other = small_detector.model_copy(
        update={"name": "iron", "stack": stack.model_copy(update={"absorber": iron})}
    )
    with pytest.raises(RequestError, match="unlike every detector"):
        maker.check(other, False)
    maker.check(other, True)
    with pytest.raises(RequestError, match="at least 1"):
        open_maker(model, steps=0).check(small_detector, False)
    with pytest.raises(RequestError, match="no model 'nowhere'"):
        open_maker("nowhere")
