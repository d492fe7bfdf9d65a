"""The neural classifiers of the CaloChallenge, with a seed and an error (arXiv:2410.21611).

Three networks learn to tell generated showers from Geant4's: a perceptron with three layers of
2,048 on the high-level features, the same on the voxels over the incident energy, and a small
three-dimensional residual network (K. He et al., arXiv:1512.03385) on the voxels. Adam with 2e-4,
batches of 1,000, 50 epochs; 60 % of the showers to train, 20 % to choose the epoch of best accuracy
and to calibrate (isotonic regression), 20 % for the area under the ROC curve. The number is a mean
over trainings with seeds of their own, each with its own split and start; the published ones had
no seed.

With several models one more network learns whose a shower is, and Geant4 showers are asked: the
model with the highest mean log-posterior is taken for Geant4 most often (S. H. Lim et al.,
arXiv:2211.11765, and the challenge).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.evaluate.classifier import hanley_mcneil
from caloforge.evaluate.metrics import Estimate

__all__ = ["Scored", "as_rows", "perceptron", "residual_network", "scored", "whose"]

Array = NDArray[Any]
Rows = Callable[[Array], Tensor]  # indices (n,) of showers -> their inputs (n, F)
_BATCH, _RATE, _WIDTH = 1000, 2e-4, 2048
_PLANES = (32, 64, 64, 128)


@dataclass(frozen=True)
class Scored:
    """What a classifier found, and what it cost: area under the ROC curve, seconds of time."""

    area: Estimate
    seconds: float


def perceptron(inputs: int, outputs: int = 1, width: int | None = None) -> nn.Module:
    """Three hidden layers on (N, inputs), without unit: logits (N, outputs)."""
    width = width or _WIDTH
    sizes = [inputs, width, width, width]
    hidden = [
        part
        for a, b in zip(sizes, sizes[1:], strict=False)
        for part in (nn.Linear(a, b), nn.LeakyReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


class _Block(nn.Module):
    """Two convolutions and a shortcut: (N, A, ...) -> (N, B, ...), halved where stride is 2."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(planes_in, planes, 3, stride, 1, bias=False), nn.BatchNorm3d(planes),
            nn.ReLU(), nn.Conv3d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm3d(planes),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or planes_in != planes:
            self.shortcut = nn.Sequential(
                nn.Conv3d(planes_in, planes, 1, stride, bias=False), nn.BatchNorm3d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Residual(nn.Module):
    """An 18-layer residual network on (log10 E, voxels), the energy joined before the last layer.

    Input (N, 1 + V), voxels over the incident energy in the order (Z, PHI, R); logits (N, outputs).
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.shape = shape
        first = _PLANES[0]
        self.stem = nn.Sequential(
            nn.Conv3d(1, first, 7, 2, 3, bias=False), nn.BatchNorm3d(first), nn.ReLU(),
            nn.MaxPool3d(3, 2, 1),
        )  # fmt: skip
        blocks, before = [], first
        for number, planes in enumerate(_PLANES):
            blocks += [_Block(before, planes, 2 if number else 1), _Block(planes, planes, 1)]
            before = planes
        self.blocks = nn.Sequential(*blocks)
        self.energy = nn.BatchNorm1d(1)
        self.head = nn.Linear(before + 1, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        energy = self.energy(x[:, :1])  # (N, 1)
        voxels = x[:, 1:].reshape(-1, 1, *self.shape)  # (N, 1, Z, PHI, R)
        seen = self.blocks(self.stem(voxels)).mean(dim=(2, 3, 4))  # (N, 128)
        logits: Tensor = self.head(torch.cat([seen, energy], dim=1))  # (N, outputs)
        return logits


def residual_network(shape: tuple[int, int, int], outputs: int = 1) -> nn.Module:
    """Residual network on (N, 1 + Z PHI R) for a mesh of (Z, PHI, R) cells; no unit."""
    return _Residual(shape, outputs)


def scored(
    make: Callable[[], nn.Module],
    rows: Rows,
    labels: Array,
    *,
    trainings: int = 10,
    epochs: int = 50,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Scored:
    """Mean area under the ROC curve over `trainings` networks that tell labels (N,) 0 from 1.

    `rows(index)` gives the inputs (n, F) of the showers of an index (n,). The error adds the
    spread over the trainings and that of one area in quadrature. `advance(1)` after each epoch.
    """
    from sklearn.metrics import roc_auc_score

    began, areas = time.monotonic(), []
    for number in range(trainings):
        train, choose, judge = _split(labels, seed + number)
        network = _fitted(make, rows, labels, (train, choose), epochs, seed + number, advance)
        calibrate = _isotonic(_probability(network, rows, choose), labels[choose])
        areas.append(roc_auc_score(labels[judge], calibrate(_probability(network, rows, judge))))
    value = float(np.mean(areas))
    spread = float(np.std(areas, ddof=1) / np.sqrt(trainings)) if trainings > 1 else 0.0
    own = hanley_mcneil(value, *(int((labels[judge] == kind).sum()) for kind in (0, 1)))
    return Scored(Estimate(value, float(np.hypot(spread, own))), time.monotonic() - began)


def _split(labels: Array, seed: int) -> tuple[Array, Array, Array]:
    """Indices of 60, 20 and 20 % of every kind of shower, drawn by the seed."""
    rng = np.random.default_rng(seed)
    parts: list[list[Array]] = [[], [], []]
    for kind in np.unique(labels):
        index = rng.permutation(np.flatnonzero(labels == kind))
        ends = (np.array([0.6, 0.8]) * len(index)).astype(int)
        for part, piece in zip(parts, np.split(index, ends), strict=True):
            part.append(piece)
    train, choose, judge = (np.concatenate(part) for part in parts)
    return train, choose, judge


def _fitted(
    make: Callable[[], nn.Module], rows: Rows, labels: Array, index: tuple[Array, Array],
    epochs: int, seed: int, advance: Callable[[int], None] | None,
) -> nn.Module:  # fmt: skip
    """Train a network and return it as it was in its best epoch, ready to be asked."""
    train, choose = index
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
    best, best_state = -1.0, copy.deepcopy(network.state_dict())
    for epoch in range(epochs):
        _epoch(network, optimiser, rows, labels, rng.permutation(train))
        accuracy = float((_asked(network, rows, choose).argmax(1) == labels[choose]).mean())
        if advance is not None:
            advance(1)
        if accuracy > best:
            best, best_state = accuracy, copy.deepcopy(network.state_dict())
        if accuracy == 1.0:
            if advance is not None:
                advance(epochs - epoch - 1)
            break
    network.load_state_dict(best_state)
    return network


def _epoch(
    network: nn.Module, optimiser: torch.optim.Optimizer, rows: Rows, labels: Array, order: Array
) -> None:
    network.train()
    for index in _batches(order):
        optimiser.zero_grad(set_to_none=True)
        logits = network(rows(index))
        target = torch.as_tensor(labels[index])
        if logits.shape[1] == 1:
            loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
        else:
            loss = nn.functional.cross_entropy(logits, target.long())
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _batches(order: Array) -> list[Array]:
    """Cut an order (n,) into batches; a last one of a single shower has no spread to normalise."""
    cut = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
    return [index for index in cut if len(index) > 1]


@torch.no_grad()
def _asked(network: nn.Module, rows: Rows, index: Array) -> Array:
    """Log-probabilities (n, kinds) of every kind for the showers of an index (n,)."""
    network.eval()
    parts = []
    for start in range(0, len(index), _BATCH):
        logits = network(rows(index[start : start + _BATCH])).double()
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        parts.append(torch.log_softmax(logits, dim=1))
    return torch.cat(parts).numpy()


def _probability(network: nn.Module, rows: Rows, index: Array) -> Array:
    return np.asarray(np.exp(_asked(network, rows, index)[:, 1]))


def _isotonic(probability: Array, labels: Array) -> Callable[[Array], Array]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6)
    model.fit(probability, labels)
    return lambda p: np.asarray(model.predict(p))


def whose(
    make: Callable[[], nn.Module],
    rows: Rows,
    labels: Array,
    geant4: Array,
    *,
    trainings: int = 10,
    epochs: int = 50,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> tuple[list[Estimate], float]:
    """Mean log-posterior of every kind for Geant4 showers, natural logarithm, and the seconds.

    Trained on the showers with labels (N,) 0 ... K - 1 (-1: not used in training); `geant4` (M,)
    are the indices asked. Models that cannot be told apart all come out at -log K.
    """
    began, means = time.monotonic(), []
    for number in range(trainings):
        used = np.flatnonzero(labels >= 0)
        train, choose, judge = (used[part] for part in _split(labels[used], seed + number))
        index = (train, np.concatenate([choose, judge]))  # nothing is left to judge with
        network = _fitted(make, rows, labels, index, epochs, seed + number, advance)
        means.append(_asked(network, rows, geant4).mean(axis=0))
    table = np.asarray(means)
    spread = table.std(axis=0, ddof=1) if trainings > 1 else np.zeros(table.shape[1])
    found = [Estimate(float(m), float(s)) for m, s in zip(table.mean(axis=0), spread, strict=True)]
    return found, time.monotonic() - began


def as_rows(parts: Sequence[Array]) -> Rows:
    """Serve inputs from arrays (n_k, F) that are numbered one after the other; no unit."""
    whole = torch.as_tensor(np.concatenate(parts), dtype=torch.float32)
    return lambda index: whole[torch.as_tensor(index)]
