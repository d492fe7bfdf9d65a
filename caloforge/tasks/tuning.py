"""All weights learn: a pretrained network is tuned, or the same network learns from scratch.

Both begin with a linear head that is fitted to their first features, so that a tuned network starts
where the frozen one ends (A. Kumar et al., arXiv:2202.10054) and is never worse on the showers that
choose. What follows is the same for both: batches mirrored at random in phi (an exact symmetry, and
theta does not change under it), the project's optimiser, a rate that falls to zero, and the best
state of several looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caloforge.learn.checkpoint import Model
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.muon import Muon
from caloforge.progress import progress
from caloforge.showers.showers import Showers
from caloforge.tasks.blind import Blind
from caloforge.tasks.events import Deal
from caloforge.tasks.features import View, cut, features, glances, seen
from caloforge.tasks.head import BUDGET, Budget, Head, Lesson, fit_linear, loss_of
from caloforge.tasks.question import Question

__all__ = ["Tuned", "fresh", "tune"]

Array = NDArray[Any]
LOOKED_AT = 500  # Showers of those that choose; more cost more than they tell.
FITTED = 4000  # Showers that the first head is fitted to.
CAREFUL = 0.1  # Of the rate, for the head.
WARM = 0.05  # Share of the steps in which the rate rises.


@dataclass(frozen=True)
class Tuned:
    """A cut network and the head on it; losses on the showers that choose, by step."""

    model: Model
    head: Head
    losses: dict[int, float]


def fresh(model: Model, seed: int) -> Model:
    """The same network, not trained; its preprocessing is kept, which favours it."""
    torch.manual_seed(seed)
    network = type(model.network)(model.network.config)
    for name, value in model.network.named_buffers(recurse=False):
        network.get_buffer(name).copy_(value)
    return replace(model, network=network.to(next(model.network.parameters()).device))


def tune(
    question: Question, model: Model, showers: Showers, deal: Deal, view: View, *,
    manner: str = "tuned", seed: int = 0, budget: Budget | None = None,
) -> Tuned:  # fmt: skip
    """Let all weights of the first blocks of `model` learn the question, with energies in MeV.

    `manner` chooses the budget, ``tuned`` or ``scratch``; the latter starts from `fresh` weights.
    """
    keep_freed_memory()
    budget = budget or BUDGET[manner]
    model = fresh(model, seed) if manner == "scratch" else model
    model = replace(model, network=cut(model.network, view.block).train())
    few = [rows[:: max(1, len(rows) // most)] for rows, most in (
        (deal.train, FITTED), (deal.choose, LOOKED_AT))]  # fmt: skip
    target = question.target(showers)
    lessons = [
        Lesson.of(question, features(model, showers[rows], view), target[rows]) for rows in few
    ]
    head = fit_linear(question, *lessons).to(next(model.network.parameters()).device)
    both = nn.ModuleDict({"network": model.network.train(), "head": head})
    losses = _learn(question, both, model, showers, (deal.train, few[1]), view, budget, seed)
    return Tuned(replace(model, network=model.network.eval()), head.eval().cpu(), losses)


def _learn(
    question: Question, both: nn.ModuleDict, model: Model, showers: Showers,
    rows: tuple[Array, Array], view: View, budget: Budget, seed: int,
) -> dict[int, float]:  # fmt: skip
    """Train in place, and put back the best state; returns the losses of the looks."""
    assert showers.detector is not None
    device = next(both.parameters()).device
    blind, train = Blind(model.scale, showers.detector, device), rows[0]
    both.requires_grad_(True)
    optimisers = {
        1.0: Muon(model.network, lr=budget.rate, weight_decay=0.01),
        # A sum of hundreds of features moves far when each weight moves a little.
        CAREFUL: torch.optim.AdamW(both["head"].parameters(), lr=budget.rate, weight_decay=0.01),
    }
    steps = budget.steps(len(train))
    target = question.target(showers)
    best = _look(question, both, model, blind, showers[rows[1]], view)
    state, losses = _kept(both), {0: best}
    spread = 1.0 if question.classes else max(best, 1e-9)  # one rate serves every unit
    with progress(f"learning {question.name}", steps, "steps") as advance:
        for step in range(steps):
            rate = min(1.0, (step + 1) / (WARM * steps)) * (1 - step / steps)
            for share, optimiser in optimisers.items():
                for group in optimiser.param_groups:
                    group["lr"] = budget.rate * rate * share
            chosen, voxels = _batch(showers, train, budget.batch, (seed, step))
            voxels = voxels.to(device)
            x = seen(model.network, model.scale, blind(voxels), voxels, view)
            loss = _loss(question, both["head"](x), x, target[chosen]) / spread
            both.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            for optimiser in optimisers.values():
                optimiser.step()
            advance(1)
            if (step + 1) % max(1, steps // budget.looks) == 0 or step + 1 == steps:
                losses[step + 1] = _look(question, both, model, blind, showers[rows[1]], view)
                if losses[step + 1] < best:
                    best, state = losses[step + 1], _kept(both)
    both.load_state_dict(state)
    return losses


def _kept(both: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in both.state_dict().items()}


def _batch(
    showers: Showers, train: Array, size: int, seed: tuple[int, int]
) -> tuple[Array, Tensor]:
    """Numbers (B,) and voxels (B, R, PHI, Z) in MeV of a batch: a pass over all, then another."""
    run, step = seed
    per_pass = max(1, len(train) // size)
    order = np.random.default_rng([run, step // per_pass]).permutation(train)
    chosen = order[(step % per_pass) * size :][:size]
    voxels = torch.from_numpy(showers[chosen].dense())
    flip = torch.from_numpy(np.random.default_rng([run, step, 1]).random(len(chosen)) < 0.5)
    return chosen, torch.where(flip[:, None, None, None], voxels.flip(2), voxels)


def _loss(question: Question, out: Tensor, x: Tensor, target: Array) -> Tensor:
    lesson = Lesson.of(question, x[:, :1].detach().cpu().numpy(), target)
    y = torch.from_numpy(np.asarray(lesson.y, np.float32))
    return loss_of(question, out, y.to(out.device))


@torch.inference_mode()
def _look(
    question: Question, both: nn.ModuleDict, model: Model, blind: Blind, showers: Showers,
    view: View,
) -> float:  # fmt: skip
    both.eval()
    rows = [
        seen(model.network, model.scale, blind(voxels), voxels, view)
        for voxels in glances(showers, blind.one.energy.device)
    ]
    x = torch.cat(rows)
    loss = _loss(question, both["head"](x), x, question.target(showers))
    both.train()
    return float(loss)
