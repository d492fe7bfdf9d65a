r"""What was learned about single detectors, beside what holds for all of them.

Descriptors do not say everything of a calorimeter. A residual is a row of numbers at an *anchor*,
the descriptors d of one detector, which counts with the weight :math:`\exp(-|d - d_{anchor}|^2/2
w^2)`, d in spreads of the training set and w = `WIDTH`. Two random detectors of the pretraining are
several spreads apart, so what is learned about one is nothing to the others: they are not
forgotten. A detector that is nearly the same profits. A model without anchors has no residuals, and
a checkpoint without them is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES

__all__ = ["WIDTH", "Residual"]

WIDTH = 0.5
_D = len(DESCRIPTOR_NAMES)


class Residual(nn.Module):
    """Rows of `count` numbers at M anchors in the space of descriptors; M = 0 to begin with."""

    anchors: Tensor
    unit: Tensor
    reach: Tensor
    values: nn.Parameter

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self._resize(0)

    def __len__(self) -> int:
        """Return the number M of anchors."""
        return len(self.anchors)

    def _resize(self, anchors: int) -> None:
        known = self._buffers.get("anchors")
        device = known.device if known is not None else None
        self.register_buffer("anchors", torch.zeros(anchors, _D, device=device))
        self.register_buffer("unit", torch.ones(anchors, _D, device=device))
        ends = torch.tensor([-torch.inf, torch.inf], device=device)
        self.register_buffer("reach", ends.repeat(anchors, 1))
        # No weight without an anchor: it would never have a gradient.
        fresh = nn.Parameter(torch.zeros(anchors, self.count, device=device)) if anchors else None
        self.register_parameter("values", fresh)

    @torch.no_grad()
    def anchor(self, features: Tensor, unit: Tensor) -> int:
        """Make sure of an anchor at the descriptors that end `features` (F,); returns its number.

        `unit` (F,): spread of the features over the detectors of the training. `reach` (M, 2), the
        range of energies in which the numbers were found, is for the user to set.
        """
        here, unit = features[-_D:], unit[-_D:]
        for k, known in enumerate(self.anchors):
            if torch.allclose(known, here, atol=1e-4):
                return k
        before = self._held() if len(self) else ()
        self._resize(len(self) + 1)
        for mine, old in zip(self._held(), before, strict=False):
            mine[:-1] = old
        self.anchors[-1], self.unit[-1] = here, unit
        return len(self) - 1

    @torch.no_grad()
    def renewed(self, features: Tensor, unit: Tensor) -> int:
        """Return the number of the anchor at `features` (F,), with `unit` (F,), like `anchor`; its
        numbers are zero and not trained.
        """
        number = self.anchor(features, unit)
        self.requires_grad_(False)
        self.values[number] = 0.0
        return number

    def _held(self) -> tuple[Tensor, ...]:
        return self.anchors, self.unit, self.reach, self.values

    def near(self, features: Tensor) -> Tensor:
        """Weights (B, M) of the anchors at features (B, F)."""
        away = (features[:, None, -_D:] - self.anchors) / (WIDTH * self.unit)
        return torch.exp(-0.5 * away.square().sum(-1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the residual (B, count) at features (B, F); what is not told is far from all."""
        return self.near(features).nan_to_num(0.0) @ self.values

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if len(self):
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        held = state.get(f"{prefix}anchors")
        count = 0 if held is None else len(held)
        if count != len(self):
            self._resize(count)
        if held is not None:
            super()._load_from_state_dict(state, prefix, *others)
