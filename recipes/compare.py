"""The tables of docs/models.md: all generators, losses and scalings at equal processor time.

    python recipes/compare.py --data SIW.h5 SCIPB.h5 --judge NAME=GEANT4.h5,FLOOR.h5 ...
                              [--study kinds|losses|scalings|autoencoders]
                              [--out runs/compare] [--seconds 300] [-n 1000] [--only NAME ...]
                              [--times | --table]

Each kind is trained by its own recipe (recipes/KIND.toml) for as many steps as fit into the budget
of processor time, found by timing a few; the autoregressive prior shares its budget with its
tokeniser. Then it generates the primaries of every Geant4 file and is compared with it. `--times`
adds the time of a shower in batches of 1 and 100 on one core, and wants an idle machine. The
classical engine needs no training. What is done already is not done again; a run that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budget import trained
from judged import cells, compared, generated

from caloforge.evaluate.timing import time_generation
from caloforge.learn.checkpoint import load_model
from caloforge.learn.recipe import load_recipe
from caloforge.showers.formats import open_showers, read_showers, write_showers
from caloforge.simulate.beam import Beam, event_seeds
from caloforge.simulate.parametric import parametric_showers

LOG = ("voxels.divide=incident_mev", "voxels.transform=log")
HERE = Path(__file__).parent
COLUMNS = ("AUC", "response", "resolution", "hits", "depth [mm]", "cell spectrum")


@dataclass(frozen=True)
class Stage:
    """A recipe with changes (`{out}`: folder of the job), and its share of the budget."""

    recipe: str
    changes: tuple[str, ...] = ()
    share: float = 1.0


KINDS: Mapping[str, tuple[Stage, ...]] = {
    "classical": (),
    "diffusion, flow": (Stage("tiny"),),
    "diffusion, beliefs": (Stage("student", ("calls=2",)),),
    "dense VAE": (Stage("vae"),),
    "transformer VAE": (Stage("broadcast"),),
    "graph": (Stage("graph"),),
    "VQ-VAE + prior": (
        Stage("vqvae", (), 0.5),
        Stage("prior", ('prior.tokeniser="{out}/vqvae"',), 0.5),
    ),
}
LOSSES: Mapping[str, tuple[Stage, ...]] = {
    f"loss {loss}": (Stage("broadcast", (f"broadcast.loss={loss}", f"broadcast.kl={kl}", *LOG)),)
    for loss, kl in (("bce", 1.0), ("mse", 1.0), ("mae", 1.0), ("sinkhorn", 0.01))
}
SCALINGS: Mapping[str, tuple[Stage, ...]] = {
    f"{divide}, {transform}": (
        Stage("broadcast", ("broadcast.loss=mse", "broadcast.kl=1.0", f"voxels.divide={divide}",
                            f"voxels.transform={transform}")),
    )
    for divide, transform in (
        ("incident_mev", "none"), ("incident_gev", "none"), ("largest", "none"),
        ("percentile", "none"), ("incident_mev", "log"), ("incident_mev", "power"),
        ("incident_mev", "logit"), ("largest", "log"), ("percentile", "log"),
    )
}  # fmt: skip
AUTOENCODERS: Mapping[str, tuple[Stage, ...]] = {
    f"{encoder} encoder, {decoder} decoder": (
        Stage("broadcast", (f"broadcast.encoder={encoder}", f"broadcast.decoder={decoder}")),
    )
    for encoder in ("dense", "transformer")
    for decoder in ("dense", "broadcast")
}
STUDIES = {"kinds": KINDS, "losses": LOSSES, "scalings": SCALINGS, "autoencoders": AUTOENCODERS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--judge", nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--study", choices=list(STUDIES), default="kinds")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--times", action="store_true", help="time what is done")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    jobs = STUDIES[asked.study]
    asked.out = asked.out / asked.study
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.only or jobs:
        if asked.times:
            time_row(name, jobs[name], asked)
        elif not asked.table:
            print(name, json.dumps(measured(name, jobs[name], asked)), flush=True)
    print(table(asked.out, list(jobs)))


def measured(name: str, stages: tuple[Stage, ...], asked: argparse.Namespace) -> dict[str, Any]:
    """Train, generate, compare and time one kind, or read what was found before."""
    out = folder_of(name, asked)
    done = out.with_suffix(".json")
    if done.is_file():
        return dict(json.loads(done.read_text()))
    row: dict[str, Any] = {"name": name, "stages": [], "parameters": 0, "detectors": {}}
    model = out
    for stage in stages:
        model = out / stage.recipe
        changes = [change.format(out=out) for change in stage.changes]
        changes += [f"data={json.dumps(asked.data)}"]
        recipe = load_recipe(HERE / f"{stage.recipe}.toml", changes)
        row["stages"].append(trained(recipe, model, stage.share * asked.seconds))
    if stages:
        row["parameters"] = sum(p.numel() for p in load_model(model).network.parameters())
    out.mkdir(exist_ok=True)
    for pair in asked.judge:
        detector, _, files = pair.partition("=")
        test, floor = (Path(file) for file in files.split(","))
        made = out / f"{detector}.h5"
        if stages:
            row["detectors"][detector] = generated(model, test, floor, made, asked.n)
        else:
            row["detectors"][detector] = classical(test, floor, made, asked.n)
    done.write_text(json.dumps(row, indent=1))
    return row


def classical(test: Path, floor: Path, made: Path, n: int) -> dict[str, Any]:
    """Showers of the parametrised engine for the first n primaries of a file, compared."""
    with closing(open_showers(test)) as source:
        like = source.read(0, min(n, len(source)))
    assert like.detector is not None
    began = time.process_time()
    showers = parametric_showers(
        like.detector, like.energy, like.theta, like.phi, like.pdg, event_seeds(7, 0, len(like))
    )
    spent = time.process_time() - began
    write_showers(showers, made)
    found = compared(test, made, floor)
    made.unlink()
    return found | {"generate_s": round(spent / len(like), 4)}


def time_row(name: str, stages: tuple[Stage, ...], asked: argparse.Namespace) -> None:
    """Add milliseconds per shower to a row that is there."""
    out = folder_of(name, asked)
    done = out.with_suffix(".json")
    if not done.is_file():
        return
    row = json.loads(done.read_text())
    for pair in asked.judge:
        detector, _, files = pair.partition("=")
        model = out / stages[-1].recipe if stages else None
        row["detectors"][detector]["ms"] = timed(model, Path(files.split(",")[0]))
    done.write_text(json.dumps(row, indent=1))


def folder_of(name: str, asked: argparse.Namespace) -> Path:
    """Folder of a job."""
    return Path(asked.out / name.replace(" ", "-").replace(",", "").replace("+-", ""))


def timed(model: Path | None, test: Path) -> dict[str, float | None]:
    """Milliseconds per shower on one core in batches of 1 and of 100."""
    detector = read_showers(test).detector
    assert detector is not None
    if model is None:
        beam, times = Beam(), {}
        for batch in (1, 100):
            p = beam.primaries(5, 0, batch)
            began = time.process_time()
            parametric_showers(detector, p.energy, p.theta, p.phi, p.pdg, p.seed)
            times[str(batch)] = round(1e3 * (time.process_time() - began) / batch, 2)
        return times
    found = time_generation(model, detector, Beam(), batches=(1, 100), repeats=5, seconds=300)
    return {str(row["batch"]): row["ms"] for row in found["rows"]}


def table(out: Path, names: list[str]) -> str:
    """Rows as tables in Markdown, one for each detector, with the floor."""
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    rows.sort(key=lambda row: names.index(row["name"]))
    lines = []
    for detector in rows[0]["detectors"] if rows else ():
        lines += [
            f"\n**{detector}**\n",
            "| kind | parameters [M] | steps | training [CPU s] | ms at 1 | at 100 | "
            + " | ".join(COLUMNS)
            + " |",
            "|---" * (6 + len(COLUMNS)) + "|",
        ]
        for row in rows:
            found = row["detectors"][detector]
            one, many = (found.get("ms", {}).get(batch) for batch in ("1", "100"))
            head = [
                row["name"], f"{row['parameters'] / 1e6:.2f}" if row["parameters"] else "",
                " + ".join(str(stage["steps"]) for stage in row["stages"]),
                " + ".join(str(stage["cpu_s"]) for stage in row["stages"]),
                *("" if ms is None else f"{ms:.1f}" for ms in (one, many)),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(head + cells(found, COLUMNS))} |")
        floor = ["Geant4 against Geant4", *[""] * 5, *cells(found, COLUMNS, floor=True)]
        lines.append(f"| {' | '.join(floor)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
