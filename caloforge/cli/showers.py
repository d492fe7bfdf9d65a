"""Verbs that make and convert showers: detectors, simulate, campaign, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import (
    DetectorArgument,
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
    help_if_alone,
)

detectors_app = typer.Typer(rich_markup_mode=None)
app.add_typer(detectors_app, name="detectors")


@detectors_app.callback(invoke_without_command=True)
def detectors(context: typer.Context) -> None:
    """Detectors: the named ones, and checks of your own files.

    Example: caloforge detectors show par04-siw
    """
    help_if_alone(context)


@detectors_app.command("list")
def detectors_list(as_json: JsonFlag = False) -> None:
    """List the detectors that ship with caloforge."""
    from caloforge.detector.descriptors import facts_of
    from caloforge.detector.detector import load_detector, named_detectors

    found = {name: facts_of(load_detector(name)) for name in named_detectors()}
    lines = [f"{name:14} {values['layers']}" for name, values in found.items()]
    answer(found, as_json, "\n".join(lines))


@detectors_app.command("show")
def detectors_show(name: DetectorArgument, as_json: JsonFlag = False) -> None:
    """Show a detector: its file and the physics numbers that follow from it.

    Example: caloforge detectors show par04-siw
    """
    from caloforge.detector.descriptors import facts_of
    from caloforge.detector.detector import load_detector

    detector = load_detector(name)
    facts = facts_of(detector)
    lines = "\n".join(f"# {key}: {value}" for key, value in facts.items())
    answer(facts | {"toml": detector.to_toml()}, as_json, f"{detector.to_toml()}\n{lines}")


@detectors_app.command("check")
def detectors_check(file: DetectorArgument, as_json: JsonFlag = False) -> None:
    """Check a detector file strictly; the first mistake is named with its line.

    Example: caloforge detectors check my.toml
    """
    from caloforge.detector.descriptors import facts_of
    from caloforge.detector.detector import load_detector

    facts = facts_of(load_detector(file))
    answer(facts, as_json, f"{file} is valid: {facts['layers']}")


@app.command()
def simulate(
    detector: DetectorArgument,
    out: Annotated[Path, typer.Argument(help="The file of showers to write.")],
    n: Annotated[int, typer.Option("-n", help="Number of events.")] = 100,
    particle: Particle = "e-",
    energy: Energy = "1:100",
    theta: Theta = "0.87:2.27",
    phi: Phi = "0:6.2832",
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    engine: Annotated[str, typer.Option(help="geant4, or parametric (GFlash-style).")] = "geant4",
    physics: Annotated[
        str,
        typer.Option(help="em0 (electromagnetic, option 0), or a list that needs official data."),
    ] = "em0",
    dialect: DialectOption = "native",
    as_json: JsonFlag = False,
) -> None:
    """Make showers with Geant4, or with the parametrised engine.

    Example: caloforge simulate par04-siw showers.h5 -n 200 --energy 20 --theta 1.5708 --workers 2
    """
    from caloforge.detector.detector import load_detector
    from caloforge.simulate.beam import beam_of
    from caloforge.simulate.production import simulate as produce

    beam = beam_of(particle, energy, theta, phi)
    summary = produce(
        load_detector(detector), out, n, particle=beam.particle, energy_mev=beam.energy,
        theta=beam.theta, phi=beam.phi, seed=seed, workers=workers, resume=resume, engine=engine,
        physics=physics, dialect=dialect, command=command_line(),
    )  # fmt: skip
    values = {key: round(v, 6) if isinstance(v, float) else v for key, v in vars(summary).items()}
    answer(values, as_json, "\n".join(f"{key}: {value}" for key, value in values.items()))


@app.command()
def campaign(
    description: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.")],
    out: Annotated[Path, typer.Option(help="Folder of the shower files.")] = Path("data"),
    workers: Annotated[int, typer.Option(help="Files that are made at a time.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped one.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make Geant4 showers of many detectors, named and random, as a TOML file says.

    Example: caloforge campaign recipes/campaigns/pretraining.toml --out data --workers 2
    """
    from caloforge.simulate.campaign import load_campaign, run_campaign

    values = run_campaign(
        load_campaign(description), out, workers=workers, resume=resume, command=command_line()
    )
    answer(values, as_json, "\n".join(f"{key}: {value}" for key, value in values.items()))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file of showers in any dialect.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help="The dialect to write.")] = "native",
    from_: Annotated[
        str | None, typer.Option("--from", help="The dialect to read; recognised by itself.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="The detector, for files that do not say theirs.")
    ] = None,
) -> None:
    """Convert a file of showers between dialects.

    Example: caloforge convert showers.h5 challenge.h5 --to calochallenge
    """
    from caloforge.detector.detector import load_detector
    from caloforge.showers.formats import convert as rewrite

    known = load_detector(detector) if detector else None
    rewrite(source, out, from_, to, known)
    print(f"wrote {out}")
