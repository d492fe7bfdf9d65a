"""Runs the command line as ``python -m caloforge.cli``."""

import sys

from caloforge.cli import main

sys.exit(main())
