"""Kinds of models: all can be planned, refused where they do not serve, and only asked what fits."""

from __future__ import annotations

import pytest

from caloforge.errors import RequestError
from caloforge.learn.models import family as families
from caloforge.learn.models.family import FAMILIES, Manner, family, only
from caloforge.learn.recipe import Recipe, recipe_of


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_has_a_recipe_key_and_says_why_it_does_not_generate(name: str) -> None:
    kind = family(name)
    assert Recipe(data=["x"], model=name).model == name  # type: ignore[call-arg, arg-type]
    assert (kind.draw is None) == bool(kind.why)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", {"diffusion": "a_library_that_is_not_there"})
    with pytest.raises(RequestError, match=r"a_library_that_is_not_there.*caloforge\[models\]"):
        family("diffusion")


def test_what_a_kind_does_not_know_is_refused() -> None:
    assert only(Manner(steps=2), "m", "steps") == Manner(steps=2)
    with pytest.raises(RequestError, match="'m' is drawn without --top-k"):
        only(Manner(top_k=3), "m", "steps")


def test_tables_of_other_kinds_are_refused() -> None:
    values = {"data": ["x"], "model": "vit", "vit": {"task": "denoise"}}
    recipe = recipe_of(values, ["vit.loss=mae", "voxels.transform=power"], "r")
    assert recipe.vit is not None and (recipe.vit.task, recipe.vit.loss) == ("denoise", "mae")
    assert recipe.voxels is not None and recipe.voxels.transform == "power"
    with pytest.raises(
        RequestError, match=r"recipe 'r': table \[vit\] is not read by model = 'diffusion'"
    ):
        recipe_of(values, ["model=diffusion"], "r")
    with pytest.raises(RequestError, match="unknown key 'vit.colour'; known: task, share"):
        recipe_of(values, ["vit.colour=3"], "r")
