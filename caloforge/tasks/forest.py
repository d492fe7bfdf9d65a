"""Boosted trees as arrays, which answer without the library that grew them and are saved like any
weights.

Histogram gradient boosting (Friedman, doi:10.1214/aos/1013203451, in scikit-learn); the number of
trees is chosen by the showers that choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.tasks.head import Lesson
from caloforge.tasks.question import Question

__all__ = ["Forest", "grow"]

Array = NDArray[Any]
ROUNDS = 400


class Forest(nn.Module):
    """`trees` trees of up to `nodes` nodes and `depth` steps, from features (N, F) to outputs
    (N, K): a start, and what the leaf of each tree adds to one of them.
    """

    feature: Tensor
    threshold: Tensor
    below: Tensor
    above: Tensor
    value: Tensor
    output: Tensor
    start: Tensor

    def __init__(self, inputs: int, outputs: int, trees: int, nodes: int, depth: int) -> None:
        super().__init__()
        self.inputs, self.outputs, self.depth = inputs, outputs, depth
        empty = torch.zeros(trees, nodes, dtype=torch.int64)
        for name in ("feature", "below", "above"):  # a leaf leads to itself
            self.register_buffer(name, empty.clone())
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(trees, nodes, dtype=torch.float64))
        self.register_buffer("output", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("start", torch.zeros(outputs, dtype=torch.float64))

    def to_dict(self) -> dict[str, int]:
        """What it is made with, as plain values for JSON."""
        trees, nodes = self.feature.shape
        return {"inputs": self.inputs, "outputs": self.outputs, "trees": trees, "nodes": nodes,
                "depth": self.depth}  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, K) of features (N, F)."""
        tree = torch.arange(len(self.feature))
        node = torch.zeros(len(x), len(tree), dtype=torch.int64)
        for _ in range(self.depth):
            under = x.gather(1, self.feature[tree, node]) <= self.threshold[tree, node]
            node = torch.where(under, self.below[tree, node], self.above[tree, node])
        out = self.start.repeat(len(x), 1)
        return out.index_add_(1, self.output, self.value[tree, node])

    @torch.inference_mode()
    def answer(self, x: Array) -> Array:
        """Outputs (N, K) of features (N, F) as arrays."""
        x = np.asarray(x, np.float64)
        parts = [self(torch.from_numpy(x[k : k + 1024])) for k in range(0, len(x), 1024)]
        return np.asarray(torch.cat(parts).numpy())


def grow(question: Question, teach: Lesson, choose: Lesson, seed: int = 0) -> Forest:
    """Grow trees on one lesson; the other chooses after how many rounds to stop."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    small = len(teach.y) < 500
    settings: dict[str, Any] = dict(
        max_iter=ROUNDS, learning_rate=0.06, max_leaf_nodes=7 if small else 15,
        l2_regularization=1.0, min_samples_leaf=5 if small else 20, max_features=0.3,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    kind = HistGradientBoostingClassifier if question.classes else HistGradientBoostingRegressor
    with threadpool_limits(1, user_api="openmp"):
        grown = kind(**settings).fit(teach.x, teach.y)
        if question.classes:
            misses = [_surprise(p, choose.y) for p in grown.staged_predict_proba(choose.x)]
        else:
            misses = [float(np.mean((p - choose.y) ** 2)) for p in grown.staged_predict(choose.x)]
    rounds = int(np.argmin(misses)) + 1
    return _converted(grown, rounds, teach.x.shape[1], question.outputs)


def _surprise(probability: Array, y: Array) -> float:
    chosen = probability[np.arange(len(y)), y.astype(int)]
    return float(-np.log(chosen.clip(1e-9)).mean())


def _converted(grown: Any, rounds: int, inputs: int, outputs: int) -> Forest:
    """The arrays of scikit-learn's trees, which it keeps where tools that export them look."""
    chosen = [tree.nodes for each in grown._predictors[:rounds] for tree in each]
    start = np.atleast_1d(np.squeeze(grown._baseline_prediction)).astype(float)
    spoken = len(start)  # two classes have one score, that of the second
    forest = Forest(inputs, outputs, len(chosen), max(map(len, chosen)),
                    max(int(nodes["depth"].max()) for nodes in chosen))  # fmt: skip
    for number, nodes in enumerate(chosen):
        here, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
        for name, values in (
            ("below", np.where(leaf, here, nodes["left"])),
            ("above", np.where(leaf, here, nodes["right"])),
            ("feature", np.where(leaf, 0, nodes["feature_idx"])),
            ("threshold", np.where(leaf, 0.0, nodes["num_threshold"])),
            ("value", nodes["value"]),
        ):
            rows = forest.get_buffer(name)[number, : len(nodes)]
            rows.copy_(torch.from_numpy(np.asarray(values)))
        forest.output[number] = outputs - spoken + number % spoken
    forest.start[outputs - spoken :] = torch.from_numpy(start)
    return forest.eval()
