"""Promises of the house: docstrings, layout, sizes, silence about anything but the project."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "caloforge"
FILES = sorted(PACKAGE.rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

ROOMS = ("detector", "showers", "simulate", "learn", "evaluate", "tasks", "deploy", "cli")
TOP = {
    "__init__",
    "complete",
    "distill",
    "errors",
    "files",
    "forge",
    "generate",
    "progress",
    "quickstart",
}
SHAPE = re.compile(r"\(([A-Za-z.0-9]+( [+*] \w+)?,|[A-Z.]|\))")
UNITS = re.compile(
    r"\b(MeV|GeV|keV|mm|cm|g/cm3|g/mol|rad|seconds|without unit|no unit|eV|mol/g|ms)\b"
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def public(tree: ast.AST) -> Iterator[tuple[Definition, bool]]:
    """Public functions and classes, and the public methods of public classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node, isinstance(tree, ast.ClassDef)
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_module_and_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    bare = [node.name for node, _ in public(tree) if not ast.get_docstring(node)]
    assert not bare


def arrays_of(node: ast.FunctionDef) -> bool:
    annotations = [a.annotation for a in node.args.args + node.args.kwonlyargs] + [node.returns]
    text = " ".join(ast.unparse(a) for a in annotations if a is not None)
    return bool(re.search(r"\b(NDArray|Tensor|ArrayLike|ndarray)\b", text))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_public_functions_of_arrays_give_shapes(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    missing = [
        node.name
        for node, _ in public(tree)
        if isinstance(node, ast.FunctionDef)
        and arrays_of(node)
        and not SHAPE.search(ast.get_docstring(node) or "")
    ]
    assert not missing


def test_rooms_of_physics_state_their_units() -> None:
    for room in ("detector", "showers", "simulate", "evaluate"):
        for path in sorted((PACKAGE / room).glob("*.py")):
            text = path.read_text("utf-8")
            if "def " in text and path.stem not in QUIET:
                assert UNITS.search(text), f"{relative(path)} names no unit"


QUIET = {"pool", "parts", "useraction", "drawing", "acceptance"}


def test_the_rooms_are_those_of_the_design() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders - {"weights", "reference"} == set(ROOMS)
    assert {p.stem for p in PACKAGE.glob("*.py")} == TOP


def test_tests_mirror_the_modules() -> None:
    missing = [
        relative(path)
        for path in FILES
        if path.stem != "__init__" and path.parent != PACKAGE and not is_tested(path)
    ]
    assert not missing


def is_tested(path: Path) -> bool:
    """A module has a test file of its name, or a test uses it, or a module so tested does."""
    return has_test(path) or any(
        has_test(other) and module_of(path) in other.read_text("utf-8")
        for other in path.parent.rglob("*.py")
        if other != path
    )


def has_test(path: Path) -> bool:
    room = path.relative_to(PACKAGE).parts[0]
    tests = sorted((ROOT / "tests" / room).glob("test_*.py"))
    return any(
        t.stem == f"test_{path.stem}" or module_of(path) in t.read_text("utf-8") for t in tests
    )


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_stays_under_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_functions_are_short() -> None:
    lengths = []
    for path in FILES:
        for node in functions(ast.parse(path.read_text("utf-8"))):
            assert node.end_lineno is not None
            lengths.append(node.end_lineno - node.lineno + 1)
    assert statistics.median(lengths) <= 14
    assert max(lengths) <= 80


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not calls or path.parent.name == "cli"


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in done.stdout.splitlines()]


def test_the_project_speaks_of_itself_alone() -> None:
    foreign = re.compile(
        r"/work/|/tmp/w/|\bsandbox\b|\bchat(bot|gpt)\b|language model", re.IGNORECASE
    )
    for path in tracked():
        if (
            path.suffix in {".py", ".md", ".toml", ".json", ".cff", ".j2", ".txt"}
            and path.is_file()
        ):
            found = foreign.search(path.read_text("utf-8"))
            assert path == Path(__file__) or not found, f"{relative(path)}: {found}"


def test_the_files_of_a_product_are_there() -> None:
    names = {
        "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile",
        "constraints.txt", "docs/design.md", "docs/conventions.md", "docs/data_format.md",
        "docs/log.md", ".ci/run",
    }  # fmt: skip
    assert not {name for name in names if not (ROOT / name).is_file()}


def test_forbidden_packages_are_not_asked_for() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in ("torchvision", "timm", "jetnet", "learn2learn", "flow-matching", "xgboost"):
        assert f'"{name}' not in text
