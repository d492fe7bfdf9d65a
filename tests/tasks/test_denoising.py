"""Classes by denoising: equal conditions cost the same, noise is shared, and a told class helps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model
from caloforge.showers.showers import Showers
from caloforge.tasks.denoising import denoising_losses, preferred

Toy = Callable[..., Showers]


def test_a_class_costs_the_same_twice_and_another_something_else(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    losses = denoising_losses(tiny_model, toy(small_detector, 6), [11, 22, 11], levels=2)
    assert losses.shape == (6, 3, 2) and (losses > 0).all()
    assert (losses[:, 0] == losses[:, 2]).all()
    assert not np.allclose(losses[:, 0], losses[:, 1], rtol=1e-6)


def test_a_particle_that_is_never_told_is_refused(
    tiny_model: Model, toy: Toy, small_detector: Detector
) -> None:
    with pytest.raises(RequestError, match="111"):
        denoising_losses(tiny_model, toy(small_detector, 2), [11, 111])


def test_the_class_with_the_smaller_losses_is_preferred() -> None:
    losses = np.array([[[1.0, 3.0], [1.1, 3.5]], [[2.0, 4.0], [1.9, 3.4]]])
    assert preferred(losses).argmax(axis=1).tolist() == [0, 1]
    # A stage that varies a hundred times as much counts no more than the other.
    assert preferred(losses * [1, 100]) == pytest.approx(preferred(losses))
