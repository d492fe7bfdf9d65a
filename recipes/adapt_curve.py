"""The curve of docs/adapt.md: quality in detectors that were never trained on, against showers.

    python recipes/adapt_curve.py --data DIR [--old NAME=GEANT4.h5 ...] [--out runs/adapt] [-n 300]
                                  [--start MODEL] [--only JOB ...] [--table] [--plot FILE.png]

DIR holds for every detector NAME.h5 (to adapt to), NAME-test.h5 and NAME-floor.h5 (Geant4 showers
with other seeds; without a floor the test file is halved). A job is one line of `JOBS`: adapt a
model to the first so many showers by one method, or train from scratch on the same ones, generate
the primaries of the test file and compare. What is done already is not done again, a run that was
stopped goes on; `--table` prints what there is as Markdown, and `--plot` draws AUC against seconds.
`--start`: what to adapt, a prior with layers or a diffusion model; what is trained from scratch is
of its kind: a tokeniser and a prior, of size `micro` or of the shape of what is adapted (`same`),
so many steps each, or a diffusion model. The showers of docs/adapt.md (D=recipes/detectors):

    caloforge simulate $D/copper-silicon.toml copper-silicon.h5 -n 10000 --seed 6000
    caloforge simulate $D/copper-silicon.toml copper-silicon-test.h5 -n 600 --seed 6001
    caloforge simulate $D/copper-silicon.toml copper-silicon-floor.h5 -n 600 --seed 6002

and likewise lead-argon (seeds 6100 to 6102) and pbwo4 (6200 to 6202).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from judged import COLUMNS, cells, generated

from caloforge.files import atomic_path
from caloforge.learn.adapt import adapt
from caloforge.learn.checkpoint import load_model
from caloforge.learn.loop import Summary
from caloforge.learn.models import prior, vqvae
from caloforge.learn.recipe import Recipe
from caloforge.learn.settings import PriorSettings, VqvaeSettings
from caloforge.learn.train import train
from caloforge.showers.formats import open_showers, write_showers


@dataclass(frozen=True)
class Job:
    """One row: `method` of an adaptation, ``zero``, or ``scratch`` (`size`, `steps`); size ``same``
    is the shape of what is adapted.
    """

    detector: str
    showers: int
    method: str
    size: str = "small"
    steps: int | None = None
    start: str = "codes"

    @property
    def name(self) -> str:
        """What it is called on disk."""
        if self.method == "scratch":
            size = Path(self.start).name if self.size == "same" else self.size
            return f"{self.detector}-{self.showers}-scratch-{size}-{self.steps}"
        return f"{self.detector}-{self.showers}-{self.method}-{Path(self.start).name}"


CSI, LAR, PWO = "copper-silicon", "lead-argon", "pbwo4"
JOBS = (
    *(Job(d, 0, "zero") for d in (CSI, LAR, PWO)),
    *(Job(d, 1000, method) for d in (CSI, LAR, PWO) for method in ("energies", "full")),
    *(Job(CSI, 1000, method) for method in ("head", "lora", "bias")),
    *(
        Job(d, n, m)
        for d in (CSI, LAR, PWO)
        for n in (100, 300, 3000)
        for m in ("energies", "full")
    ),
    *(Job(d, 1000, "scratch", "micro", 350) for d in (CSI, LAR, PWO)),
    *(Job(d, 1000, "scratch", "micro", 1000) for d in (CSI, LAR, PWO)),
    *(Job(d, 10_000, "scratch", "micro", n) for d in (CSI, LAR, PWO) for n in (1500, 3000)),
    *(Job(d, 1000, "scratch", "same", 1000) for d in (CSI, LAR, PWO)),
    Job(CSI, 1000, "scratch", "small", 200),
    Job(CSI, 1000, "scratch", "small", 3900),
    Job(CSI, 10_000, "scratch", "small", 3900),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--old", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/adapt"))
    parser.add_argument("-n", type=int, default=300, help="showers to generate")
    parser.add_argument("--start", default="codes", help="what to adapt")
    parser.add_argument("--only", nargs="*", help="names of jobs")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path, help="AUC against seconds, of every start")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    sizes = ("micro", "same") if load_model(asked.start).family == "prior" else ("small",)
    jobs = [replace(job, start=asked.start) for job in JOBS if comparable(job, sizes)]
    measures = not (asked.table or asked.plot)
    for job in jobs:
        wanted = asked.only is None or job.name in asked.only
        if wanted and measures and (asked.data / f"{job.detector}.h5").is_file():
            print(job.name, json.dumps(measured(job, asked)), flush=True)
    print(table(jobs, asked.out))
    if asked.plot:
        plot(asked.out, asked.plot)


def comparable(job: Job, sizes: Sequence[str]) -> bool:
    """Whether a job belongs to the start: what is trained anew is of its kind, of `sizes`."""
    return job.method != "scratch" or job.size in sizes


def measured(job: Job, asked: argparse.Namespace) -> dict[str, Any]:
    """Do one job, or read what was found before."""
    out = asked.out / job.name
    done = asked.out / f"{job.name}.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    row: dict[str, Any] = {"detector": job.detector, "showers": job.showers, "method": job.method}
    model: str | Path = job.start
    began = time.process_time()
    if job.method == "scratch":
        model, row = out, row | scratch(job, asked)
    elif job.method != "zero":
        model, row = out, row | adapted(job, asked)
    row["cpu_s"] = round(time.process_time() - began, 1)
    test, floor = (asked.data / f"{job.detector}-{part}.h5" for part in ("test", "floor"))
    row |= generated(
        model, test, floor if floor.is_file() else None, asked.out / f"{job.name}.h5", asked.n
    )
    if job.method in ("zero", "full") and job.detector == CSI and job.showers in (0, 1000):
        for pair in asked.old:
            name, path = pair.split("=", 1)
            made = asked.out / f"{job.name}-{name}.h5"
            found = generated(model, Path(path), None, made, asked.n)
            row[f"old {name}"] = found
    done.write_text(json.dumps(row, indent=1))
    return row


def first_of(job: Job, asked: argparse.Namespace) -> Path:
    """A file of the first so many showers."""
    path = asked.out / f"{job.detector}-{job.showers}.h5"
    if not path.is_file():
        with closing(open_showers(asked.data / f"{job.detector}.h5")) as source:
            if len(source) < job.showers:
                raise SystemExit(f"{job.name}: only {len(source)} showers are there")
            write_showers(source.read(0, job.showers), path)
    return path


def adapted(job: Job, asked: argparse.Namespace) -> dict[str, Any]:
    found = adapt(
        job.start, [first_of(job, asked)], asked.out / job.name, method=job.method, steps=job.steps,
        resume=(asked.out / job.name / "recipe.json").is_file(),
    )  # fmt: skip
    return {
        "steps": found.step, "best": found.best_step, "seconds": found.seconds,
        "loss": [found.before, found.after],
        "guarded": {g.detector: [g.before, g.after] for g in found.guarded},
    }  # fmt: skip


def scratch(job: Job, asked: argparse.Namespace) -> dict[str, Any]:
    """Train anew on the same showers: a tokeniser and its prior, or a diffusion model.

    The best of twelve validations is kept.
    """
    assert job.steps is not None
    out = asked.out / job.name
    common: dict[str, Any] = dict(
        data=[str(first_of(job, asked))], steps=job.steps, batch=64, patience=10**6,
        warmup=min(50, job.steps // 10), validate_every=max(1, job.steps // 12),
    )  # fmt: skip
    if job.size == "small":
        found = trained(Recipe(**common, size="small", learning_rate=4e-3, decay=0.8, ema=0.98,
                               masked=0.15, untold=0.05), out)  # fmt: skip
        return {"steps": found.step, "seconds": found.seconds}
    common |= dict(learning_rate=5e-3, decay=0.5, ema=0.99)
    known, sizes = VqvaeSettings(layers=True, codes=512, mixture=2), ("micro", "micro")
    if job.size == "same":
        known, sizes = shape_of(job.start)
    tokens = out.with_name(f"{out.name}-tokens")
    first = trained(Recipe(**common, model="vqvae", size=sizes[0], vqvae=known), tokens)
    told = PriorSettings(tokeniser=str(tokens), mixture=6)
    then = trained(Recipe(**common, model="prior", size=sizes[1], prior=told, scale_steps=1), out)
    return {"steps": first.step + then.step, "seconds": first.seconds + then.seconds}


def shape_of(start: str) -> tuple[VqvaeSettings, tuple[str, str]]:
    """Settings of the tokeniser of a prior, and the sizes of the two."""
    config = load_model(start).network.config
    known = config.tokeniser
    settings = VqvaeSettings(layers=True, codes=known.codes, mixture=known.mixture, near=known.near)
    return settings, (size_of(known, vqvae.SIZES), size_of(config, prior.SIZES))


def size_of(config: Any, sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the size of a network."""
    wanted = config.width, config.depth
    return next(name for name, size in sizes.items() if (size["width"], size["depth"]) == wanted)


