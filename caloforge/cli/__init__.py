"""The command line: verbs, nothing else."""

# Each module adds its verbs, in the order of the help.
# isort: off
from caloforge.cli import showers, models, adapting, judging, deploying, tasks  # noqa: F401
from caloforge.cli.app import app, main

__all__ = ["app", "main"]
