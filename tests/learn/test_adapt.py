"""Adapting: what a method may change, the best state kept, stopped and resumed alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caloforge.detector.detector import parse_detector
from caloforge.errors import RequestError
from caloforge.learn.adapt import LEAST, METHODS, adapt, schedule, shipped_guards
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.models.prior_tuning import LEARNS
from caloforge.learn.run import STATE
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers, write_showers
from caloforge.showers.showers import Showers
from tests.conftest import SMALL


@pytest.fixture(scope="session")
def base(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def fresh(toy: Callable[..., Showers], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a detector that the model has not seen, which shows a third more energy."""
    showers = toy(parse_detector(SMALL.format(name="fresh", lead=3.2)), 150, seed=7)
    showers.deposit[:] *= 1.3
    path = tmp_path_factory.mktemp("fresh") / "fresh.h5"
    write_showers(showers, path)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).network.state_dict()


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_biases_only_changes_only_biases(base: Path, fresh: Path, tmp_path: Path) -> None:
    adapt(base, [fresh], tmp_path / "run", method="bias", steps=5)
    moved = changed(weights(base), weights(tmp_path / "run"))
    assert moved and all(name.endswith("bias") for name in moved)


def test_the_head_leaves_the_trunk_and_gains_a_residual(
    base: Path, fresh: Path, tmp_path: Path
) -> None:
    found = adapt(base, [fresh], tmp_path / "run", method="head", steps=40)
    assert found.best_step > 0
    before, after = weights(base), weights(tmp_path / "run")
    assert set(after) - set(before) == {
        f"residual.{part}" for part in ("anchors", "unit", "reach", "values")
    }
    assert all(name.startswith(("head_", "neighbours.")) for name in changed(before, after))
    assert after["residual.values"].abs().max() > 0


def test_merged_adapters_load_like_any_model(base: Path, fresh: Path, tmp_path: Path) -> None:
    found = adapt(base, [fresh], tmp_path / "run", method="lora", steps=5, rank=2)
    before, after = weights(base), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    for name in changed(before, after):
        assert int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3)) <= 2, name
    assert found.best_step > 0


