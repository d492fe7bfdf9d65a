"""What the README says is so: its commands parse, its files exist, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from caloforge.cli import app
from caloforge.detector.detector import parse_detector

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    for name in ("validate", "foundation", "adapt", "students", "fastsim", "cpp", "page", "tasks")
]


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


COMMANDS = [
    line
    for text in (TEXT, *PAGES)
    for block in blocks("bash", text)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("caloforge")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    command = typer.main.get_command(app)
    arguments = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("caloforge", arguments)  # refuses unknown options and missing arguments


def test_there_are_commands_of_every_verb() -> None:
    verbs = {line.split()[1] for line in COMMANDS}
    assert verbs >= {"detectors", "simulate", "train", "generate", "validate", "convert"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert len(targets) == 2
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_detector_of_the_readme_is_valid() -> None:
    assert parse_detector(blocks("toml")[0]).name == "mine"


def test_links_and_the_tree_point_at_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]
    tree = re.findall(r"^( *)([\w./]+)  +\S", TEXT[TEXT.index("caloforge/\n") :], re.MULTILINE)
    places = [ROOT / ("caloforge" if indent else "") / name for indent, name in tree]
    assert len(places) >= 12
    assert not [place for place in places if not place.exists()]


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "(4, 9, 16, 45)" in capsys.readouterr().out


def test_the_python_of_the_page_on_validation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in [b for page in PAGES for b in blocks("python", page)]:
        exec(compile(block, "validate.md", "exec"), {})
    assert "(1000, 362)" in capsys.readouterr().out
