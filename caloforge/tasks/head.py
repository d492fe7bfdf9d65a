r"""What answers a question from a row of features: one linear layer, or a small network.

*Linear.* Features are standardised and clipped; a value is found by ridge regression in closed form
(Hoerl and Kennard, doi:10.1080/00401706.1970.10488634), classes by logistic regression; how much
weights are shrunk is chosen by the showers that choose. *Small network*: one hidden layer, stopped
where these are served best.

The energy is regressed as what the logarithm of the energy that the visible energy suggests is off
by, in units of :math:`0.1 \sqrt{\mathrm{GeV}/E}`, with which it fluctuates: the features are
whitened, so they are as large at 100 GeV as at 1 GeV, and a linear layer needs a target of which
the same is true.

*Response.* A regression knows the range it was taught in and draws towards its middle at both ends.
As usual for jets (numerical inversion, e.g. arXiv:1406.0076) the mean of :math:`\ln E_{reco} - \ln
E` is fitted against the true energy on the showers that choose, and taken back.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.tasks.question import Question

__all__ = [
    "BUDGET",
    "Budget",
    "Head",
    "Lesson",
    "Response",
    "answers",
    "fit_linear",
    "fit_small",
    "loss_of",
]

Array = NDArray[Any]
TYPICAL = 0.1  # sqrt(GeV): brings what is missing to about one.
CLIP = 8.0  # Spreads: no shower is further away than that.
SHRINK = 10.0 ** np.arange(-1, 6.1, 0.5)  # Ridge.
STIFF = 10.0 ** np.arange(-4, 1.1, 0.5)  # Logistic regression: inverse of the shrinkage.


@dataclass(frozen=True)
class Budget:
    """How long what is not closed form may learn: `passes` over the labels, within `least` and
    `most` steps of `batch` showers at a learning `rate`; it is looked at `looks` times, and the
    best state is kept.
    """

    rate: float
    passes: int
    least: int
    most: int
    batch: int
    looks: int = 12

    def steps(self, labels: int) -> int:
        """Steps for so many labels."""
        return int(np.clip(self.passes * labels // self.batch, self.least, self.most))


BUDGET: Mapping[str, Budget] = MappingProxyType(
    {
        "mlp": Budget(rate=1e-3, passes=40, least=400, most=4000, batch=128),
        "tuned": Budget(rate=3e-4, passes=10, least=150, most=2500, batch=64),
        "scratch": Budget(rate=2e-3, passes=20, least=400, most=3000, batch=64),
    }
)


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from: x (N, F) features, y (N,) what a head is to say: see `answers`."""

    x: Array
    y: Array

    @classmethod
    def of(cls, question: Question, x: Array, target: Array) -> Lesson:
        """Put targets (N,) into the unit of a head."""
        if question.name != "energy":
            return cls(x, target)
        offset, unit = _energy_scale(x)
        return cls(x, (target - offset) / unit)


def answers(question: Question, x: Array, out: Array) -> Array:
    """Outputs (N, K) of a question from those of a head for features (N, F).

    Energies as logarithms of MeV; classes as logarithms of probabilities; theta in rad.
    """
    if question.classes:
        top = out.max(axis=1, keepdims=True)
        return np.asarray(out - top - np.log(np.exp(out - top).sum(axis=1, keepdims=True)))
    if question.name != "energy":
        return out
    offset, unit = _energy_scale(x)
    return np.asarray(offset[:, None] + unit[:, None] * out)


def _energy_scale(x: Array) -> tuple[Array, Array]:
    """Logarithm (N,) of the energy in MeV that the visible one suggests, and the unit (N,) of what
    it is off by; the first feature is ln(E/GeV).
    """
    start = x[:, 0].astype(float)
    return start + np.log(1e3), TYPICAL * np.exp(-start / 2)


