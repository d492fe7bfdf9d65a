"""Verbs that make a model fit for its use: adapt, distill, forge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import (
    DetectorArgument,
    Energy,
    JsonFlag,
    Particle,
    Seed,
    Theta,
    answer,
    app,
    command_line,
)

Method = Annotated[
    str, typer.Option(help="full, bias, lora, head, or energies (only what is fitted in seconds).")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")]


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="A shipped model or a checkpoint folder.")],
    data: Annotated[list[Path], typer.Argument(help="Showers of the new detector.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapted model.")],
    method: Method = "full",
    steps: Annotated[
        int | None, typer.Option(help="Steps; from the number of showers by default.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the optimiser; the method's own by default.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the adapters of lora; 8 by default.")] = None,
    guard: Annotated[
        list[Path] | None,
        typer.Option(help="Showers of an old detector to see what is forgotten; repeatable."),
    ] = None,
    resume: Resume = False,
    minutes: Annotated[
        float | None, typer.Option(help="End this slice after so many minutes, to be resumed.")
    ] = None,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Adapt a trained model to the showers of one more detector; no setting needs to be tuned.

    Example: caloforge adapt base mine.h5 --out runs/mine
    """
    from caloforge.learn.adapt import adapt as learn
    from caloforge.learn.adapt import described

    found = learn(
        model, data, out, method=method, steps=steps, learning_rate=learning_rate, rank=rank,
        guards=guard, seed=seed, resume=resume, minutes=minutes,
    )  # fmt: skip
    answer(described(found), as_json, "\n".join(f"{k}: {v}" for k, v in described(found).items()))


@app.command()
def distill(
    model: Annotated[str, typer.Argument(help="The teacher: a shipped model or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the student.")],
    steps: Annotated[int, typer.Option(help="Draws in which the student makes a shower.")] = 2,
    detector: Annotated[
        list[str] | None,
        typer.Option(help="What to learn; repeatable. By default the teacher's named detectors."),
    ] = None,
    showers: Annotated[int, typer.Option(help="Showers that the teacher makes.")] = 20_000,
    start: Annotated[str | None, typer.Option(help="A student to begin from.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: --set steps=1000.")
    ] = None,
    resume: Resume = False,
    minutes: Annotated[
        float | None, typer.Option(help="End this slice after so many minutes, to be resumed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Distil a model into a small student of few steps, for one core of a CPU.

    Example: caloforge distill runs/mine --detector mine.toml --start student --out runs/mine-2
    """
    from caloforge.distill import distill as learn

    summary = learn(
        model, out, steps=steps, detectors=detector or [], showers=showers, start=start,
        changes=changes or [], resume=resume, minutes=minutes,
    )  # fmt: skip
    answer(vars(summary), as_json, "\n".join(f"{k}: {v}" for k, v in vars(summary).items()))


@app.command()
def forge(
    detector: DetectorArgument,
    out: Annotated[Path, typer.Option(help="Folder of everything it makes.")],
    showers: Annotated[int, typer.Option(help="Geant4 showers to adapt to.")] = 1000,
    judged: Annotated[int, typer.Option(help="Geant4 showers more, to validate against.")] = 400,
    model: Annotated[str, typer.Option(help="What to adapt: shipped, or a folder.")] = "codes",
    method: Method = "full",
    steps: Annotated[
        int | None, typer.Option(help="Steps; from the number of showers by default.")
    ] = None,
    particle: Particle = "e-",
    energy: Energy = "1:100",
    theta: Theta = "0.87:2.27",
    workers: Annotated[int, typer.Option(help="Processes of Geant4.")] = 2,
    engine: Annotated[str, typer.Option(help="geant4, or parametric (GFlash-style).")] = "geant4",
    resume: Resume = False,
    seed: Seed = 1,
    as_json: JsonFlag = False,
) -> None:
    """From a detector file to a validated model: simulate, adapt, generate, validate, sum up.

    Example: caloforge forge mine.toml --showers 1000 --out forged
    """
    from caloforge.detector.detector import load_detector
    from caloforge.forge import Order
    from caloforge.forge import forge as run
    from caloforge.simulate.beam import beam_of

    order = Order(
        load_detector(detector).to_toml(), showers, judged, model, method, steps,
        beam_of(particle, energy, theta, "0:6.2832"), engine, seed,
    )  # fmt: skip
    result = run(order, out, workers=workers, resume=resume, command=command_line())
    answer(result, as_json, f"{result['headline']}\nsummary: {result['page']}")
