"""Random detectors: valid, repeatable, and spread around what is built."""

from __future__ import annotations

import numpy as np

from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors
from caloforge.detector.detector import load_detector, parse_detector
from caloforge.detector.randomised import ABSORBERS, ACTIVE_MM, CRYSTALS, random_detector


def test_a_detector_follows_from_its_numbers_alone() -> None:
    assert random_detector(1, 5) == random_detector(1, 5)
    assert random_detector(1, 5) != random_detector(1, 6) != random_detector(2, 6)
    assert parse_detector(random_detector(1, 5).to_toml()) == random_detector(1, 5)
    assert random_detector(1, 5, (3, 4, 10)).mesh.shape == (3, 4, 10)


def test_every_material_comes_up() -> None:
    stacks = [random_detector(1, k).described_stack() for k in range(160)]
    absorbers = {s.absorber.material if s.absorber else None for s in stacks}
    assert absorbers == {None, *ABSORBERS}
    assert {s.active.material for s in stacks} == {*ACTIVE_MM, *CRYSTALS}


def test_the_named_detectors_lie_within() -> None:
    table = np.array([descriptors(random_detector(1, k)) for k in range(160)])
    low, high = table.min(0), table.max(0)
    margin = 0.06 * (high - low)
    for name in ("par04-siw", "par04-scipb", "odd-ecal", "fccee-cld", "pbwo4"):
        numbers = descriptors(load_detector(name))
        outside = (numbers < low - margin) | (numbers > high + margin)
        assert not outside.any(), (name, np.array(DESCRIPTOR_NAMES)[outside])
