"""A student of few steps, from showers that its teacher draws.

The teacher makes showers of the detectors that it is asked for, over its whole valid range, and a
small network learns them by the likelihood of its beliefs at just the levels that its few draws
will meet (`caloforge.learn.models.belief`). What it has to learn is a law, not the teacher's way
from noise to shower, so it needs no pairs of noise and shower and no teacher during training; and
where Geant4 showers are at hand they serve as well, without a teacher (recipes/student.toml).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caloforge.detector.detector import load_detector, named_detectors
from caloforge.errors import RequestError
from caloforge.files import claimed_folder
from caloforge.generate import Generator, generate_file
from caloforge.learn.checkpoint import ValidRange
from caloforge.learn.loop import Summary
from caloforge.learn.recipe import recipe_of
from caloforge.learn.run import check_folder
from caloforge.learn.train import train
from caloforge.simulate.beam import NAMES, Beam

__all__ = ["distill"]


def distill(
    teacher: str | Path,
    out: Path,
    *,
    steps: int = 2,
    detectors: Sequence[str] = (),
    showers: int = 20_000,
    start: str | None = None,
    changes: Sequence[str] = (),
    resume: bool = False,
    minutes: float | None = None,
) -> Summary:
    """Distil a model into a student that draws voxels in `steps`, into the checkpoint folder `out`.

    The teacher's `showers`, shared evenly by the detectors (the named ones that it was trained on
    by default), are kept in ``out/showers``; a stopped run goes on with `resume`. `start`: a
    student to begin from. `changes` are those of a recipe, such as ``steps=1000`` for the training.
    Raises `RequestError` for what cannot be generated or trained.
    """
    opened = Generator.load(teacher)
    names = list(detectors) or _named(opened.model.valid)
    if steps < 1 or showers < len(names):
        raise RequestError("steps must be at least 1, showers at least one for each detector")
    if not names:
        raise RequestError(f"'{teacher}' knows no named detector; name some with --detector")
    known = [load_detector(name) for name in names]
    files = [out / "showers" / f"{detector.name}.h5" for detector in known]
    values = {"size": "student", "data": [str(file) for file in files], "process": "beliefs",
              "calls": steps, "start": start}  # fmt: skip
    given = {key: value for key, value in values.items() if value is not None}
    recipe = recipe_of(given, changes, "of the student")
    with claimed_folder(out):
        check_folder(recipe, out, resume)
        files[0].parent.mkdir(exist_ok=True)
        beam = _beam(opened.model.valid)
        for k, (name, file) in enumerate(zip(names, files, strict=True)):
            if not file.exists():
                n = showers // len(names) + (k < showers % len(names))
                generate_file(teacher, file, detector=name, n=n, beam=beam, seed=recipe.seed + k)
    return train(recipe, out, resume=resume, minutes=minutes)


def _named(valid: ValidRange) -> list[str]:
    """Detectors that ship with caloforge, of those that a model was trained on."""
    return sorted(set(valid.detectors) & set(named_detectors()))


def _beam(valid: ValidRange) -> Beam:
    """Everything that the teacher knows."""
    particle = ",".join(NAMES[code] for code in valid.pdg if code in NAMES)
    return Beam(particle, valid.energy_mev, valid.theta)
