"""Generation: reproducible shower by shower, closed in energy, refused out of range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.generate import Generator, generate_file
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.models.family import Manner
from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import Beam, Primaries

ONE = Manner(steps=1)


@pytest.fixture(scope="module")
def generator(tiny_model: Model) -> Generator:
    return Generator(tiny_model, "tiny")


@pytest.fixture(scope="module")
def folder(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(tiny_model, path)
    return path


def draw(generator: Generator, detector: Detector, **more: object) -> Showers:
    values = {"energy": 2e4, "theta": 1.5, "n": 12, "steps": 2, "seed": 4} | more
    return generator.generate(detector, **values)  # type: ignore[arg-type]


def test_same_seed_same_showers_on_any_batch(
    generator: Generator, small_detector: Detector
) -> None:
    whole = draw(generator, small_detector)
    pieces = draw(generator, small_detector, batch=5)
    assert np.allclose(whole.dense(), pieces.dense(), rtol=1e-3, atol=1e-3)
    assert np.array_equal(draw(generator, small_detector).dense(), whole.dense())
    assert not np.allclose(draw(generator, small_detector, seed=5).dense(), whole.dense())


def test_showers_are_physical(generator: Generator, small_detector: Detector) -> None:
    showers = draw(generator, small_detector, n=30)
    assert (showers.deposit > 0).all()
    assert (showers.visible() < showers.energy).all()
    assert showers.detector == small_detector


def test_the_same_primaries_as_the_simulation(
    folder: Path, tmp_path: Path, small_file: Path
) -> None:
    beam = Beam(energy=(5e3, 5e4), theta=(1.2, 1.9))
    generate_file(
        folder, tmp_path / "a.h5", detector=str(small_file), n=9, beam=beam, seed=3, manner=ONE
    )
    expected = beam.primaries(3, 0, 9)
    found = read_showers(tmp_path / "a.h5")
    for name in ("energy", "theta", "phi", "pdg", "seed"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("dialect", ["native", "lemurs", "calochallenge", "par04"])
def test_files_in_every_dialect(
    folder: Path, tmp_path: Path, small_file: Path, dialect: str
) -> None:
    out = tmp_path / "a.h5"
    beam = Beam(energy=(2e4, 2e4), theta=(1.5, 1.5))
    common = {"detector": str(small_file), "n": 4, "beam": beam, "manner": ONE}
    generate_file(folder, out, dialect=dialect, **common)  # type: ignore[arg-type]
    generate_file(folder, tmp_path / "b.h5", **common)  # type: ignore[arg-type]
    assert np.allclose(
        read_showers(out).dense(), read_showers(tmp_path / "b.h5").dense(), rtol=1e-5
    )


def test_like_takes_the_primaries_of_a_file(
    folder: Path, tmp_path: Path, toy_files: list[Path]
) -> None:
    generate_file(folder, tmp_path / "a.h5", like=toy_files[0], n=310, manner=ONE, extrapolate=True)
    like, made = read_showers(toy_files[0]), read_showers(tmp_path / "a.h5")
    assert np.array_equal(made.energy, np.concatenate([like.energy, like.energy[:10]]))
    assert made.detector == like.detector
    assert len(np.unique(made.seed)) == 310


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "energy": (dict(beam=Beam(energy=(1e3, 1e6))), "outside the trained range.*--extrapolate"),
    "theta": (dict(beam=Beam(energy=(2e4, 2e4), theta=(0.3, 1.5))), "theta.*outside the trained"),
    "particle": (dict(beam=Beam("mu-", (2e4, 2e4), (1.5, 1.5))), "PDG code 13"),
    "mesh": (dict(detector="par04-siw"), "does not fit the model"),
    "detector": (dict(detector="nowhere"), "unknown detector"),
    "none": (dict(detector=None), "name a detector"),
    "number": (dict(n=0), "at least 1"),
    "steps": (dict(manner=Manner(0)), "at least 1"),
    "dialect": (dict(dialect="root"), "unknown dialect"),
    "device": (dict(device="cuda:77"), "device 'cuda:77' cannot be used"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refusals_leave_nothing_behind(
    folder: Path, tmp_path: Path, small_file: Path, wrong: str
) -> None:
    changes, message = REFUSED[wrong]
    values = dict(detector=str(small_file), n=3, beam=Beam(energy=(2e4, 2e4), theta=(1.5, 1.5)))
    with pytest.raises(RequestError, match=message):
        generate_file(folder, tmp_path / "a.h5", **(values | changes))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_extrapolation_is_possible_when_asked_for(
    generator: Generator, small_detector: Detector
) -> None:
    primaries = Beam(energy=(5e5, 5e5), theta=(0.5, 0.5)).primaries(0, 0, 2)
    assert isinstance(primaries, Primaries)
    with pytest.raises(RequestError, match="outside"):
        generator.stream(small_detector, primaries)
    made = list(generator.stream(small_detector, primaries, ONE, extrapolate=True))
    assert made[0].provenance["extrapolate"] is True


def test_an_unseen_detector_must_resemble_the_trained_ones(
    generator: Generator, small_detector: Detector
) -> None:
    stack = small_detector.described_stack()
    assert stack.absorber is not None
    thicker = stack.absorber.model_copy(update={"thickness_mm": 3.0})
    similar = small_detector.model_copy(
        update={"name": "new", "stack": stack.model_copy(update={"absorber": thicker})}
    )
    assert len(draw(generator, similar, n=2)) == 2
    iron = stack.absorber.model_copy(update={"material": "G4_Fe"})
    unlike = similar.model_copy(update={"stack": stack.model_copy(update={"absorber": iron})})
    with pytest.raises(RequestError, match="unlike every detector"):
        draw(generator, unlike, n=2)


def test_guidance_exaggerates_what_the_conditions_do(
    generator: Generator, small_detector: Detector
) -> None:
    plain, same, guided = (
        draw(generator, small_detector, guidance=g).dense() for g in (1.0, 1.0, 2.5)
    )
    assert np.array_equal(plain, same) and not np.allclose(plain, guided)


def test_a_model_that_was_always_told_cannot_be_guided(
    tiny_model: Model, small_detector: Detector
) -> None:
    told = Generator(replace(tiny_model, notes={"recipe": {"untold": 0.0}}), "told")
    with pytest.raises(RequestError, match="cannot be guided"):
        draw(told, small_detector, guidance=2.0)


@pytest.mark.parametrize(
    "kind",
    [
        dict(process="ddpm", head="noise", plain=True, geometry="onehot"),
        dict(process="edm"),
        dict(positions="learned"),
    ],
    ids=lambda kind: "-".join(map(str, kind.values())),
)
def test_every_kind_trains_saves_and_generates(
    kind: dict[str, object], toy_files: list[Path], small_detector: Detector, tmp_path: Path
) -> None:
    recipe = Recipe(
        size="micro", data=[str(p) for p in toy_files], steps=4, batch=32, scale_steps=20, **kind
    )
    train(recipe, tmp_path / "run")
    generator = Generator.load(tmp_path / "run")
    detector = read_showers(toy_files[0]).detector
    once, again = (generator.generate(detector, 2e4, 1.5, n=3, seed=1) for _ in range(2))
    assert np.array_equal(once.dense(), again.dense()) and np.isfinite(once.dense()).all()
    apart = generator.generate(detector, 2e4, 1.5, n=3, seed=1, batch=2)
    assert np.allclose(apart.dense(), once.dense(), rtol=1e-3, atol=1e-3)


def test_a_run_starts_from_another_model(
    toy_files: list[Path], tiny_model: Model, tmp_path: Path
) -> None:
    save_model(tiny_model, tmp_path / "first")
    recipe = Recipe(
        size="micro", data=[str(p) for p in toy_files], steps=1, batch=32, scale_steps=20,
        start=str(tmp_path / "first"), learning_rate=1e-9, ema=0.0,
    )  # fmt: skip
    train(recipe, tmp_path / "second")
    second = load_model(tmp_path / "second")
    ours, theirs = second.network.state_dict(), tiny_model.network.state_dict()
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-5) for k in ours)
    assert torch.equal(second.scale.voxel_mean, tiny_model.scale.voxel_mean)
    with pytest.raises(RequestError, match="another kind"):
        train(recipe.model_copy(update={"size": "tiny"}), tmp_path / "third")
