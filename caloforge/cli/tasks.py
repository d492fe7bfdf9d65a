"""Verbs that reconstruct: task train, task run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import JsonFlag, Seed, answer, app, command_line, help_if_alone

task_app = typer.Typer(rich_markup_mode=None)
app.add_typer(task_app, name="task")


@task_app.callback(invoke_without_command=True)
def task(context: typer.Context) -> None:
    """Reconstruct energy, angle and particle from few labels, on the features of a model.

    Example: caloforge task train energy showers.h5 --out runs/energy
    """
    help_if_alone(context)


@task_app.command("train")
def task_train(
    name: Annotated[str, typer.Argument(help="energy, theta, particle, or bins (of energy).")],
    data: Annotated[list[Path], typer.Argument(help="Showers of one detector, with their truth.")],
    out: Annotated[Path, typer.Option(help="Folder of the task model and its report.")],
    model: Annotated[
        str | None,
        typer.Option(help="The backbone: shipped, or a folder; codes for particles, else base."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="linear, mlp or boosted (frozen features), tuned or scratch."),
    ] = "linear",
    labels: Annotated[
        int | None, typer.Option(help="Labels to use, of each class; all by default.")
    ] = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(help="Showers to judge with; repeatable. Else a fifth of the data."),
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Features after this block, 1 the first; half by default.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="mean, mean+total, front, odds; by default what suits the task."),
    ] = None,
    level: Annotated[
        float, typer.Option(help="Noise level at which showers are shown: 1 is clean.")
    ] = 1.0,
    particles: Annotated[
        str | None, typer.Option(help="Of 'particle': e-,gamma; all in the files by default.")
    ] = None,
    edges: Annotated[
        str | None, typer.Option(help="Of 'bins', in GeV: 12.5,25,50,100 by default.")
    ] = None,
    sceptics: Annotated[
        bool, typer.Option(help="Compare with the calibrated sum and boosted trees.")
    ] = True,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Learn a task from labelled showers; a model, its card, metrics.json and report.html.

    Example: caloforge task train particle mixed.h5 --labels 1000 --out runs/particle
    """
    from caloforge.tasks.question import edges_of
    from caloforge.tasks.work import Order, train_task

    order = Order(
        name, method, model, block, pooling, level, labels, particles, edges_of(edges), sceptics,
        seed,
    )  # fmt: skip
    found = train_task(order, data, out, test or [], command_line())
    answer(found, as_json, f"{found['headline']}\nreport: {out / 'report.html'}")


@task_app.command("run")
def task_run(
    model: Annotated[Path, typer.Argument(help="A folder of 'task train'.")],
    showers: Annotated[Path, typer.Argument(help="Showers of its detector.")],
    out: Annotated[Path, typer.Option(help="The .csv or .h5 file to write; energies in GeV.")],
    as_json: JsonFlag = False,
) -> None:
    """Answer for every shower of a file; judged by the truth where the file has it.

    Example: caloforge task run runs/energy showers.h5 --out predictions.csv
    """
    from caloforge.tasks.work import run_task

    found = run_task(model, showers, out)
    lines = [f"wrote {found['file']}: {', '.join(found['columns'])} of {found['showers']} showers"]
    answer(
        found, as_json, "\n".join([*lines, *([found["headline"]] if "headline" in found else [])])
    )
