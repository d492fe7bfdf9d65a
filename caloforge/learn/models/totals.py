"""The law of energy and hits of whole showers, fitted to the showers of one more detector.

It decides the resolution. The networks of it are small and see nothing but the primary, so that a
fit takes seconds. It cannot be left to the correction of the whitening: where a detector is unlike
the others its law has another shape, and no mean and spread make a broad law a narrow core with a
tail of leakage. Nor to the steps in which all the rest learns, of which it would need many more.

What the law says of other detectors is rehearsed: half of every batch are energies that it drew
itself before the fit, in detectors with descriptors as they were spread in the pretraining (Robins,
doi:10.1080/09540099550039318).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES
from caloforge.learn.condition import FEATURE_NAMES, Conditions
from caloforge.learn.mirrors import turned_back
from caloforge.learn.noise import Dealt

if TYPE_CHECKING:
    from caloforge.learn.models.prior import Prior
    from caloforge.learn.preprocess import ShowerScale

__all__ = ["fit_totals"]

STEPS, BATCH, RATE, WARM = 300, 64, 1e-2, 10
MEMORY = 0.98  # Of the averaged weights, which are those that are judged and kept.
LOOK = 25  # Steps between two judgements.
HELD = 5  # One shower of so many judges.
REHEARSED = 4096  # Showers of other detectors.

_OVER = FEATURE_NAMES.index("log_energy_over_critical")
_CRITICAL = FEATURE_NAMES.index("log_critical_energy_mev")


def fit_totals(network: Prior, scale: ShowerScale, voxels: Tensor, given: Conditions) -> None:
    """Fit the law of a prior to voxels (N, R, PHI, Z) in MeV under their conditions.

    Each shower counts as it is and mirrored along the beam, which changes neither number. A fifth
    of them says when the law is at its best, and whether it is better than before by more than half
    of what chance makes of it: if not, nothing changes. A shape that is wrong costs more than one
    that is a little worse.
    """
    draw = torch.Generator().manual_seed(0)
    told, white = _images(scale, voxels, given)
    others, drawn = _others(network, given, draw)
    held = (torch.arange(len(voxels)) % HELD == 0).repeat(2)
    judging, seen = (which.nonzero()[:, 0] for which in (held, ~held))

    def surprise(features: Tensor, energies: Tensor) -> Tensor:
        return network.surprise_of_whole(energies, given._replace(features=features))

    law = network.energies
    learner = copy.deepcopy(law).requires_grad_(True)
    average, best = copy.deepcopy(law).requires_grad_(False), law
    optimiser = torch.optim.AdamW(learner.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    with torch.no_grad():
        before = least = surprise(told[judging], white[judging])
    for step in range(STEPS):
        rows = seen[torch.randint(len(seen), (BATCH,), generator=draw)]
        old = torch.randint(REHEARSED, (BATCH,), generator=draw)
        both = torch.cat([told[rows], others[old]]), torch.cat([white[rows], drawn[old]])
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM) * (1 - step / STEPS)
        network.energies = learner
        loss = 2 * surprise(*both).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = min(MEMORY, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(learner.parameters()), 1 - keep)
            if (step + 1) % LOOK == 0:
                network.energies = average
                now = surprise(told[judging], white[judging])
                if now.mean() < least.mean():
                    least, best = now, copy.deepcopy(average)
    gain = before - least
    chance = float(gain.std()) / len(gain) ** 0.5
    network.energies = best if float(gain.mean()) > chance / 2 else law


def _images(scale: ShowerScale, voxels: Tensor, given: Conditions) -> tuple[Tensor, Tensor]:
    """Features (2 N, F) of showers, then with theta become pi - theta, and their whitened energy
    and hits (2 N, 2) likewise.
    """
    draw = torch.Generator().manual_seed(0)
    back = turned_back(given.features, torch.ones(len(voxels), dtype=torch.bool))
    images = [given._replace(features=features) for features in (given.features, back)]
    white = torch.cat([scale(voxels, image, draw).energies for image in images])
    return torch.cat([given.features, back]), white[:, [0, -1]]


@torch.no_grad()
def _others(network: Prior, given: Conditions, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features (M, F) of the same primaries in other detectors, and energies (M, k) of whole
    showers as the law draws them.
    """
    rows = torch.randint(given.showers, (REHEARSED,), generator=draw)
    features, d = given.features[rows], len(DESCRIPTOR_NAMES)
    normal = torch.randn(REHEARSED, d, generator=draw)
    features[:, -d:] = network.told.mean[-d:] + network.told.spread[-d:] * normal
    features[:, _OVER] = given.energy[rows].log() - features[:, _CRITICAL]
    numbers = torch.randn(REHEARSED, 2 * len(network.energies), generator=draw)
    return features, network.draw_energies(given._replace(features=features), Dealt(numbers))