def trained(recipe: Recipe, out: Path) -> Summary:
    """Train, or go on with what was stopped."""
    return train(recipe, out, resume=(out / "recipe.json").is_file())


def table(every: Sequence[Job], out: Path) -> str:
    """Rows as a table in Markdown, with a row of floors for each detector."""
    lines = [
        f"| detector | method | showers | steps | CPU s | {' | '.join(COLUMNS)} |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for detector in (CSI, LAR, PWO):
        jobs = [job for job in every if job.detector == detector]
        jobs = [job for job in jobs if (out / f"{job.name}.json").is_file()]
        for job in sorted(jobs, key=lambda j: (j.method == "scratch", j.showers)):
            row = json.loads((out / f"{job.name}.json").read_text())
            method = f"scratch ({job.size})" if job.method == "scratch" else job.method
            row_cells = [detector, method, str(job.showers), str(row.get("steps", 0)),
                     f"{row['cpu_s']:.0f}"]  # fmt: skip
            row_cells += cells(row, list(COLUMNS))
            lines.append(f"| {' | '.join(row_cells)} |")
            floors = cells(row, list(COLUMNS), floor=True)
        if jobs:
            lines.append(f"| {detector} | Geant4 | | | | {' | '.join(floors)} |")
    return "\n".join(lines)


def plot(out: Path, to: Path) -> None:
    """Draw what there is: seconds of one core to the right, AUC upward, a panel a detector."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    starts = ("codes", "codes-quick")
    series: dict[str, tuple[str, list[Job]]] = {
        f"{start}, 1,000 showers: energies, full": (
            fmt, [Job("", 1000, method, start=start) for method in ("energies", "full")],
        )
        for start, fmt in zip(starts, ("o-C0", "s-C2"), strict=True)
    }  # fmt: skip
    series["from scratch, micro, 1,000 showers"] = "X:C3", [Job("", 1000, "scratch", "micro", 1000)]
    series["from scratch, as codes, 1,000 showers"] = (
        "P:C1", [Job("", 1000, "scratch", "same", 1000)],
    )  # fmt: skip
    series["from scratch, micro, 10,000 showers"] = (
        "D:C5", [Job("", 10_000, "scratch", "micro", steps) for steps in (1500, 3000)],
    )  # fmt: skip
    figure, panels = plt.subplots(
        1, 3, figsize=(11, 4.2), sharex=True, sharey=True, layout="constrained"
    )
    for axes, detector in zip(panels, (CSI, LAR, PWO), strict=True):
        floor = None
        for label, (fmt, jobs) in series.items():
            paths = [out / f"{replace(job, detector=detector).name}.json" for job in jobs]
            rows = [json.loads(path.read_text()) for path in paths if path.is_file()]
            if not rows:
                continue
            x, auc = [row["cpu_s"] for row in rows], [row[COLUMNS["AUC"]] for row in rows]
            axes.errorbar(
                x, [a[0] for a in auc], [a[1] for a in auc], fmt=fmt, capsize=2, ms=7, label=label
            )
            floor = auc[0][2]
        if floor is not None:
            axes.axhline(floor, color="grey", ls="--", lw=1, label="Geant4 against Geant4")
        axes.set(xscale="log", xlabel="seconds of one core", title=detector)
    panels[0].set_ylabel("AUC of the trees")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    with atomic_path(to) as sibling:
        figure.savefig(sibling, dpi=110, format="png")


if __name__ == "__main__":
    main()
