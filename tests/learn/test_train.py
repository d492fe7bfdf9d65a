"""The training loop: stopped and resumed it follows the same curve; nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from caloforge.errors import RequestError, WorkError
from caloforge.learn.checkpoint import load_model
from caloforge.learn.loop import learning_rate
from caloforge.learn.models import denoiser
from caloforge.learn.models.diffusion import DiffusionTransformer, config_of
from caloforge.learn.recipe import DIAL, Recipe, load_recipe
from caloforge.learn.run import STATE
from caloforge.learn.train import train
from caloforge.simulate.campaign import load_campaign

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(toy_files: list[Path]) -> Recipe:
    return Recipe(
        size="micro", data=[str(p) for p in toy_files], steps=12, batch=32, warmup=3,
        scale_steps=30, validate_every=6, learning_rate=3e-3,
    )  # fmt: skip


def losses(out: Path) -> list[tuple[int, float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [(json.loads(line)["step"], json.loads(line)["loss"]) for line in lines]


def test_resumed_is_the_same_as_uninterrupted(recipe: Recipe, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole)
    train(recipe, parts, minutes=1e-9)  # not a single step
    half = recipe.model_copy(update={"decay": 0.0})
    assert half.steps == 12
    for minutes in (1e-3, 1e-2, None):
        summary = train(recipe, parts, resume=True, minutes=minutes)
    assert summary.step == 12
    assert losses(parts) == losses(whole)
    one, other = load_model(whole).network.state_dict(), load_model(parts).network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_reptile_goes_part_of_the_way_after_each_detector(recipe: Recipe, tmp_path: Path) -> None:
    """Between two detectors the weights that are kept stand still, and a new one begins from them."""
    out, states = tmp_path / "run", []
    for step in (3, 4, 5, 6):
        reptile = recipe.model_copy(update={"inner": 3, "outer": 0.25, "decay": 0.0, "steps": step})
        train(reptile, out, resume=step > 3)
        states.append(torch.load(out / STATE, weights_only=True))
    kept, trained = ([state[name] for state in states] for name in ("averaged", "network"))

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    assert same(kept[0], trained[0]) and same(kept[3], trained[3])
    assert same(kept[0], kept[1]) and same(kept[1], kept[2]) and not same(kept[2], kept[3])
    assert not same(trained[1], kept[1])


def test_a_run_killed_in_its_first_checkpoint_begins_anew(recipe: Recipe, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        train(recipe, out)
    (cut / STATE).unlink()  # the model was written, the state, which comes last, was not
    train(recipe, cut, resume=True)
    assert losses(cut) == losses(whole)


def test_lines_after_the_checkpoint_are_done_again_once(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe, out)
    expected = losses(out)
    with (out / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 13, "loss": 0.0}) + '\n{"step": 14, "lo')
    train(recipe.model_copy(update={"steps": 13}), out, resume=True)
    assert [step for step, _ in losses(out)] == list(range(1, 14))
    assert losses(out)[:12] == expected


def test_the_loss_falls(recipe: Recipe, tmp_path: Path) -> None:
    longer = recipe.model_copy(update={"steps": 120, "validate_every": 120})
    train(longer, tmp_path / "run")
    curve = [loss for _, loss in losses(tmp_path / "run")]
    assert sum(curve[-20:]) < 0.97 * sum(curve[:20])


def test_the_checkpoint_knows_where_it_is_valid(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run")
    valid = load_model(tmp_path / "run").valid
    assert valid.pdg == (11,) and valid.detectors == ("small0", "small1")
    assert 990 <= valid.energy_mev[0] < 2e3 and 5e4 < valid.energy_mev[1] <= 1.01e5


def test_a_run_is_not_overwritten(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run")
    with pytest.raises(RequestError, match="holds a run; add --resume"):
        train(recipe, tmp_path / "run")
    other = recipe.model_copy(update={"batch": 16})
    with pytest.raises(RequestError, match="begun with batch = 32"):
        train(other, tmp_path / "run", resume=True)


def test_a_diverged_run_keeps_its_last_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(recipe, out)
    before = load_model(out).network.state_dict()
    sound, bad = denoiser.denoising_loss, float("nan")
    monkeypatch.setattr(denoiser, "denoising_loss", lambda *a: tuple(x * bad for x in sound(*a)))
    more = recipe.model_copy(update={"steps": 20})
    with pytest.raises(WorkError, match="diverged after step 12.*lower learning_rate and --resume"):
        train(more, out, resume=True)
    monkeypatch.undo()
    after = load_model(out).network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    slower = more.model_copy(update={"learning_rate": 1e-4})
    assert train(slower, out, resume=True).step == 20


def test_the_rate_rises_stays_and_falls(recipe: Recipe) -> None:
    long = recipe.model_copy(update={"steps": 100, "warmup": 10, "decay": 0.2})
    rates = [learning_rate(long, step) for step in range(101)]
    assert rates[0] < rates[5] < rates[10] == rates[50] == recipe.learning_rate
    assert rates[79] > rates[90] > rates[100] == 0.0


@pytest.mark.parametrize(
    "path", sorted((RECIPES / "campaigns").glob("*.toml")), ids=lambda p: p.stem
)
def test_shipped_campaigns_are_valid(path: Path) -> None:
    assert len(load_campaign(path).files()) > 1


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).steps > 0


def test_recipes_are_strict(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('data = ["a.h5"]\nsteps = 10\nlearnig_rate = 1e-3\n')
    with pytest.raises(RequestError, match="unknown key 'learnig_rate'"):
        load_recipe(path)
    path.write_text('data = ["a.h5"]\nsteps = 10\n')
    assert load_recipe(path, ["steps=3", 'size="micro"', "size=tiny"]).steps == 3
    for wrong, message in (
        ("steps=-1", "'steps'"),
        ("size=huge", "'size'"),
        ("steps", "key=value"),
    ):
        with pytest.raises(RequestError, match=message):
            load_recipe(path, [wrong])
    with pytest.raises(RequestError, match="no file matches 'a.h5'"):
        load_recipe(path).files()


def test_the_size_decides_what_is_not_given() -> None:
    small, base = (Recipe(size=size, data=["x.h5"]) for size in ("small", "base"))
    assert base.batch >= small.batch and base.learning_rate < small.learning_rate
    assert Recipe(size="base", data=["x.h5"], steps=7, batch=3).steps == 7


def test_the_dial_spends_about_twenty_tokens_a_parameter() -> None:
    for size, dial in DIAL.items():
        network = DiffusionTransformer(config_of(size, (9, 16, 45)))
        weights = sum(p.numel() for p in network.parameters())
        seen = dial["steps"] * dial["batch"] * (1 + network.patches.tokens)
        assert 10 < seen / weights < 70, size  # the student is to be small, not cheap to train
