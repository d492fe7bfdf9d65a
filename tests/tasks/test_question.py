"""Questions: what a target is, and what cannot be asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.showers.showers import Showers
from caloforge.tasks.question import Question, edges_of, question_of

Toy = Callable[..., Showers]


@pytest.fixture(scope="module")
def mixed(toy: Toy, small_detector: Detector) -> Showers:
    showers = toy(small_detector, 60)
    return showers.with_(pdg=np.tile([11, 22, 13], 20))


def test_classes_are_the_particles_of_the_file_or_those_asked_for(mixed: Showers) -> None:
    everything = question_of("particle", mixed)
    assert everything.classes == ("e-", "gamma", "mu-") and everything.outputs == 3
    two = question_of("particle", mixed, "gamma,e-")
    target = two.target(mixed)
    assert two.classes == ("gamma", "e-")
    assert (mixed.pdg[target == 0] == 22).all() and (mixed.pdg[target == 1] == 11).all()
    assert (mixed.pdg[target == -1] == 13).all()


def test_a_shower_lies_in_its_bin_and_in_none_outside(mixed: Showers) -> None:
    question = question_of("bins", mixed, edges=edges_of("5,10,20"))
    target = question.target(mixed)
    energy = mixed.energy / 1e3
    assert question.classes == ("5-10 GeV", "10-20 GeV")
    assert ((target == 0) == ((energy >= 5) & (energy < 10))).all()
    assert ((target == -1) == ((energy < 5) | (energy >= 20))).all()


def test_a_question_survives_its_dictionary(mixed: Showers) -> None:
    for question in (question_of("energy", mixed), question_of("particle", mixed)):
        assert Question.from_dict(question.to_dict()) == question


def test_a_value_has_one_output(mixed: Showers) -> None:
    assert question_of("theta", mixed).outputs == 1
    assert np.exp(question_of("energy", mixed).target(mixed)) == pytest.approx(mixed.energy)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("phi", {}, "turns with the particle"),
        ("charge", {}, "unknown task"),
        ("particle", {"particles": "e-,pi0"}, "no showers of pi0"),
        ("particle", {"particles": "e-,e-"}, "at least two"),
        ("bins", {"edges": (5.0, 4.0, 8.0)}, "growing"),
        ("energy", {"edges": (1.0, 2.0, 3.0)}, "not for 'energy'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    mixed: Showers, name: str, more: dict[str, object], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        question_of(name, mixed, **more)  # type: ignore[arg-type]


def test_edges_are_numbers() -> None:
    assert edges_of(None) is None and edges_of("1,2.5,4") == (1e3, 2.5e3, 4e3)
    with pytest.raises(RequestError, match="no edges"):
        edges_of("1,two")
