"""The classifiers of the CaloChallenge at work on files: one against Geant4, or all at once.

Inputs are those of the challenge: log10 of the incident energy (MeV) with either the high-level
features or the voxels over the incident energy. What the networks are is in `networks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.challenge import ChallengeFeatures, Source, voxel_blocks
from caloforge.evaluate.compare import classifier_metric
from caloforge.evaluate.metric import Key, Metric
from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.scoreboard import Board
from caloforge.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from caloforge.evaluate.binning import Binning
    from caloforge.evaluate.networks import Rows, Scored
    from caloforge.evaluate.validation import Options

__all__ = ["CLASSIFIERS", "network_metrics", "posterior"]

Array = NDArray[Any]
# By name, what is classified: `trees` are those of `classifier`, the others networks.
CLASSIFIERS = {
    "trees": "gradient-boosted trees on shower features",
    "features": "three layers of 2,048 on the CaloChallenge's high-level features",
    "voxels": "three layers of 2,048 on voxels over incident energy",
    "resnet": "three-dimensional 18-layer residual network on voxels over incident energy",
}
EPOCHS = 50
_TITLES = {"features": "AUC, features", "voxels": "AUC, voxels", "resnet": "AUC, ResNet"}


def network_metrics(
    name: str,
    board: Board,
    sources: tuple[Source, Source, Source | None],
    trainings: int,
) -> list[Metric]:
    """Area under the ROC curve, no unit, of one of `CLASSIFIERS` ("trees" is not one of these).

    `sources`: files of reference, generated and floor. The value takes as many showers of either
    file as the smaller has; a floor without a file takes halves.
    """
    first, second, third = sources
    n = min(len(first), len(second))
    value = _told(name, board, (first, np.arange(len(first))[-n:]), (second, np.arange(n)),
                  (board.reference, board.generated), trainings)  # fmt: skip
    index, other = board.chosen, (third or first, board.floor or board.reference)
    floor = board.remembered(
        f"classifier {name}",
        lambda: _told(name, board, (first, index.reference), (other[0], index.floor),
                      (board.reference, other[1]), trainings),
    )  # fmt: skip
    text = (
        f"area under the ROC curve of {CLASSIFIERS[name]} (60/20/20 % to train, choose the epoch "
        f"and judge; {n} showers of either, mean of {trainings} trainings, {value.seconds:.0f} s)"
    )
    key = Key(f"classifier_{name}", _TITLES[name], "classifier", suffix="auc")
    return [classifier_metric(key, value.area, floor.area, text)]


def _told(
    name: str, board: Board, first: tuple[Source, Array], second: tuple[Source, Array],
    features: tuple[ChallengeFeatures, ChallengeFeatures], trainings: int,
) -> Scored:  # fmt: skip
    """Train to tell two sets of showers, each a file and its rows."""
    from caloforge.evaluate.networks import as_rows, perceptron, residual_network, scored

    labels = np.concatenate([np.full(len(second[1]), 0), np.full(len(first[1]), 1)])
    binning = board.reference.binning
    if name == "features":
        parts = [features[1].matrix(np.sort(second[1])), features[0].matrix(np.sort(first[1]))]
        inputs: Rows = as_rows(parts)
        width = parts[0].shape[1]
    else:
        inputs, width = _Sparse([second, first], binning), 1 + binning.n_voxels
    if name == "resnet":
        make = lambda: residual_network(_shape(binning))  # noqa: E731
    else:
        make = lambda: perceptron(width)  # noqa: E731
    with progress(f"classifier on {name}", trainings * EPOCHS, "epochs") as advance:
        return scored(make, inputs, labels, trainings=trainings, epochs=EPOCHS, seed=board.seed,
                      advance=advance)  # fmt: skip


def _shape(binning: Binning) -> tuple[int, int, int]:
    layer = binning.layers[0]
    return len(binning.layers), layer.n_alpha, len(layer.r_edges) - 1


class _Sparse:
    """Serves (log10 E, voxels/E), f4, of any showers: kept sparse, made dense batch by batch."""

    def __init__(self, parts: Sequence[tuple[Source, Array]], binning: Binning) -> None:
        from scipy.sparse import csr_array, vstack

        energies, rows = [], []
        for source, index in parts:
            for energy, voxels in voxel_blocks(source, binning, np.sort(index)):
                energies.append(energy)
                rows.append(csr_array((voxels / energy[:, None]).astype(np.float32)))
        self.energy = np.log10(np.concatenate(energies)).astype(np.float32)
        self.voxels = vstack(rows, format="csr")

    def __call__(self, index: Array) -> Tensor:
        import torch

        dense = self.voxels[index].toarray()
        return torch.from_numpy(np.concatenate([self.energy[index, None], dense], axis=1))


def posterior(
    features: Sequence[ChallengeFeatures], labels: Sequence[str], options: Options
) -> dict[str, Estimate]:
    """Mean log-posterior of every generated sample for Geant4 showers, natural logarithm.

    A perceptron on the high-level features learns whose a shower is, at equal numbers. `features`:
    reference first, then the generated samples; what comes after is not used. The
    answer by label: who is told from the others comes out below -log K; the highest is the one that
    Geant4 is taken for. "chance" is -log K.
    """
    from caloforge.evaluate.networks import as_rows, perceptron, whose

    models = features[1 : len(labels)]
    n = min(len(f) for f in models)
    rng = np.random.default_rng(options.seed)
    asked = rng.permutation(len(features[0]))[: max(n, 1)]
    parts = [f.matrix(np.sort(rng.permutation(len(f))[:n])) for f in models]
    parts.append(features[0].matrix(np.sort(asked)))
    kinds = np.concatenate([np.full(len(p), k) for k, p in enumerate(parts)])
    kinds[kinds == len(models)] = -1
    width, trainings = parts[0].shape[1], min(options.trainings, 3)
    with progress("whose is it", trainings * EPOCHS, "epochs") as advance:
        found, _ = whose(
            lambda: perceptron(width, len(models)), as_rows(parts), kinds,
            np.flatnonzero(kinds == -1), trainings=trainings, epochs=EPOCHS,
            seed=options.seed, advance=advance,
        )  # fmt: skip
    table = dict(zip(labels[1:], found, strict=True))
    return {**table, "chance": Estimate(float(-np.log(len(models))), 0.0)}
