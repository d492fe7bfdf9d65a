"""The classifier test: how well a machine tells generated showers from Geant4's.

A classifier learns to separate two samples from high-level features of a shower; its area under the
receiver operating characteristic on showers it has not seen is 0.5 if the samples cannot be told
apart (C. Krause, D. Shih, Phys. Rev. D 107 (2023) 113003, arXiv:2106.05285). Here: histogram
gradient boosting (scikit-learn), stratified folds, everything seeded. The number depends on the
size of the samples, which is why the floor is measured at the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.metrics import Estimate

if TYPE_CHECKING:
    from caloforge.evaluate.observables import Observables

__all__ = ["classifier_auc", "features", "hanley_mcneil"]

Array = NDArray[Any]
_TWINS = 4  # showers of one primary that are kept together; more are a beam of one kind
_FLOOR_SHARE = 1e-8  # of the incident energy: stands for "nothing" under a logarithm


def features(obs: Observables) -> Array:
    """High-level features (N, F), f4, of N showers, dimensionless or in mm.

    log10 of the incident energy, cos(theta), log10 of response and hits, the four moments (mm), the
    azimuthal dipole, quadrupole and smoothness, and per layer, ring and sector the log10 share of
    the incident energy, per layer also the share of the hits. After the high-level features of the
    CaloChallenge (arXiv:2410.21611), with moments in the place of centres per layer.
    """
    energy = obs.energy[:, None]
    hits = np.maximum(obs.hits, 1)[:, None]
    scalars = [
        np.log10(obs.energy), np.cos(obs.theta), np.log10(obs.response + _FLOOR_SHARE),
        np.log10(hits[:, 0]), obs.z_mean, obs.z_width, obs.r_mean, obs.r_width,
        obs.phi_cos, obs.phi_cos2, obs.sector_link,
    ]  # fmt: skip
    parts = (obs.layer_energy, obs.ring_energy, obs.sector_energy)
    shares = [np.log10(part / energy + _FLOOR_SHARE) for part in parts]
    return np.hstack([np.stack(scalars, axis=1), *shares, obs.layer_hits / hits]).astype(np.float32)


def classifier_auc(
    first: Array, second: Array, folds: int = 5, seed: int = 0, groups: Array | None = None
) -> Estimate:
    """Area under the ROC curve, in [0, 1], of a classifier of features (n, F) and (m, F).

    Mean over `folds` stratified, seeded folds, each scored by a classifier that has not seen it.
    `groups` (n + m,): showers that must not be torn apart, such as two of the very same primary,
    of which one would give the other away. The error adds in quadrature the spread over the folds
    and that of one AUC on n + m showers (J. A. Hanley, B. J. McNeil, Radiology 143 (1982) 29):
    folds share their training showers, so their spread alone is too small (measured: by 1.4 on
    Geant4 against itself). Raises `ValueError` if a sample has fewer showers than folds.
    """
    x = np.concatenate([first, second])
    y = np.concatenate([np.zeros(len(first), int), np.ones(len(second), int)])
    cut = _cut(x, y, folds, seed, groups)
    scores = np.array([_fold(x, y, train, test, seed) for train, test in cut])
    value = float(scores.mean())
    spread = float(scores.std(ddof=1) / np.sqrt(folds))
    return Estimate(value, float(np.hypot(spread, hanley_mcneil(value, len(first), len(second)))))


def _cut(
    x: Array, y: Array, folds: int, seed: int, groups: Array | None
) -> Iterator[tuple[Array, Array]]:
    """Yield training and test indices; by groups where there are enough of them to be drawn."""
    from sklearn.model_selection import StratifiedKFold

    if groups is not None:
        names, group, size = np.unique(groups, return_inverse=True, return_counts=True)
        if len(y) > len(names) and size.max() <= _TWINS:
            place = np.random.default_rng(seed).permutation(len(names))[group.reshape(-1)] % folds
            if all(len(np.unique(y[place == k])) == 2 for k in range(folds)):
                for k in range(folds):
                    yield np.flatnonzero(place != k), np.flatnonzero(place == k)
                return
    yield from StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y)


def _fold(x: Array, y: Array, train: Array, test: Array, seed: int) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=15, max_features=0.3, l2_regularization=1.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    # One thread: the trees then never depend on the machine, and busy cores do not stall them.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(x[train], y[train])
        score = model.predict_proba(x[test])[:, 1]
    return float(roc_auc_score(y[test], score))


def hanley_mcneil(area: float, n: int, m: int) -> float:
    """Return the standard error of an AUC, no unit, from n and m showers."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    square = area**2
    variance = area * (1 - area) + (n - 1) * (q1 - square) + (m - 1) * (q2 - square)
    return float(np.sqrt(max(variance, 0.0) / (n * m)))
