"""The command line: verbs, nothing else.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong. The command line speaks GeV for the
energy of the incoming particle; everything in files and in Python is in MeV. Libraries that take
long to import are imported by the verbs that need them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge import __version__
from caloforge.errors import RequestError, WorkError

__all__ = ["app", "main"]

app = typer.Typer(
    name="caloforge",
    help="Forge a fast simulation for a calorimeter: simulate, train, generate, validate.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
detectors_app = typer.Typer(rich_markup_mode=None)
app.add_typer(detectors_app, name="detectors")

JsonFlag = Annotated[bool, typer.Option("--json", help="Answer in JSON, for a machine.")]
DetectorArgument = Annotated[str, typer.Argument(help="A named detector or a TOML file.")]
Energy = Annotated[
    str, typer.Option(help="Kinetic energy in GeV: 50, or a log-uniform range 1:100.")
]
Theta = Annotated[str, typer.Option(help="Polar angle in rad: 1.57, or a range 0.87:2.27.")]
Phi = Annotated[str, typer.Option(help="Azimuth in rad: 0, or a range.")]
Particle = Annotated[str, typer.Option(help="e-, e+, gamma, mu-, mu+ or pi0.")]
Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same file.", min=0)]
DialectOption = Annotated[
    str, typer.Option(help="Layout of the output: native, lemurs, calochallenge or par04.")
]


def _answer(values: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(values, default=str) if as_json else text)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"caloforge {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Forge a fast simulation for a calorimeter: simulate, train, generate, validate."""
    _help_if_alone(context)


@detectors_app.callback(invoke_without_command=True)
def detectors(context: typer.Context) -> None:
    """Detectors: the named ones, and checks of your own files.

    Example: caloforge detectors show par04-siw
    """
    _help_if_alone(context)


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@detectors_app.command("list")
def detectors_list(as_json: JsonFlag = False) -> None:
    """List the detectors that ship with caloforge."""
    from caloforge.detector.descriptors import facts_of
    from caloforge.detector.detector import load_detector, named_detectors

    found = {name: facts_of(load_detector(name)) for name in named_detectors()}
    lines = [f"{name:14} {values['layers']}" for name, values in found.items()]
    _answer(found, as_json, "\n".join(lines))


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
    _answer(facts | {"toml": detector.to_toml()}, as_json, f"{detector.to_toml()}\n{lines}")


@detectors_app.command("check")
def detectors_check(file: DetectorArgument, as_json: JsonFlag = False) -> None:
    """Check a detector file strictly; the first mistake is named with its line.

    Example: caloforge detectors check my.toml
    """
    from caloforge.detector.descriptors import facts_of
    from caloforge.detector.detector import load_detector

    facts = facts_of(load_detector(file))
    _answer(facts, as_json, f"{file} is valid: {facts['layers']}")


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
        physics=physics, dialect=dialect, command=_command(),
    )  # fmt: skip
    values = {key: round(v, 6) if isinstance(v, float) else v for key, v in vars(summary).items()}
    _answer(values, as_json, "\n".join(f"{key}: {value}" for key, value in values.items()))


def _command() -> str:  # as typed, for the provenance
    return " ".join(["caloforge", *sys.argv[1:]])


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
    _answer(vars(summary), as_json, "\n".join(f"{k}: {v}" for k, v in vars(summary).items()))


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
    steps: Annotated[int, typer.Option(help="Steps of the sampler, per stage.")] = 8,
    like: Annotated[
        Path | None, typer.Option(help="Take the primaries from this file, in its order.")
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

    Example: caloforge generate small showers.h5 --detector par04-siw -n 1000 --energy 1:100
    """
    from caloforge.generate import generate_file
    from caloforge.simulate.beam import beam_of

    beam = beam_of(particle, energy, theta, phi)
    summary = generate_file(
        model, out, detector=detector, n=n, beam=beam, seed=seed, steps=steps, like=like,
        batch=batch, extrapolate=extrapolate, dialect=dialect, device=device, command=_command(),
    )  # fmt: skip
    _answer(summary, as_json, "\n".join(f"{key}: {value}" for key, value in summary.items()))


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
    _answer(result, as_json, "\n\n".join([*parts, where]))


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
    steps: Annotated[int, typer.Option(help="Steps of the sampler, per stage.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure how long a model takes per shower, as the CaloChallenge does: batches 1, 100, 10000.

    Example: caloforge timing small timing.json --batch 1 --batch 100
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
    _answer(result, as_json, "\n".join([*lines, f"wrote {out}"]))


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


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 1 (the work failed), 2 (a wrong request)."""
    # Threads that spin while they wait lose most of a shared core: seven times slower, measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result = typer.main.get_command(app).main(arguments, "caloforge", standalone_mode=False)
    except RequestError as error:
        return _complain(str(error), 2)
    except WorkError as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped", 130)
    except Exception as error:
        # A usage error of click, which typer carries under a name that depends on its version.
        if not hasattr(error, "format_message"):
            raise
        return _complain(f"{error.format_message().rstrip('.')}; see --help", 2)
    return result if isinstance(result, int) else 0


def _complain(message: str, code: int) -> int:
    one_line = " ".join(str(message).split())
    print(f"caloforge: {one_line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
