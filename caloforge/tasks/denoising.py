r"""Which particle a generator takes a shower for: that under whose name it denoises it best.

A diffusion model bounds the likelihood of a shower under each condition by its denoising loss, so
it is a classifier without any training (A. Li et al., arXiv:2303.16203; Clark and Jaini,
arXiv:2303.15233). Noise is added to the shower at several levels, the same for all classes; the
loss of a class is the weighted squared error of what the model believes of the clean shower when it
is told that class. Energy and angle are those that can be assumed (`blind`), for the truth is not
at hand. The whitening depends on the class: errors of the energies are compared in units of the
first class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.learn.checkpoint import Model, diffusion_of
from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.learn.models.process import PROCESSES
from caloforge.learn.preprocess import Scaled
from caloforge.progress import progress
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind, as_particle, check_told
from caloforge.tasks.features import check_showers, glances

__all__ = ["denoising_losses", "preferred"]


@torch.inference_mode()
def denoising_losses(
    model: Model, showers: Showers, codes: Sequence[int], *, levels: int = 8, seed: int = 0
) -> NDArray[np.float64]:
    """Losses (N, C, 2) of N showers under C particles (PDG codes), no unit: of the energies, with
    the voxels hidden, and of the voxels, with the energies given.

    Raises `RequestError` for a particle that the model is never told, and showers that do not fit.
    """
    network = diffusion_of(model, "the model")
    check_told(codes, tells=not network.config.plain)
    check_showers(model, showers)
    assert showers.detector is not None
    device = next(network.parameters()).device
    blind, rows = Blind(model.scale, showers.detector, device), []
    draw = torch.Generator().manual_seed(seed)
    at = (torch.arange(levels) + 0.5) / levels
    with progress("denoising", len(showers), "showers") as advance:
        for voxels in glances(showers, device):
            given = blind(voxels)
            told = [as_particle(given, code) for code in codes]
            rows.append(_losses(model, voxels, told, at, draw).cpu().double().numpy())
            advance(len(voxels))
    return np.concatenate(rows)


def _losses(
    model: Model, voxels: Tensor, told: Sequence[Conditions], at: Tensor, draw: torch.Generator
) -> Tensor:
    """Losses (B, C, 2) of voxels (B, R, PHI, Z) in MeV, the mean over levels `at` (L,)."""
    network, scale = model.network, model.scale
    clean = [scale(voxels, given) for given in told]
    spread = [scale.energies.moments(given.features)[1] for given in told]
    weight = PROCESSES[network.config.process].weight
    total = torch.zeros(len(voxels), len(told), 2, device=voxels.device)
    for level in at:
        noise = Scaled(*(torch.randn(p.shape, generator=draw).to(p) for p in clean[0]))
        noise = Scaled(noise.voxels, noise.energies @ network.colour)
        t = level.to(voxels).expand(len(voxels))
        for c, (given, truth) in enumerate(zip(told, clean, strict=True)):
            unit = (spread[c] - spread[0]).exp()
            pair = _stages(network, truth, noise, t, given, unit)
            total[:, c] += torch.stack(pair, dim=1) * weight(t)[:, None] / len(at)
    return total


def _stages(
    network: DiffusionTransformer, clean: Scaled, noise: Scaled, t: Tensor, given: Conditions,
    unit: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Squared errors (B,) of what is believed of energies, with voxels hidden, and of voxels."""
    nothing, whole = torch.zeros_like(t), torch.ones_like(t)
    noisy = Scaled(noise.voxels, torch.lerp(noise.energies, clean.energies, t[:, None]))
    x, _ = network.trunk(noisy, nothing[:, None], t, given, blank=True)
    belief = network.believe_energies(x, noisy.energies @ network.whiten, t)
    missed = (belief.value() @ network.colour - clean.energies) * unit
    level = t[:, None, None, None]
    noisy = Scaled(torch.lerp(noise.voxels, clean.voxels, level), clean.energies)
    x, c = network.trunk(noisy, t[:, None], whole, given)
    guess = network.expected(network.believe_voxels(x, c, noisy.voxels, t[:, None]))
    return missed.square().mean(dim=1), (guess - clean.voxels).square().mean(dim=(1, 2, 3))


def preferred(losses: NDArray[Any]) -> NDArray[np.float64]:
    """Scores (N, C) of classes, higher for a better one, from losses (N, C, 2); no unit.

    Both stages count alike: each is divided by how much it varies between classes.
    """
    apart = losses - losses.mean(axis=1, keepdims=True)
    unit = np.maximum(apart.std(axis=(0, 1)), 1e-12)
    return np.asarray(-(apart / unit).sum(axis=2))
