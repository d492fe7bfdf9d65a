r"""How likely a prior takes a shower to be if it were one particle or another, place by place.

A prior with layers (`caloforge.learn.models.prior`) says exactly how likely a shower's energies,
hits and codes are under given conditions. Under the names of several particles this is a classifier
without any label, and the classical one: by the ratio of likelihoods (Neyman and Pearson,
doi:10.1098/rsta.1933.0009). Place by place it is a feature, which says where a shower speaks for
which particle.

Conditions are those that follow from the shower alone (`blind`). The whitening depends on the
particle, so what is compared is the density of energies and hits before it: the logarithm of the
spread is added to each surprise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import PARTICLES, Conditions
from caloforge.learn.models.prior import Places, Prior, surprise_of
from caloforge.learn.models.vqvae import layers_of, whole
from caloforge.tasks.blind import as_particle, check_told

__all__ = ["ODDS", "cut_prior", "log_likelihoods", "prior_tokens", "surprises"]

ODDS = 2 * (len(PARTICLES) - 1)


def surprises(
    network: Prior, scale: Any, voxels: Tensor, given: Conditions
) -> tuple[Tensor, Places, Tensor]:
    """Surprises (B, 1 + N, 2) in nats of voxels (B, R, PHI, Z) in MeV, of energies and of codes:
    of the whole shower, then of each place; what the prior said, and the vectors (B, D) of what it
    was told.
    """
    clean, known = scale(voxels, given), network.config.tokeniser
    codes = network.tokeniser.tokenise(clean, given)
    said = network.places(codes, clean.energies, given)
    spread = scale.energies.moments(given.features)[1]
    first = network.surprise_of_whole(clean.energies, given) + whole(known, spread).sum(dim=1)
    energies = said.profile + layers_of(spread, known.tokens).sum(dim=2)
    words = surprise_of(codes, said.logits)
    both = [torch.cat([first[:, None], energies], dim=1), F.pad(words, (1, 0))]
    told = network.condition_of(whole(known, clean.energies), given)
    return torch.stack(both, dim=2), said, told


def prior_tokens(
    network: Prior, scale: Any, voxels: Tensor, given: Conditions, block: int
) -> Tensor:
    """Tokens (B, 1 + N, `ODDS` + D) of a prior after a block, the whole shower's first.

    Before the vector of each place stands how much more it surprises for each of the `PARTICLES`
    but the first, in energies and in codes; with the whole shower's, how much all of it does.
    """
    found = [surprises(network, scale, voxels, as_particle(given, code)) for code in PARTICLES]
    first, said, told = found[0]
    tokens = torch.cat([told[:, None], said.hidden[block - 1]], dim=1)
    apart = torch.stack([each - first for each, _, _ in found[1:]], dim=2)  # (B, 1 + N, P - 1, 2)
    all_of_it = torch.stack([apart[:, :1, :, 0], apart.sum(dim=(1, 3))[:, None]], dim=3)
    apart = torch.cat([all_of_it, apart[:, 1:]], dim=1).flatten(2)
    return torch.cat([apart, F.layer_norm(tokens, tokens.shape[-1:])], dim=2)


def cut_prior(network: Prior, block: int) -> Prior:
    """Copy of a prior without its decoder; what is likely is said after all of its blocks."""
    part = copy.deepcopy(network)
    part.tokeniser.decoder = part.tokeniser.decoder[:0]
    return part


@torch.inference_mode()
def log_likelihoods(
    model: Model, voxels: Tensor, given: Conditions, codes: Sequence[int]
) -> NDArray[np.float64]:
    """Logarithms (B, C) of the likelihood of voxels (B, R, PHI, Z) in MeV, in nats, for C particles
    (PDG codes), under conditions of `Blind`.

    Raises `RequestError` for a particle that the model is never told, and a model without one.
    """
    check_told(codes)
    if not isinstance(model.network, Prior) or not model.network.config.tokeniser.layers:
        raise RequestError("only a prior with layers has a likelihood to compare; take 'codes'")
    parts = [
        -surprises(model.network, model.scale, voxels, as_particle(given, code))[0].sum(dim=(1, 2))
        for code in codes
    ]
    return torch.stack(parts, dim=1).cpu().double().numpy()
