"""A campaign: many detectors, many particles, one folder of shower files, in one resumable run.

A foundation model needs showers of many calorimeters. A campaign is described by a TOML file that
names detectors and asks for random ones (`caloforge.detector.randomised`); each gets a file of
Geant4 showers and a card beside it. Files are made several at a time, one process each, because
starting Geant4 for another detector takes seconds. Everything in the files follows from the
description alone, and a campaign that was stopped goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caloforge.detector.descriptors import facts_of
from caloforge.detector.detector import Detector, load_detector
from caloforge.detector.randomised import random_detector
from caloforge.errors import RequestError
from caloforge.files import atomic_path, claimed_folder, read_toml
from caloforge.progress import progress
from caloforge.simulate.beam import Beam
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.physics_data import find_data
from caloforge.simulate.production import Summary, simulate

__all__ = ["Campaign", "load_campaign", "run_campaign"]

Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(_Strict):
    """`n` showers in a named detector or a TOML file, of `particle` if it is not the campaign's."""

    detector: str
    n: Count
    particle: str | None = None


class Randomised(_Strict):
    """`n` showers in each of `count` random detectors of the family `seed`, from number `first`."""

    count: Count
    n: Count
    seed: int = Field(default=1, ge=0)
    first: int = Field(default=0, ge=0)
    mesh: tuple[Count, Count, Count] = (9, 16, 45)


class Campaign(_Strict):
    """What to simulate: particles (names by commas), energy in GeV, theta in rad, seed, samples."""

    particle: str = "e-,e+,gamma"
    energy: tuple[float, float] = (1.0, 100.0)
    theta: tuple[float, float] = (0.87, 2.27)
    seed: int = Field(default=0, ge=0)
    sample: tuple[Sample, ...] = ()
    random: Randomised | None = None

    def files(self) -> list[ShowerFile]:
        """Return what is to be made; raises `RequestError` for what cannot be."""
        energy = (self.energy[0] * 1e3, self.energy[1] * 1e3)
        files = []
        for sample in self.sample:
            beam = Beam(sample.particle or self.particle, energy, self.theta)
            files.append(ShowerFile(load_detector(sample.detector), beam, sample.n, self.seed))
        if self.random is not None:
            beam, drawn = Beam(self.particle, energy, self.theta), self.random
            for number in range(drawn.first, drawn.first + drawn.count):
                detector = random_detector(drawn.seed, number, drawn.mesh)
                files.append(ShowerFile(detector, beam, drawn.n, self.seed))
        names = [file.name for file in files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RequestError(f"the campaign makes '{twice[0]}' twice; give it one sample")
        if not files:
            raise RequestError("the campaign makes nothing; add a [[sample]] or a [random] section")
        return files


@dataclass(frozen=True)
class ShowerFile:
    """One file of a campaign: `n` showers of `beam` in `detector`."""

    detector: Detector
    beam: Beam
    n: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.detector.name}.h5"


def load_campaign(path: str | Path) -> Campaign:
    """Read a campaign; raises `RequestError` for a missing file or anything that is not valid."""
    try:
        return Campaign.model_validate(read_toml(Path(path), "campaign"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"campaign '{path}': '{key}': {first['msg'].lower()}") from None


def run_campaign(
    campaign: Campaign, out: Path, *, workers: int = 1, resume: bool = False, command: str = ""
) -> dict[str, Any]:
    """Make the files of a campaign in the folder `out`, `workers` of them at a time.

    Returns the folder, the numbers of files and showers, and the mean processor time of a shower
    in s. Files that are finished are kept. Raises `RequestError` if `out` holds showers and
    `resume` is not set, `WorkError` when a worker dies or the run is interrupted.
    """
    if workers < 1:
        raise RequestError(f"the number of workers must be at least 1, not {workers}")
    files = campaign.files()
    find_data()  # writes the physics tables where they are missing: once, not in every thread
    with claimed_folder(out):
        begun = [f for f in files if (out / f.name).exists() or parts_folder(out / f.name).exists()]
        if begun and not resume:
            raise RequestError(f"'{out}' holds a campaign; add --resume, or choose another folder")
        total = sum(file.n for file in files)
        stop = threading.Event()
        with progress("campaign", total, "showers") as advance, ThreadPoolExecutor(workers) as pool:
            told = _Told(advance, stop)
            jobs = [pool.submit(_make, file, out, command, told) for file in files]
            try:
                done, waiting = wait(jobs, return_when=FIRST_EXCEPTION)
                if waiting:  # something failed: say that, not what was stopped because of it
                    next(job for job in done if job.exception()).result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
            summaries = [job.result() for job in jobs]
    seconds = sum(s.seconds_per_event * s.events for s in summaries) / total
    return {"folder": str(out), "files": len(files), "showers": total,
            "seconds_per_shower": round(seconds, 4)}  # fmt: skip


class _Told:
    """Passes on how many events were finished, from many threads, until the campaign stops."""

    def __init__(self, advance: Callable[[int], None], stop: threading.Event) -> None:
        self.advance, self.stop, self.lock = advance, stop, threading.Lock()

    def __call__(self, n: int) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt  # which `simulate` takes as a request to end in good order
        with self.lock:
            self.advance(n)


def _make(file: ShowerFile, out: Path, command: str, told: _Told) -> Summary:
    """Simulate one file and write its card."""
    beam, path = file.beam, out / file.name
    summary = simulate(
        file.detector, path, file.n, particle=beam.particle, energy_mev=beam.energy,
        theta=beam.theta, phi=beam.phi, seed=file.seed, resume=True, command=command,
        on_events=told,
    )  # fmt: skip
    told(file.n - summary.new_events)
    with atomic_path(path.with_suffix(".md")) as sibling:
        sibling.write_text(_card(file, summary), "utf-8")
    return summary


def _card(file: ShowerFile, summary: Summary) -> str:
    """Describe a file for a reader."""
    beam = file.beam
    rows = {
        "showers": file.n,
        "particles": beam.particle,
        "energy": f"{beam.energy[0] / 1e3:g} to {beam.energy[1] / 1e3:g} GeV, log-uniform",
        "theta": f"{beam.theta[0]:g} to {beam.theta[1]:g} rad, uniform",
        "seed": file.seed,
        "visible fraction inside the mesh": f"{summary.visible_fraction:.5f}",
        "processor seconds per shower": f"{summary.seconds_per_event:.3f}",
        **{key.replace("_", " "): value for key, value in facts_of(file.detector).items()},
    }
    lines = [f"# Geant4 showers in {file.detector.name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join([*lines, "", "```toml", file.detector.to_toml().strip(), "```", ""])
