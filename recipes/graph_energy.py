"""Energy regression by a graph network, end to end, against the calibrated sum with its angle.

    python recipes/graph_energy.py SHOWERS.h5 --minutes 8

Trains on four fifths of the showers, chooses nothing on the rest, and prints for both methods the
spread of E_found/E_true - 1 (half of the central 68.3 %) and its median, in ranges of the true
energy, with errors by bootstrap over the showers that were not trained on. Energies in GeV.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.hitgraph import GraphNetwork, config_of
from caloforge.learn.models.reader import Reader, features
from caloforge.learn.preprocess import CUT_MEV
from caloforge.showers.formats import read_showers
from caloforge.showers.showers import Showers

EDGES = (1, 5, 20, 50, 100)  # GeV


def told(showers: Showers, rows: NDArray[np.int64]) -> tuple[torch.Tensor, Conditions]:
    part = showers[rows]
    assert part.detector is not None
    number = np.zeros(len(part), np.int64)
    given = conditions([part.detector], number, part.energy, part.theta, part.pdg)
    return torch.from_numpy(part.dense()), given


def calibrated(
    showers: Showers, rows: NDArray[np.int64], fitted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Energies (len(rows),) in MeV from the sum: ln E a cubic in ln E_vis, and cos^2 theta."""
    x = np.log(showers.visible().astype(float))
    c2 = np.cos(showers.theta.astype(float)) ** 2
    a = np.stack([np.ones_like(x), x, x**2, x**3, c2, c2**2, c2 * x], axis=1)
    solution = np.linalg.lstsq(a[fitted], np.log(showers.energy[fitted].astype(float)), rcond=None)
    return np.exp(a[rows] @ solution[0])


def trained(
    showers: Showers, rows: NDArray[np.int64], size: str, minutes: float, batch: int
) -> Reader:
    """A reader of ln E, trained with a rate that falls to zero over so many minutes."""
    torch.manual_seed(0)
    voxels, given = told(showers, rows)
    assert showers.detector is not None
    network = GraphNetwork(config_of(size, showers.detector.mesh.shape))
    level = (voxels[voxels >= CUT_MEV] / CUT_MEV).log()
    network.levels.copy_(torch.stack([level.mean(), level.std()]))
    network.standard.fit(given.features)
    wanted = given.energy.log()[:, None]
    reader = Reader(network, 1)
    some = np.arange(min(1000, len(rows)))
    with torch.no_grad():
        found = torch.cat([features(network, voxels[i], Conditions(*(t[i] for t in given)))
                           for i in np.array_split(some, 20)])  # fmt: skip
    reader.fit(found, wanted[: len(some)])
    optimiser = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-2)
    rng, began, step, shown = np.random.default_rng(0), time.process_time(), 0, 0
    while (spent := (time.process_time() - began) / 60 / minutes) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30, 2 * (1 - spent) + 1e-3)
        i = torch.from_numpy(rng.choice(len(rows), batch, replace=False))
        guess = reader(voxels[i], Conditions(*(t[i] for t in given)))
        # Errors fall as one over the root of the energy: each shower counts for what it can tell.
        scale = 0.2 / (given.energy[i] / 1e3).sqrt() + 0.01
        loss = torch.nn.functional.smooth_l1_loss(guess[:, 0] / scale, wanted[i, 0] / scale)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        step, shown = step + 1, shown + batch
        if step % 100 == 0:
            print(f"step {step}, {shown / len(rows):.1f} rounds, loss {float(loss.detach()):.4f}")
    return reader.eval()


def table(truth: NDArray[np.float64], found: dict[str, NDArray[np.float64]]) -> None:
    rng = np.random.default_rng(1)
    print("| E, GeV | showers |" + "".join(f" {name}: spread | median |" for name in found))
    print("|---|---|" + "---|---|" * len(found))
    for low, high in [(EDGES[0], EDGES[-1]), *zip(EDGES[:-1], EDGES[1:], strict=True)]:
        here = np.flatnonzero((truth >= 1e3 * low) & (truth < 1e3 * high))
        line = f"| {low}-{high} | {len(here)} |"
        draws = rng.integers(len(here), size=(200, len(here)))
        for values in found.values():
            off = (values / truth - 1)[here]
            q = np.quantile(off, [0.1585, 0.5, 0.8415])
            more = np.quantile(off[draws], [0.1585, 0.5, 0.8415], axis=1)
            spread, error = (q[2] - q[0]) / 2, ((more[2] - more[0]) / 2).std()
            line += f" {spread:.4f} ± {error:.4f} | {q[1]:+.4f} ± {more[1].std():.4f} |"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("showers", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="processor time of the training")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    keep_freed_memory()
    showers = read_showers(asked.showers)
    order = np.random.default_rng(0).permutation(len(showers))
    train, test = np.sort(order[len(order) // 5 :]), np.sort(order[: len(order) // 5])
    assert not np.intersect1d(train, test).size
    reader = trained(showers, train, asked.size, asked.minutes, asked.batch)
    found = []
    with torch.no_grad():
        for rows in np.array_split(test, max(1, len(test) // 50)):
            found.append(reader(*told(showers, rows))[:, 0].exp())
    table(showers.energy[test].astype(float), {
        "calibrated sum": calibrated(showers, test, train),
        "graph": torch.cat(found).double().numpy(),
    })  # fmt: skip


if __name__ == "__main__":
    main()
