"""Standardised features: mean 0, spread 1, and silence about what is not told."""

from __future__ import annotations

import torch

from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.standard import Standard


def given(features: torch.Tensor) -> Conditions:
    return Conditions(features, torch.zeros(0), torch.zeros(0), torch.zeros(0))


def test_fitted_features_have_mean_0_and_spread_1_and_silence_is_the_mean() -> None:
    draw = torch.Generator().manual_seed(1)
    features = 5 + 3 * torch.randn(500, len(FEATURE_NAMES), generator=draw)
    features[:, 2] = 7.0  # one that never varies
    standard = Standard()
    standard.fit(features)
    out = standard(given(features))
    assert torch.allclose(out.mean(0), torch.zeros(out.shape[1]), atol=1e-5)
    vary = [k for k in range(out.shape[1]) if k != 2]
    assert torch.allclose(out.std(0)[vary], torch.ones(len(vary)), atol=1e-5)
    assert float(out[:, 2].abs().max()) == 0
    assert float(standard(given(torch.full((2, out.shape[1]), torch.nan))).abs().max()) == 0
