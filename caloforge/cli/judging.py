"""Verbs that judge and measure: validate, timing, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import Energy, JsonFlag, Particle, Seed, Theta, answer, app


@app.command()
def validate(
    reference: Annotated[Path, typer.Argument(help="Geant4 showers.")],
    generated: Annotated[
        list[Path], typer.Argument(help="Showers to be judged: one file, or several models.")
    ],
    floor: Annotated[
        Path | None, typer.Option(help="More Geant4 showers; without, the reference is split.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of metrics.json and report.html.")] = Path(
        "validation"
    ),
    label: Annotated[
        list[str] | None,
        typer.Option(help="Name of a generated file in the report, in their order; repeatable."),
    ] = None,
    classifiers: Annotated[
        str, typer.Option(help="trees, features, voxels, resnet (by commas), all or none.")
    ] = "trees",
    trainings: Annotated[
        int, typer.Option(help="Trainings that a neural classifier is the mean of.")
    ] = 10,
    neighbours: Annotated[
        int, typer.Option(help="Most showers for precision, recall, density, coverage; 0: none.")
    ] = 5000,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="Of the map of trust, relative: response=0.005; repeatable."),
    ] = None,
    timing: Annotated[
        list[Path] | None, typer.Option(help="What 'caloforge timing' wrote; in their order.")
    ] = None,
    binning: Annotated[
        Path | None, typer.Option(help="Binning XML of a CaloChallenge file that is on no mesh.")
    ] = None,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Say how close showers are to Geant4: metrics.json and a report that opens in a browser.

    Example: caloforge validate geant4.h5 generated.h5 --out validation
    Several models: caloforge validate geant4.h5 a.h5 b.h5 --floor more.h5 --classifiers all
    """
    from caloforge.evaluate.request import validate_files
    from caloforge.evaluate.trust import tolerances
    from caloforge.evaluate.validation import Options, named_classifiers

    options = Options(
        seed, classifiers=named_classifiers(classifiers), trainings=trainings,
        neighbours=neighbours, tolerances=tolerances(tolerance or []),
    )  # fmt: skip
    result = validate_files(
        reference, generated, out, floor, labels=label, options=options, timings=timing,
        binning=binning,
    )  # fmt: skip
    said, where = result["verdict"], f"report: {out / 'report.html'}"
    parts = (said["headline"], "\n".join([said["paragraph"], *result["warnings"]]), said["quote"])
    answer(result, as_json, "\n\n".join([*parts, where]))


@app.command()
def timing(
    model: Annotated[str, typer.Argument(help="A shipped model or a checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    detector: Annotated[str, typer.Option(help="A named detector or a TOML file.")] = "par04-siw",
    batch: Annotated[
        list[int] | None, typer.Option(help="Showers per call; repeatable. 1, 100 and 10000.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Calls of each size.")] = 10,
    minutes: Annotated[
        float, typer.Option(help="Longest time for one size; then fewer repeats, or none.")
    ] = 5.0,
    particle: Particle = "e-",
    energy: Energy = "1:100",
    theta: Theta = "0.87:2.27",
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler; the model's own by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure how long a model takes per shower, as the CaloChallenge does: batches 1, 100, 10000.

    Example: caloforge timing base timing.json --batch 1 --batch 100
    """
    from caloforge.detector.detector import load_detector
    from caloforge.evaluate.timing import BATCHES, time_into
    from caloforge.simulate.beam import beam_of

    result = time_into(
        out, model, load_detector(detector), beam_of(particle, energy, theta, "0:6.2832"),
        batches=batch or list(BATCHES), repeats=repeats, seconds=60 * minutes, steps=steps,
        device=device, threads=threads, seed=seed,
    )  # fmt: skip
    lines = [f"batch {row['batch']}: {row['note']}" for row in result["rows"]]
    answer(result, as_json, "\n".join([*lines, f"wrote {out}"]))


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of everything it makes.")] = Path("quickstart"),
    n: Annotated[int, typer.Option("-n", help="Showers to generate.")] = 1000,
    events: Annotated[int, typer.Option(help="Events to simulate with Geant4.")] = 40,
    seed: Seed = 1,
) -> None:
    """Do all of it, small: simulate, generate, compare speeds, validate.

    Example: caloforge quickstart --out quickstart
    """
    from caloforge.quickstart import quickstart as run

    for line in run(out, n=n, events=events, seed=seed):
        print(line, flush=True)