@pytest.mark.parametrize("kind", ["base", "tiny_prior"])
def test_energies_alone_leave_the_transformer_as_it_is(
    kind: str, fresh: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(kind)
    found = adapt(base, [fresh], tmp_path / "run", method="energies")
    moved = changed(weights(base), weights(tmp_path / "run"))
    assert all(kind == "tiny_prior" and name.startswith("energies.") for name in moved)
    assert found.step == 0 and found.calibrated > 0.1
    before, after = (load_model(folder).scale.state_dict() for folder in (base, tmp_path / "run"))
    fitted = {name.split(".")[-2] for name in set(after) - set(before)}
    assert fitted == ({"residual", "cells", "rings"} if kind == "tiny_prior" else {"residual"})
    assert not changed(before, after)


@pytest.mark.parametrize(
    ("kind", "method"), [("base", "full"), ("base", "lora"), ("tiny_prior", "full")]
)
def test_stopped_and_resumed_is_the_same(
    kind: str, method: str, fresh: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(kind)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    adapt(base, [fresh], whole, method=method, steps=8)
    for minutes in (1e-9, 2e-3, None):
        found = adapt(
            base, [fresh], parts, method=method, steps=8, minutes=minutes,
            resume=(parts / "recipe.json").exists(),
        )  # fmt: skip
    assert found.step == 8 and not changed(weights(whole), weights(parts))
    first, second = (json.loads((run / "adaptation.json").read_text()) for run in (whole, parts))
    assert {k: v for k, v in first.items() if k not in ("seconds", "out")} == {
        k: v for k, v in second.items() if k not in ("seconds", "out")
    }


def test_the_best_state_is_kept(base: Path, fresh: Path, tmp_path: Path) -> None:
    """A rate at which it only gets worse: the start is kept, and the run ends before its steps."""
    found = adapt(base, [fresh], tmp_path / "run", steps=60, learning_rate=0.3)
    assert found.after is not None and found.after <= found.before
    assert found.best_step < found.step < found.steps
    if found.best_step == 0:
        assert not changed(weights(base), weights(tmp_path / "run"))
    state = torch.load(tmp_path / "run" / STATE, weights_only=True)
    assert state["best"]["loss"] < state["validation_loss"]


def test_it_learns_the_new_detector_and_says_what_it_cost(
    base: Path, fresh: Path, toy_files: list[Path], tmp_path: Path
) -> None:
    found = adapt(base, [fresh], tmp_path / "run", steps=40, guards=[toy_files[0]])
    assert found.after is not None and found.after < found.before
    assert [old.detector for old in found.guarded] == ["small0"]
    model = load_model(tmp_path / "run")
    assert set(model.valid.detectors) == {"fresh", "small0", "small1"}
    assert model.notes["start"]["name"] == str(base)
    card = (tmp_path / "run" / "card.md").read_text()
    assert "Adapted from" in card and "on old detectors: small0" in card
    assert "510 Geant4 showers of small0, small1;" in card  # of the model that it was adapted from


@pytest.mark.parametrize("method", ["full", "bias", "lora", "head"])
def test_a_prior_learns_the_new_detector_and_its_codes_stay(
    method: str, tiny_prior: Path, fresh: Path, tmp_path: Path
) -> None:
    found = adapt(tiny_prior, [fresh], tmp_path / "run", method=method, steps=40, rank=2)
    assert found.after is not None and found.after < found.before
    before, after = weights(tiny_prior), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    moved = {name for name in changed(before, after) if not name.startswith("energies.")}
    learned = {name.startswith("tokeniser.") for name in moved}
    assert learned == {True, False} and all(name.startswith(LEARNS) for name in moved)
    if method == "bias":
        assert all(name.endswith("bias") for name in moved)


@pytest.mark.parametrize("kind", ["base", "tiny_prior"])
def test_a_shifted_response_is_generated(
    kind: str, fresh: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(kind)
    from caloforge.generate import Generator

    truth = read_showers(fresh)
    adapt(base, [fresh], tmp_path / "run", method="energies")

    def response(model: Path) -> float:
        made = Generator.load(model).generate(
            truth.detector, truth.energy, truth.theta, truth.phi, len(truth), steps=2
        )
        return float((made.visible() / made.energy).mean())

    wanted = float((truth.visible() / truth.energy).mean())
    before, after = (abs(response(run) / wanted - 1) for run in (base, tmp_path / "run"))
    assert before > 0.15 and after < 0.04


def test_a_new_mesh_is_learned(base: Path, toy: Callable[..., Showers], tmp_path: Path) -> None:
    fine = SMALL.format(name="fine", lead=3.2).replace("n_r = 3", "n_r = 6")
    detector = parse_detector(fine.replace("cell_r_mm = 12", "cell_r_mm = 6"))
    write_showers(toy(detector, 120), tmp_path / "fine.h5")
    found = adapt(base, [tmp_path / "fine.h5"], tmp_path / "run", steps=15)
    assert found.after is not None and found.after < found.before
    assert load_model(tmp_path / "run").network.config.shape == (6, 4, 10)


def test_the_schedule_follows_from_the_number_of_showers(
    tiny_model: Model, toy: Callable[..., Showers], fresh: Path, tmp_path: Path
) -> None:
    few, many, most = (schedule("m", tiny_model, [fresh] * k, "full") for k in (1, 9, 36))
    assert few.steps == len(read_showers(fresh)) // 5, "a shower is seen as often"
    assert most.steps == pytest.approx(2 * many.steps, abs=2), "and the root of many"
    assert few.patience > 0 and few.masked == tiny_model.notes["recipe"]["masked"]
    assert {schedule("m", tiny_model, [fresh], m).learning_rate for m in METHODS} == set(
        METHODS.values()
    )


def test_wrong_requests_are_refused_and_leave_nothing(
    base: Path, fresh: Path, toy: Callable[..., Showers], siw: object, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    detector = parse_detector(SMALL.format(name="few", lead=3.2))
    write_showers(toy(detector, LEAST - 1), tmp_path / "few.h5")
    wrong = {
        "unknown method 'all'": dict(method="all"),
        "at least 1": dict(steps=0),
        "learning rate must be above": dict(learning_rate=-1.0),
    }
    for message, options in wrong.items():
        with pytest.raises(RequestError, match=message):
            adapt(base, [fresh], out, **options)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="too few to adapt"):
        adapt(base, [tmp_path / "few.h5"], out)
    with pytest.raises(RequestError, match="at least one file"):
        adapt(base, [], out)
    reference = shipped_guards(load_model("base").valid, (9, 16, 45))
    assert [path.stem for path in reference] == ["par04-siw"]
    with pytest.raises(RequestError, match="leave it out"):
        adapt(base, [fresh], out, guards=reference)
    assert not out.exists()


def test_another_run_is_not_overwritten(base: Path, fresh: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    adapt(base, [fresh], out, method="energies")
    with pytest.raises(RequestError, match="holds a run; add --resume"):
        adapt(base, [fresh], out, method="energies")
    with pytest.raises(RequestError, match="begun with method = 'energies'"):
        adapt(base, [fresh], out, method="bias", resume=True)
    recipe = load_model(out).notes["recipe"]
    assert recipe["method"] == "energies"


def test_train_refuses_the_recipe_of_an_adaptation(
    tiny_model: Model, fresh: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="caloforge adapt"):
        train(schedule("m", tiny_model, [fresh], "full"), tmp_path / "run")
