"""The tables of docs/models/vit.md: what a masked transformer learns, by pretext.

    python recipes/pretexts.py --data SIW.h5 SCIPB.h5 --test GEANT4.h5
                               --energies ELECTRONS.h5 --particles MIXED.h5
                               [--out runs/pretexts] [--seconds 60]
                               [--only NAME ...] [--table]

Every variant of recipes/vit.toml is trained for the same processor time. Then half of the patches
of test showers are hidden and the mean squared error of the hidden voxels is taken, in units of
that of the mean shower at that energy; and one linear layer on its frozen features tells the energy
and e-, gamma, pi0 and mu-, from 1,000 labels each, beside a network that was not trained. What is
done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from budget import trained

from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.condition import conditions
from caloforge.learn.losses import read
from caloforge.learn.recipe import load_recipe
from caloforge.learn.train import train
from caloforge.showers.formats import open_showers
from caloforge.showers.showers import Showers
from caloforge.tasks.features import View
from caloforge.tasks.work import Order, train_task

LABELS = 1000
HERE = Path(__file__).parent
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "untrained": (),
    "masked 10-90 %": (),
    **{f"masked {rate} %": (f"vit.share=[0.{rate // 10}, 0.{rate // 10}]",)
       for rate in (10, 30, 50, 60, 70, 80, 90)},
    "visible encoder, 10-90 %": ("vit.visible=true",),
    "visible encoder, 70 %": ("vit.visible=true", "vit.share=[0.7, 0.7]"),
    "positions learned": ("vit.positions=learned",),
    "positions fixed": ("vit.positions=fixed",),
    "filled with noise": ("vit.fill=noise",),
    "filled with the mean": ("vit.fill=mean",),
    "loss mae": ("vit.loss=mae",),
    "loss bce": ("vit.loss=bce",),
    "denoising": ("vit.task=denoise",),
    "replaced patches": ("vit.task=replaced",),
    "jigsaw": ("vit.task=jigsaw",),
    "with the energy": ("vit.energy=0.1",),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--energies", type=Path, required=True)
    parser.add_argument("--particles", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/pretexts"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        if not asked.table:
            print(name, json.dumps(measured(name, asked)), flush=True)
    print(table(asked.out))


def measured(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train a variant and see what it knows, or read what was found before."""
    run = asked.out / name.replace(" ", "-").replace("%", "percent").replace(",", "")
    done = run.with_suffix(".json")
    if done.is_file():
        return dict(json.loads(done.read_text()))
    changes = [f"data={json.dumps(asked.data)}", *VARIANTS[name]]
    recipe = load_recipe(HERE / "vit.toml", changes)
    row: dict[str, Any] = {"name": name}
    if name == "untrained":
        nothing = recipe.model_copy(update={"steps": 1, "learning_rate": 1e-9})
        train(nothing, run, resume=(run / "recipe.json").is_file())
        row |= {"steps": 0, "cpu_s": 0}
    else:
        row |= trained(recipe, run, asked.seconds)
    with closing(open_showers(asked.test)) as source:
        row["hidden"] = reconstruction(load_model(run), source.read(0, 500))
    row |= probed(run, asked)
    done.write_text(json.dumps(row, indent=1))
    return row


@torch.inference_mode()
def reconstruction(model: Model, showers: Showers) -> list[float] | None:
    """Squared error of hidden voxels over that of the mean shower at that energy, and its error."""
    network, settings = model.network, model.network.config.pretext
    if settings.task != "mask":
        return None
    assert showers.detector is not None
    index = np.zeros(len(showers), np.int64)
    given = conditions([showers.detector], index, showers.energy, showers.theta, showers.pdg)
    clean = model.scale(torch.from_numpy(showers.dense()), given)
    draw = torch.Generator().manual_seed(1)
    tokens = network.patches.tokens
    rank = torch.rand(len(showers), tokens, generator=draw).argsort(1).argsort(1)
    hidden = rank < tokens // 2
    everywhere = network.patches.fill(hidden)
    ours, theirs = [], []
    typical = mean_showers(clean.voxels, network.standard_energy(given))
    for part in torch.arange(len(showers)).split(100):
        told = type(given)(*(x[part] for x in given))
        shown = torch.where(everywhere[part], filling(network, told), clean.voxels[part])
        guess = read(settings.loss, network(shown, hidden[part], told).voxels)
        for found, kept in ((guess, ours), (typical[part], theirs)):
            miss = (found - clean.voxels[part]).square() * everywhere[part]
            kept.append(miss.sum((1, 2, 3)))
    one, two = torch.cat(ours), torch.cat(theirs)
    ratio = one.sum() / two.sum()
    error = ((one - ratio * two).std() / two.mean()) / len(one) ** 0.5
    return [float(ratio), float(error)]


def filling(network: Any, given: Any) -> torch.Tensor:
    """What a network was taught to see in the place of hidden voxels, without noise."""
    if network.config.pretext.fill == "mean":
        return network.mean_shower(given)  # type: ignore[no-any-return]
    return network.empty.expand(len(given.energy), *network.config.shape)  # type: ignore[no-any-return]


def mean_showers(voxels: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """Mean shower (N, R, PHI, Z) at standardised energies (N,): a parabola in every voxel."""
    terms = torch.stack([torch.ones_like(energy), energy, energy.square()], dim=1)
    found = torch.linalg.lstsq(terms, voxels.flatten(1)).solution
    return (terms @ found).reshape(voxels.shape)


def probed(run: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What one linear layer reads from features after the last block, and their errors."""
    depth = len(load_model(run).network.blocks)
    order = Order("energy", model=str(run), view=View(depth, "front"), labels=LABELS,
                  sceptics=False)  # fmt: skip
    found = {}
    for task, data in (("energy", asked.energies), ("particle", asked.particles)):
        with tempfile.TemporaryDirectory() as folder:
            record = train_task(replace(order, task=task), [data], Path(folder) / "task")
        (score,) = record["scores"].values()
        best = score["scaled_resolution" if task == "energy" else "accuracy"]
        found[task] = [best["value"], best["error"]]
    return found


def table(out: Path) -> str:
    """Rows as a table in Markdown."""
    lines = [
        "| pretext | steps | CPU s | hidden voxels | resolution x sqrt(E/GeV) [%] | accuracy [%] |",
        "|---" * 6 + "|",
    ]
    files = [path for path in out.glob("*.json") if not path.stem.endswith("-pace")]
    rows = {row["name"]: row for row in (json.loads(path.read_text()) for path in files)}
    for name in (name for name in VARIANTS if name in rows):
        row = rows[name]
        hidden = "" if row["hidden"] is None else "{:.3f} ± {:.3f}".format(*row["hidden"])
        lines.append(
            f"| {name} | {row['steps']} | {row['cpu_s']} | {hidden} | "
            + " | ".join(
                f"{100 * row[k][0]:.1f} ± {100 * row[k][1]:.1f}" for k in ("energy", "particle")
            )
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
