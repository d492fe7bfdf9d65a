"""Verbs that learn and generate: train, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import (
    DialectOption,
    Energy,
    JsonFlag,
    Particle,
    Phi,
    Seed,
    Theta,
    answer,
    app,
    command_line,
)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key: --set steps=100; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/RECIPE by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    minutes: Annotated[
        float | None, typer.Option(help="End this slice after so many minutes, to be resumed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a model as a recipe says; stop it anywhere and go on with --resume.

    Example: caloforge train recipes/tiny.toml --set 'data=["showers.h5"]' --out runs/first
    """
    from caloforge.learn.recipe import load_recipe
    from caloforge.learn.train import train as learn

    chosen = load_recipe(recipe, changes or [])
    summary = learn(chosen, out or Path("runs") / recipe.stem, resume=resume, minutes=minutes)
    answer(vars(summary), as_json, "\n".join(f"{k}: {v}" for k, v in vars(summary).items()))


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="A shipped model or a checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="The file of showers to write.")],
    detector: Annotated[
        str | None,
        typer.Option(help="A named detector or a TOML file; the default is that of --like."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="Number of showers; 100 without --like.")
    ] = None,
    particle: Particle = "e-",
    energy: Energy = "1:100",
    theta: Theta = "0.87:2.27",
    phi: Phi = "0:6.2832",
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler; the model's own by default.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="euler, heun, multistep, ancestral or beliefs; the model's by default."),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Take the primaries from this file, in its order.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Exaggerate the conditions; 1 is the law that was learned.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of an autoregressive model: below 1, likelier tokens.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Of an autoregressive model: only its k likeliest tokens.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Showers per batch.")] = 64,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Allow what the model was not trained on.")
    ] = False,
    dialect: DialectOption = "native",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Generate showers with a trained model.

    Example: caloforge generate base showers.h5 --detector par04-siw -n 1000 --energy 1:100
    """
    from caloforge.generate import generate_file
    from caloforge.learn.models.family import Manner
    from caloforge.simulate.beam import beam_of

    beam = beam_of(particle, energy, theta, phi)
    summary = generate_file(
        model, out, detector=detector, n=n, beam=beam, seed=seed,
        manner=Manner(steps, sampler, guidance, temperature, top_k), like=like, batch=batch,
        extrapolate=extrapolate, dialect=dialect, device=device, command=command_line(),
    )  # fmt: skip
    answer(summary, as_json, "\n".join(f"{key}: {value}" for key, value in summary.items()))
