"""Independent directions: covariance one, and two quantities kept to themselves."""

from __future__ import annotations

import torch

from caloforge.learn.directions import independent


def test_they_are_independent_and_the_two_totals_stay_among_themselves() -> None:
    torch.manual_seed(0)
    mix = torch.randn(12, 12, dtype=torch.float64)
    whiten = independent(mix @ mix.T)
    assert torch.allclose(whiten.T @ (mix @ mix.T) @ whiten, torch.eye(12).double(), atol=1e-9)
    others = list(range(1, 11))
    for own in (0, 11):  # their directions read nothing but the two totals
        assert not whiten[others, own].any()
    assert whiten[0, 11] != 0 or whiten[11, 0] != 0


def test_what_hardly_varies_is_not_blown_up() -> None:
    covariance = torch.eye(6, dtype=torch.float64)
    covariance[3, 3] = 1e-12
    assert float(independent(covariance).abs().max()) < 40
