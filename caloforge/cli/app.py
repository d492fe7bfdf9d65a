"""The command line itself: the application, options that verbs share, and how it ends.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong. The command line speaks GeV for the
energy of the incoming particle; everything in files and in Python is in MeV. Libraries that take
long to import are imported by the verbs that need them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from caloforge import __version__
from caloforge.errors import RequestError, WorkError

__all__ = ["answer", "app", "command_line", "help_if_alone", "main"]

app = typer.Typer(
    name="caloforge",
    help="Forge a fast simulation for a calorimeter: simulate, train, generate, validate.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def answer(values: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the text for a person, or the values for a machine."""
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
    help_if_alone(context)


def help_if_alone(context: typer.Context) -> None:
    """Print the help where no verb was given."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def command_line() -> str:
    """Return the command as typed, for the provenance."""
    return " ".join(["caloforge", *sys.argv[1:]])


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
