r"""The quantiser: vectors brought to the nearest of K codes, with a codebook that stays alive.

A code is the running mean of the vectors that chose it (van den Oord et al., arXiv:1711.00937,
appendix A.1), so that it needs no gradient; the encoder is pulled to its codes by a commitment
loss, and the gradient of the decoder is handed through as if nothing had been rounded (Bengio et
al., arXiv:1308.3432). A code that is hardly chosen any more is put where some vector is (Dhariwal
et al., arXiv:2005.00341, section 3.1): without that a few codes would do all the work. Finite
scalar quantisation (Mentzer et al., arXiv:2309.15505) has no codebook to lose: every component is
rounded to a few levels.

The arithmetic is that of vector-quantize-pytorch. It draws which vectors replace dead codes from
torch's own random numbers; here they are seeded at each call, so that a run that is stopped and
resumed draws what one that was not would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize

__all__ = ["Quantiser", "usage"]

DECAY = 0.95  # Of the running means, a step.
DEAD = 0.5  # Vectors a step, on average, below which a code is moved.


class Quantiser(nn.Module):
    """Brings vectors of `width` numbers to one of `codes` codes; with `levels` by rounding.

    `levels`: of each rounded component, as many codes as their product; empty for a codebook.
    """

    def __init__(self, width: int, codes: int, levels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.codes = math.prod(levels) if levels else codes
        self.inner: Any
        if levels:
            self.inner = FSQ(list(levels), dim=width)
        else:
            self.inner = VectorQuantize(
                dim=width, codebook_size=codes, decay=DECAY, kmeans_init=False,
                threshold_ema_dead_code=DEAD, commitment_weight=0.0, rotation_trick=False,
            )  # fmt: skip
        self.rounded = bool(levels)

    def forward(self, x: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Quantise vectors (B, N, D): the codes' vectors (B, N, D) and their numbers (B, N).

        With a `seed` the codebook learns from the vectors and the gradient passes straight through;
        without one it is left alone.
        """
        # A copy for averaging or for counting is in no mode that can be relied on: the seed says.
        self.inner.train(seed is not None)
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed or 0)
            found = self.inner(x.float())
        return found[0].type_as(x), found[1].long()

    def look_up(self, numbers: Tensor) -> Tensor:
        """Vectors (..., D) of code numbers (...)."""
        if self.rounded:
            rounded: Tensor = self.inner.indices_to_codes(numbers)
            return rounded
        looked: Tensor = self.inner.get_output_from_indices(numbers)
        return looked


def usage(numbers: Iterable[Tensor], codes: int) -> dict[str, float]:
    """How alive a codebook is, from code numbers (B, N) of some showers: share of the `codes` that
    are used at all, and their perplexity, the number of codes that would do as much if they were
    used evenly; both without unit.
    """
    counts = torch.zeros(codes, dtype=torch.float64)
    for part in numbers:
        counts += torch.bincount(part.flatten().cpu(), minlength=codes)
    share = counts / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum()
    return {"usage": float((counts > 0).double().mean()), "perplexity": float(entropy.exp())}
