import re
from dataclasses import replace

import numpy as np
import pytest

from caloforge.evaluate.compare import compare
from caloforge.evaluate.observables import measure
from caloforge.evaluate.verdict import conditions, judge, with_error

LABELS = ("Geant4", "generated")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0359, 0.0131, "0.036 ± 0.013"),
        (1.04820, 0.00162, "1.0482 ± 0.0016"),
        (3.63, 0.213, "3.63 ± 0.21"),
        (-12.3, 4.4, "-12.3 ± 4.4"),
        (250.0, 31.0, "250 ± 31"),
        (0.00024, 0.00039, "(2.4 ± 3.9)e-4"),
        (1.0, 0.0, "1"),
    ],
)
def test_numbers_are_written_to_two_digits_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_agreement_is_not_praised_beyond_what_was_seen(reference, toy):
    verdict = judge(compare(reference, measure(toy(800, 2))), LABELS)
    assert verdict.headline.startswith("No difference from Geant4 found with 400 showers")
    assert verdict.paragraph.startswith("None of ")
    assert "would not have been seen" in verdict.paragraph


def test_a_difference_is_named_with_its_size(reference, toy):
    showers = toy(800, 2)
    scaled = measure(showers.with_(deposit=showers.deposit * np.float32(1.05)))
    verdict = judge(compare(reference, scaled), LABELS)
    found = re.search(r"mean response is off by \+(\d\.\d+) ± (\d\.\d+) %", verdict.paragraph)
    assert found and abs(float(found[1]) - 5) < 4 * float(found[2])
    assert "The worst:" in verdict.paragraph and "sigma" in verdict.headline


def test_a_single_hidden_difference_is_left_to_the_classifier(reference, toy):
    seen = compare(reference, measure(toy(800, 2)))
    others = [m for m in seen.metrics if m.kind != "classifier"]
    sharp = replace(seen.metrics[0], value=0.8, sigmas=9.0)
    verdict = judge(replace(seen, metrics=[sharp, *others]), LABELS)
    assert "but a classifier sees more" in verdict.headline


def test_unlike_conditions_are_said(reference, toy):
    showers = toy(800, 2)
    assert conditions(reference, measure(showers)) == []
    high = showers[showers.energy > 20_000]
    assert "incident energy of the generated" in conditions(reference, measure(high))[0]
    steep = showers.with_(theta=showers.theta - 0.5)
    assert "polar angle" in conditions(reference, measure(steep))[0]
    photons = showers.with_(pdg=np.full(800, 22))
    assert "PDG codes [22]" in conditions(reference, measure(photons))[0]
    assert "are the reference showers" in conditions(reference, reference)[0]


def test_a_changed_copy_is_not_called_the_same(reference, toy, alter):
    showers = toy(800, 1)
    turned = alter(showers, np.roll(showers.dense(), 1, axis=2))
    assert conditions(reference, measure(turned)) == []


def test_empty_showers_are_said(reference, toy):
    showers = toy(800, 2)
    gone = showers.with_(deposit=showers.deposit * (showers.rows > 39))
    assert any("40 of 800" in text for text in conditions(reference, measure(gone)))
