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

from caloforge.errors import RequestError
from caloforge.generate import Generator, generate_file
from caloforge.learn.recipe import Recipe, changed
from caloforge.learn.run import STATE
from caloforge.learn.train import Summary, train
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
    by default), are kept in ``out/showers``; a stopped run goes on with `resume`. `start`: a student
    to begin from. `changes` are those of a recipe, such as ``steps=1000`` for the training.
    Raises `RequestError` for what cannot be generated or trained.
    """
    if steps < 1 or showers < 1:
        raise RequestError("the numbers of steps and of showers must be at least 1")
    opened = Generator.load(teacher)
    names = list(detectors) or [n for n in opened.model.valid.detectors if "random" not in n]
    if not names:
        raise RequestError(f"'{teacher}' knows no named detector; name some with --detector")
    files = [out / "showers" / f"{Path(name).stem}.h5" for name in names]
    recipe = changed(
        Recipe(data=[str(file) for file in files], size="student", process="beliefs", calls=steps,
               start=start), changes,
    )  # fmt: skip
    if (out / STATE).exists() and not resume:
        raise RequestError(f"'{out}' holds a run already; go on with --resume or choose another")
    files[0].parent.mkdir(parents=True, exist_ok=True)
    valid = opened.model.valid
    beam = Beam(
        particle=",".join(NAMES[code] for code in valid.pdg), energy_mev=valid.energy_mev,
        theta=valid.theta,
    )  # fmt: skip
    for k, (name, file) in enumerate(zip(names, files, strict=True)):
        if not file.exists():
            n = showers // len(names) + (k < showers % len(names))
            generate_file(teacher, file, detector=name, n=n, beam=beam, seed=recipe.seed + k)
    return train(recipe, out, resume=resume, minutes=minutes)
