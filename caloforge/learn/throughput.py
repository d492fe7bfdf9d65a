"""How well a training run uses the machine: floating point operations done, of those possible.

Model-flop utilisation (arXiv:2204.02311, appendix B) counts what the mathematics of a step needs
and divides by what the machine does in a large matrix product, measured here rather than read from
a data sheet, with the same threads and precision.
"""

from __future__ import annotations

import copy
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Aim, family
from caloforge.learn.preprocess import Scaled

__all__ = ["flop_per_shower", "peak_flops"]


def flop_per_shower(model: Model, clean: Scaled, given: Conditions) -> float:
    """Floating point operations of one shower, forward and backward, from a batch (B, ...)."""
    network = copy.deepcopy(model.network).requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        draw = torch.Generator().manual_seed(0)
        losses = family(model.family).losses(network, clean, given, draw, Aim())
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / len(clean.energies)


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating point operations a second of a large matrix product on `device`, the best of 5."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best
