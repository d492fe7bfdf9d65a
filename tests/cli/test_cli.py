"""The command line: quick help, one line and exit code 2 for wrong requests, nothing left behind."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.cli import main
from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model, save_model
from caloforge.showers.formats import write_showers
from caloforge.showers.showers import Showers

MODULES = {
    "caloforge.cli.showers": ("detectors", "simulate", "campaign", "convert"),
    "caloforge.cli.models": ("train", "generate"),
    "caloforge.cli.adapting": ("adapt", "distill", "forge"),
    "caloforge.cli.judging": ("validate", "timing", "quickstart"),
    "caloforge.cli.deploying": ("export", "fastsim", "page"),
}
VERBS = tuple(verb for verbs in MODULES.values() for verb in verbs)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; from caloforge.cli import main; main(['--help']);"
        "heavy = {'torch', 'h5py', 'matplotlib', 'geant4_pybind', 'sklearn', 'numpy'} & set(sys.modules);"
        "sys.exit(bool(heavy))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 0.5  # seconds of processor time, a promise of the command line


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, "--help") == 0
    assert "Example: caloforge" in capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_verbs_holds_its_verbs(module: str) -> None:
    found = importlib.import_module(module)
    assert all(callable(getattr(found, verb)) for verb in MODULES[module])


def test_detectors_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detectors", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["par04-siw"]["layers"].startswith("90 x")
    assert run("detectors", "show", "par04-siw", "--json") == 0
    assert json.loads(capsys.readouterr().out)["radiation_length_mm"] == pytest.approx(
        4.22, abs=0.01
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("caloforge ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the wrong inputs that the requests below name."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wrong(
    here: Path, toy: Callable[..., Showers], small_detector: Detector, tiny_model: Model
) -> Path:
    toml = small_detector.to_toml()
    (here / "good.toml").write_text(toml)
    (here / "key.toml").write_text(toml.replace("layers = 20", "layers = 20\ncolour = 3"))
    (here / "bool.toml").write_text(toml.replace("layers = 20", "layers = true"))
    (here / "thin.toml").write_text(toml.replace("thickness_mm = 0.5", "thickness_mm = 0"))
    save_model(tiny_model, here / "model")
    showers = toy(small_detector, 60)
    write_showers(showers, here / "lemurs.h5", "lemurs")
    (here / "nan.h5").write_bytes((here / "lemurs.h5").read_bytes())
    with h5py.File(here / "nan.h5", "a") as file:
        file["showers"][3, 1, 2, 4] = np.nan
    with h5py.File(here / "noshowers.h5", "w") as file:
        file["energies"] = showers.energy
    (here / "cut.h5").write_bytes((here / "lemurs.h5").read_bytes()[:-3000])
    (here / "recipe.toml").write_text('data = ["lemurs.h5"]\nsteps = 3\nlearning_rat = 1e-3\n')
    (here / "fine.toml").write_text('data = ["lemurs.h5"]\nsteps = 3\nsize = "micro"\nbatch = 8\n')
    (here / "file").write_text("not a folder")
    return here


REQUESTS = {
    "unknown detector": ("simulate par04-siv out.h5 -n 2", "unknown detector 'par04-siv'"),
    "unknown key": ("simulate key.toml out.h5 -n 2", "unknown key 'stack.colour'"),
    "zero thickness": ("detectors check thin.toml", "greater than 0"),
    "negative energy": ("simulate good.toml out.h5 -n 2 --energy=-5", "above 0, not -5 GeV"),
    "range upside down": ("simulate good.toml out.h5 -n 2 --energy 100:1", "upside down"),
    "no number": ("simulate good.toml out.h5 -n 2 --energy many", "neither a number nor a range"),
    "particle": ("simulate good.toml out.h5 -n 2 --particle k0", "unknown particle 'k0'"),
    "one of the particles": (
        "simulate good.toml out.h5 -n 2 --particle e-,k0", "unknown particle 'k0'"),
    "campaign": ("campaign none.toml --out out", "there is no campaign 'none.toml'"),
    "no events": ("simulate good.toml out.h5 -n 0", "at least 1"),
    "missing file": ("validate nowhere.h5 lemurs.h5 --out out", "there is no file 'nowhere.h5'"),
    "truncated": ("validate cut.h5 lemurs.h5 --out out", "truncated"),
    "no showers": ("convert noshowers.h5 out.h5", "has no 'showers'"),
    "NaN voxels": ("convert nan.h5 out.h5", "NaN"),
    "NaN voxels in the validation": ("validate nan.h5 lemurs.h5 --out out", "NaN"),
    "NaN voxels in the training": (
        "train fine.toml --out out --set 'data=[\"nan.h5\"]'", "NaN"
    ),
    "mesh does not fit": ("generate model out.h5 --detector par04-siw -n 2", "does not fit the model"),
    "misspelt key": ("train recipe.toml --out out", "unknown key 'learning_rat'"),
    "no recipe": ("train no.toml --out out", "there is no recipe 'no.toml'"),
    "unwritable file": ("generate model file/out.h5 --detector good.toml -n 2 --energy 20", "cannot write"),
    "unwritable folder": ("train fine.toml --out file/run", "cannot write"),
    "unwritable report": ("validate lemurs.h5 lemurs.h5 --out file/run", "cannot write"),
    "unknown classifier": ("validate lemurs.h5 lemurs.h5 --classifiers tree --out out", "no classifier"),
    "unknown tolerance": ("validate lemurs.h5 lemurs.h5 --tolerance respons=1 --out out", "no tolerance"),
    "labels": ("validate lemurs.h5 lemurs.h5 --label a --label b --out out", "as many labels"),
    "no trainings": ("validate lemurs.h5 lemurs.h5 --trainings 0 --out out", "at least 1 training"),
    "no binning": ("validate lemurs.h5 lemurs.h5 --binning no.xml --out out", "there is no binning"),
    "no timing": ("validate lemurs.h5 lemurs.h5 --timing no.json --out out", "there is no file"),
    "adapt nothing there": ("adapt base none.h5 --out out", "there is no file 'none.h5'"),
    "adapt no model": ("adapt bass lemurs.h5 --out out", "there is no model 'bass'"),
    "adapt by magic": ("adapt model lemurs.h5 --out out --method magic", "unknown method 'magic'"),
    "adapt in no steps": ("adapt model lemurs.h5 --out out --steps 0", "at least 1"),
    "adapt to NaN": ("adapt model nan.h5 --out out", "NaN"),
    "unwritable adaptation": ("adapt model lemurs.h5 --out file/run --steps 1", "cannot write"),
    "forge from nothing": ("forge none.toml --out out", "unknown detector 'none.toml'"),
    "forge with few": ("forge good.toml --model model --showers 3 --out out", "at least 20"),
    "unwritable forge": ("forge good.toml --model model --out file/run", "cannot write"),
    "batch of none": ("timing model out.json --detector good.toml --batch 0", "above 0"),
    "timing of a folder": ("timing model model --detector good.toml --batch 1 --energy 20", "is a folder"),
    "unwritable timing": ("timing model file/t.json --detector good.toml --batch 1", "cannot write"),
    "unwritable production": ("simulate good.toml file/a.h5 -n 2", "cannot write"),
    "out of range": ("generate model out.h5 --detector good.toml -n 2 --energy 5000", "--extrapolate"),
    "far too many": ("generate model out.h5 --detector good.toml -n 1000000000000", "at most"),
    "far too many events": ("simulate good.toml out.h5 -n 1000000000000 --engine parametric", "at most"),
    "folder as output": ("generate model model --detector good.toml -n 2 --energy 20", "is a folder"),
    "folder as input": ("validate model lemurs.h5 --out out", "is a folder"),
    "beyond physics": ("simulate good.toml out.h5 -n 2 --energy 1e30", "at most 100000 GeV"),
    "not a number": ("simulate good.toml out.h5 -n 2 --energy nan", "finite"),
    "no workers": ("simulate good.toml out.h5 -n 2 --workers 0", "at least 1"),
    "a yes for a number": ("detectors check bool.toml", "stack.layers"),
    "new folder": ("generate model new/er/g.h5 --detector good.toml -n 2 --energy 5000", "--extrapolate"),
    "new folder of a production": (
        "simulate good.toml new/er/g.h5 -n 2 --engine parametric --particle mu-", "parametri"
    ),
    "fastsim on another mesh": ("fastsim model par04-siw f.h5 -n 2", "does not fit the model"),
    "fastsim without a model": ("fastsim nomodel good.toml f.h5", "there is no model 'nomodel'"),
    "fastsim of no export": ("fastsim file.onnx good.toml f.h5", "there is no model 'file.onnx'"),
    "fastsim in a missing detector": ("fastsim model none.toml f.h5", "unknown detector"),
    "fastsim with too few to compare": ("fastsim model good.toml f.h5 -n 9 --compare", "at least 40"),
    "fastsim with an unknown option": ("fastsim model good.toml f.h5 --batch 3", "No such option"),
    "unknown model": ("generate nomodel out.h5 --detector good.toml", "there is no model 'nomodel'"),
    "unknown option": ("generate model out.h5 --detecto good.toml", "No such option"),
    "missing argument": ("generate", "Missing argument"),
    "unknown verb": ("simulat good.toml", "No such command"),
}  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    wrong: Path, request_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    command, message = REQUESTS[request_]
    before = sorted(os.walk(wrong))
    assert run(*shlex.split(command)) == 2
    captured = capsys.readouterr()
    line = [text for text in captured.err.splitlines() if text.startswith("caloforge: ")]
    assert len(line) == 1 and message in line[0], captured.err
    assert "Traceback" not in captured.err
    assert sorted(os.walk(wrong)) == before, "something was left behind"


def test_convert_and_back(wrong: Path) -> None:
    assert run("convert", "lemurs.h5", "native.h5") == 0
    assert run("convert", "native.h5", "again.h5", "--to", "lemurs") == 0
    with h5py.File("lemurs.h5") as a, h5py.File("again.h5") as b:
        assert np.array_equal(a["showers"][:], b["showers"][:])


def test_train_generate_validate(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "fine.toml", "--out", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    assert run("generate", "mine", "gen.h5", "--like", "lemurs.h5", "--steps", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["showers"] == 60
    assert run("validate", "lemurs.h5", "gen.h5", "--out", "report") == 0
    assert json.loads(Path("report/metrics.json").read_text())["models"][0]["metrics"]
    assert Path("report/report.html").stat().st_size > 10_000
    timed = ("--detector", "good.toml", "--batch", 2, "--repeats", 2, "--steps", 1)
    assert run("timing", "mine", "t.json", *timed, "--energy", "5:50", "--theta", "1.2:1.5") == 0
    names = ("--label", "mine", "--timing", "t.json", "--classifiers", "none")
    assert run("validate", "lemurs.h5", "gen.h5", *names, "--out", "report", "--json") == 0
    (model,) = json.loads(Path("report/metrics.json").read_text())["models"]
    assert model["label"] == "mine" and model["timing"]["rows"][0]["batch"] == 2
    assert not [m for m in model["metrics"] if m["kind"] == "classifier"]
