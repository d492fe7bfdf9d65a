# make quickstart   sets everything up and runs the whole path once, small
# make test         sets everything up and runs every check
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install quickstart test lint clean

help:
	@sed -n 's/^# make/make/p' Makefile

# The stamp is renewed when the dependencies change; a second call reuses the environment.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "caloforge needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[geant4,export,models]' --group dev
	@touch $@

install: $(VENV)/.installed

quickstart: install
	$(BIN)/caloforge quickstart

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) quickstart .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
