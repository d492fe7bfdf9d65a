"""Completing showers: what is kept stays, what is drawn follows from it and from the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.complete import complete
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model
from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train
from caloforge.showers.showers import Showers


@pytest.fixture(scope="module", params=["flow", "beliefs"])
def generator(
    request: pytest.FixtureRequest, tiny_model: Model, toy_files: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator:  # fmt: skip
    if request.param == "flow":
        return Generator(tiny_model, "tiny")
    recipe = Recipe(
        size="micro", data=[str(p) for p in toy_files], process="beliefs", steps=40, batch=32,
        warmup=5, scale_steps=200, masked=0.3,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("complete") / "run"
    train(recipe, out)
    return Generator.load(out)


@pytest.fixture(scope="module")
def given(toy, small_detector) -> Showers:
    return toy(small_detector, 20)


def test_what_is_kept_stays_and_the_rest_is_drawn(generator: Generator, given: Showers) -> None:
    made = complete(generator, given, 5, seed=1).dense()
    truth = given.dense()
    assert np.array_equal(made[..., :5], truth[..., :5])
    assert not np.allclose(made[..., 5:], truth[..., 5:], rtol=0.1)
    assert (made[..., 5:].sum((1, 2, 3)) > 0).mean() > 0.9


def test_the_seed_decides_and_the_batch_does_not(generator: Generator, given: Showers) -> None:
    once = complete(generator, given, 5, seed=1).dense()
    assert np.allclose(
        complete(generator, given, 5, seed=1, batch=7).dense(), once, rtol=1e-3, atol=1e-3
    )
    assert not np.allclose(complete(generator, given, 5, seed=2).dense(), once)


def test_what_is_drawn_depends_on_what_is_kept(generator: Generator, given: Showers) -> None:
    other = Showers.from_dense(
        np.roll(given.dense(), 1, axis=0), mesh=given.mesh, energy=given.energy, theta=given.theta,
        phi=given.phi, pdg=given.pdg, seed=given.seed, detector=given.detector,
    )  # fmt: skip
    one, two = (complete(generator, s, 5, seed=1).dense()[..., 5:] for s in (given, other))
    assert not np.allclose(one, two)


@pytest.mark.parametrize("layers", [0, 3, 10])
def test_a_cut_through_a_token_is_refused(
    generator: Generator, given: Showers, layers: int
) -> None:
    with pytest.raises(RequestError, match="multiple of 5 below 10"):
        complete(generator, given, layers)
