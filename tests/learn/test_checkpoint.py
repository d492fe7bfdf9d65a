"""Checkpoints: what is saved is loaded, in half precision nearly; damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model, save_model, shipped_models


def test_round_trip(tiny_model: Model, tmp_path: Path) -> None:
    save_model(tiny_model, tmp_path / "m", card="# card\n")
    again = load_model(tmp_path / "m")
    for part in ("network", "scale"):
        before = getattr(tiny_model, part).state_dict()
        after = getattr(again, part).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.valid == tiny_model.valid
    assert (tmp_path / "m" / "card.md").read_text() == "# card\n"


def test_half_precision_is_close_and_half_the_size(tiny_model: Model, tmp_path: Path) -> None:
    for name, half in (("full", False), ("half", True)):
        save_model(tiny_model, tmp_path / name, half=half)
    one = load_model(tmp_path / "full").network.state_dict()
    other = load_model(tmp_path / "half").network.state_dict()
    assert all(torch.allclose(one[n], other[n], rtol=1e-3, atol=1e-4) for n in one)
    full, half = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.7 * full


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut": (truncate, "no complete checkpoint"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no complete checkpoint"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "no complete checkpoint"),
    "version": (
        lambda f: (f / "config.json").write_text('{"checkpoint_version": 99}'), "another version"
    ),
    "other width": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"width": 32', '"width": 64')
        ), "do not fit its config",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tiny_model: Model, tmp_path: Path, damage: str) -> None:
    save_model(tiny_model, tmp_path / "m")
    harm, message = DAMAGE[damage]
    harm(tmp_path / "m")
    with pytest.raises(RequestError, match=message):
        load_model(tmp_path / "m")


def test_unknown_model_lists_the_shipped_ones() -> None:
    with pytest.raises(RequestError, match=f"shipped ones are.*{shipped_models()[0]}"):
        load_model("no-such-model")


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_are_small_and_have_a_card(name: str) -> None:
    from caloforge import weights

    folder = Path(weights.__path__[0]) / name
    assert sum(f.stat().st_size for f in folder.iterdir()) < 16e6
    card = (folder / "card.md").read_text("utf-8")
    for heading in ("Trained on", "Valid range", "Measured against Geant4", "Cost"):
        assert f"## {heading}" in card
    assert load_model(name).network.config.shape == (9, 16, 45)
