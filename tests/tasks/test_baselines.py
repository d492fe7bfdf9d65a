"""Baselines: exact where the law is theirs, and blind to the primary where they should be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.showers.showers import Showers
from caloforge.tasks.baselines import calibrated_sum, shower_features
from caloforge.tasks.events import Deal

Toy = Callable[..., Showers]


def test_the_sum_with_the_angle_is_exact_where_the_response_goes_with_the_angle(
    toy: Toy, small_detector: Detector
) -> None:
    showers = toy(small_detector, 200)
    visible = showers.visible()
    energy = 30 * visible**1.02 * np.exp(0.1 * np.cos(showers.theta) ** 2)
    showers = showers.with_(energy=energy)
    deal, rough = Deal(np.arange(100), np.arange(100, 120), np.arange(120, 200)), np.log(energy)
    with_angle, without = (calibrated_sum(showers, deal, rough, angle=a) for a in (True, False))
    assert with_angle == pytest.approx(np.log(showers.energy), abs=1e-4)
    assert np.abs(without - np.log(showers.energy))[120:].max() > 0.005


def test_features_of_trees_do_not_know_the_primary(toy: Toy, small_detector: Detector) -> None:
    showers = toy(small_detector, 20)
    other = showers.with_(
        energy=2 * showers.energy, theta=np.full(20, 1.0), pdg=np.full(20, 22), phi=np.zeros(20)
    )
    rows = shower_features(showers)
    assert np.isfinite(rows).all() and (rows == shower_features(other)).all()
