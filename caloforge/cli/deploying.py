"""Verbs that put a model to work: export, fastsim, page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import (
    DetectorArgument,
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
def export(
    model: Annotated[str, typer.Argument(help="A shipped model or a checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    detector: Annotated[str, typer.Option(help="A named detector or a TOML file.")],
    file_format: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or lwtnn.")
    ] = "onnx",
    target: Annotated[
        str,
        typer.Option(help="plain: the caller's noise; par04, ddml: what these programs load."),
    ] = "plain",
    steps: Annotated[
        int | None, typer.Option(help="Draws of the voxels; the model's own by default.")
    ] = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Allow a detector unlike those trained on.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a model for one detector to a file that other programs run, and check it.

    Example: caloforge export student siw.onnx --detector par04-siw --target par04
    """
    from caloforge.deploy.decoder import export_model as write

    found = write(
        model, out, detector=detector, format=file_format, target=target, steps=steps,
        extrapolate=extrapolate,
    )  # fmt: skip
    answer(found, as_json, "\n".join(f"{key}: {value}" for key, value in found.items()))


@app.command("fastsim")
def fastsim(
    model: Annotated[
        str, typer.Argument(help="A shipped model, a checkpoint folder or an exported .onnx file.")
    ],
    detector: DetectorArgument,
    out: Annotated[Path, typer.Argument(help="The file of showers to write.")] = Path("fastsim.h5"),
    n: Annotated[int, typer.Option("-n", help="Number of events.")] = 100,
    particle: Particle = "e-,e+,gamma",
    energy: Energy = "1:100",
    theta: Theta = "0.87:2.27",
    phi: Phi = "0:6.2832",
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler; the model's own by default.")
    ] = None,
    above: Annotated[
        float, typer.Option(help="Leave particles below this energy, in GeV, to Geant4.")
    ] = 0.0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Simulate the same events in full; time, validate.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Allow a detector unlike those trained on.")
    ] = False,
    physics: Annotated[
        str,
        typer.Option(help="em0 (electromagnetic, option 0), or a list that needs official data."),
    ] = "em0",
    as_json: JsonFlag = False,
) -> None:
    """Run Geant4 with the model in its event loop; what the model does not know Geant4 does.

    Example: caloforge fastsim base par04-siw fast.h5 -n 200 --particle e-,gamma,pi0 --compare
    """
    from caloforge.deploy.fastsim import fastsim as run
    from caloforge.deploy.fastsim import lines
    from caloforge.detector.detector import load_detector
    from caloforge.simulate.beam import beam_of

    found = run(
        model, load_detector(detector), out, n, beam_of(particle, energy, theta, phi), seed=seed,
        steps=steps, above_mev=1e3 * above, compare=compare, workers=workers, resume=resume,
        extrapolate=extrapolate, physics=physics, command=command_line(),
    )  # fmt: skip
    answer(found, as_json, "\n".join(lines(found)))


@app.command()
def page(
    models: Annotated[
        list[Path], typer.Argument(help="Exported ONNX files (target plain), one per detector.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("showers.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write one HTML file in which a browser makes showers, without server or network.

    Example: caloforge page par04-siw.onnx par04-scipb.onnx --out showers.html
    """
    from caloforge.deploy.page import write_page

    written = write_page(models, out)
    size = written.stat().st_size
    values = {"page": written, "bytes": size, "models": models}
    answer(values, as_json, f"wrote {written} ({size / 1e6:.1f} MB): open it in a browser")