class Head(nn.Module):
    """From features (N, F) to outputs (N, K): standardised, then linear, or by a hidden layer."""

    centre: Tensor
    spread: Tensor

    def __init__(self, inputs: int, outputs: int, hidden: int = 0) -> None:
        super().__init__()
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        if hidden:
            self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden or inputs, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def to_dict(self) -> dict[str, int]:
        """What it is made with, as plain values for JSON."""
        return {"inputs": self.inputs, "outputs": self.outputs, "hidden": self.hidden}

    def standardise(self, x: Tensor) -> Tensor:
        """Features (N, F) in spreads from their centre, clipped."""
        return ((x - self.centre) / self.spread).clamp(-CLIP, CLIP)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, K) of features (N, F)."""
        x = self.standardise(x)
        if self.hidden:
            x = F.silu(self.first(x))
        answer: Tensor = self.last(x)
        return answer

    @torch.no_grad()
    def fit_scale(self, x: Array) -> None:
        """Fit centre and spread to features (N, F); what does not vary stays where it is."""
        spread = x.std(axis=0)
        self.centre.copy_(torch.from_numpy(x.mean(axis=0)))
        self.spread.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)))

    @torch.inference_mode()
    def answer(self, x: Array) -> Array:
        """Outputs (N, K) of features (N, F) as arrays."""
        out = self(torch.from_numpy(np.asarray(x, np.float32)))
        return np.asarray(out.numpy(), dtype=float)


def fit_linear(question: Question, teach: Lesson, choose: Lesson) -> Head:
    """A linear head, taught by one lesson; the other chooses how much it is shrunk."""
    head = Head(teach.x.shape[1], question.outputs)
    head.fit_scale(teach.x)
    a, b = (head.standardise(torch.from_numpy(part.x)).double().numpy() for part in (teach, choose))
    weight, bias = (_logistic if question.classes else _ridge)(a, b, teach, choose)
    with torch.no_grad():
        head.last.weight.copy_(torch.from_numpy(weight))
        head.last.bias.copy_(torch.from_numpy(bias))
    return head


def _ridge(a: Array, b: Array, teach: Lesson, choose: Lesson) -> tuple[Array, Array]:
    """Weights (1, F) and bias (1,) by ridge regression of rows (N, F)."""
    centre, level = a.mean(axis=0), float(teach.y.mean())
    rows = a - centre
    values, vectors = np.linalg.eigh(rows.T @ rows)
    pull = vectors.T @ (rows.T @ (teach.y - level))
    seen, wanted = (b - centre) @ vectors, choose.y - level
    best: tuple[float, Array] | None = None
    for shrink in SHRINK:
        part = pull / (np.maximum(values, 0.0) + shrink)
        miss = float(np.mean((seen @ part - wanted) ** 2))
        if best is None or miss < best[0]:
            best = miss, vectors @ part
    assert best is not None
    return best[1][None], np.array([level - centre @ best[1]])


def _logistic(a: Array, b: Array, teach: Lesson, choose: Lesson) -> tuple[Array, Array]:
    """Weights (K, F) and biases (K,) by logistic regression of rows (N, F)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    classes, best = np.arange(int(teach.y.max()) + 1), None
    model = LogisticRegression(max_iter=300, warm_start=True)
    for stiff in STIFF:
        model.set_params(C=stiff)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early shrinks too
            model.fit(a, teach.y)
        miss = log_loss(choose.y, model.predict_proba(b), labels=classes)
        if best is None or miss < best[0]:
            best = miss, model.coef_.copy(), model.intercept_.copy()
        elif miss > 1.05 * best[0]:
            break  # it only gets stiffer from here
    assert best is not None
    weight, bias = best[1], best[2]
    if len(weight) == 1:  # two classes have one row in scikit-learn
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def loss_of(question: Question, out: Tensor, y: Tensor) -> Tensor:
    """Loss () of what a head says (N, K) for y (N,) of `Lesson`: cross entropy, or squares."""
    if question.classes:
        return F.cross_entropy(out, y.long())
    return (out[:, 0] - y).square().mean()


def fit_small(
    question: Question, teach: Lesson, choose: Lesson, *, hidden: int = 128, seed: int = 0
) -> Head:
    """A small network on features (N, F), stopped where the showers that choose are best served."""
    budget = BUDGET["mlp"]
    torch.manual_seed(seed)
    head = Head(teach.x.shape[1], question.outputs, hidden)
    head.fit_scale(teach.x)
    x, y, seen, judged = (
        torch.from_numpy(np.asarray(part, np.float32))
        for part in (teach.x, teach.y, choose.x, choose.y)
    )
    scale = 1.0 if question.classes else float(teach.y.std())
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=budget.rate, weight_decay=0.05)
    steps = budget.steps(len(x))
    best, state = float("inf"), {k: v.clone() for k, v in head.state_dict().items()}
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = budget.rate * (1 - step / steps)
        rows = torch.randint(len(x), (budget.batch,), generator=draw)
        loss = loss_of(question, head(x[rows]), y[rows]) / scale**2
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % max(1, steps // budget.looks) == 0:
            with torch.no_grad():
                miss = float(loss_of(question, head(seen), judged))
            if miss < best:
                best, state = miss, {k: v.clone() for k, v in head.state_dict().items()}
    head.load_state_dict(state)
    return head.eval()


class Response:
    """Correction of an energy for the mean response: `terms` (4,) of a cubic in ln(E/GeV).

    Beyond the energies that it was fitted with (`ends`, GeV) it stays what it is at their ends.
    """

    def __init__(self, terms: Sequence[float], ends: Sequence[float]) -> None:
        self.terms, self.ends = [float(t) for t in terms], [float(e) for e in ends]

    @classmethod
    def fit(cls, found: Array, true: Array, weight: Array) -> Response:
        """Fit to logarithms (N,) of found and true energies in MeV; few showers get fewer terms."""
        order = 3 if len(true) >= 400 else 1 if len(true) >= 100 else 0
        x = true - np.log(1e3)
        rows = np.vander(x, order + 1, increasing=True) * weight[:, None]
        terms = np.linalg.lstsq(rows, (found - true) * weight, rcond=None)[0]
        return cls([*terms, *[0.0] * (3 - order)], [np.exp(x.min()), np.exp(x.max())])

    def mean(self, energy: Array) -> Array:
        """Mean (N,) of the logarithm of found over true at logarithms (N,) of energies in MeV."""
        x = np.clip(np.asarray(energy) - np.log(1e3), *np.log(self.ends))
        return np.asarray(np.vander(x, len(self.terms), increasing=True) @ self.terms)

    def corrected(self, found: Array) -> Array:
        """Logarithms (N,) of corrected energies in MeV; a few fixed-point steps invert the mean."""
        energy = np.asarray(found, dtype=float)
        for _ in range(5):
            energy = found - self.mean(energy)
        return energy
