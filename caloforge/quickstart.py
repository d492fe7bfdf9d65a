"""The whole path once, small: simulate, generate, compare the speeds, validate.

Geant4 showers made on the spot give the speed of Geant4 on this machine; the Geant4 showers that
ship with the package, which no model was trained on, are the reference of the validation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from caloforge.detector.detector import load_detector
from caloforge.errors import RequestError
from caloforge.files import claimed_folder
from caloforge.generate import generate_file
from caloforge.showers.formats import open_showers
from caloforge.simulate.beam import Beam
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.production import Summary, simulate

__all__ = ["quickstart", "shipped_reference"]

DETECTOR = "par04-siw"
MODEL = "base"
WORKERS = 2


def shipped_reference(detector: str = DETECTOR) -> Path:
    """Path of the Geant4 showers that ship with the package for a detector.

    Raises `RequestError` if there are none.
    """
    path = Path(str(resources.files("caloforge") / "reference" / f"{detector}.h5"))
    if not path.is_file():
        raise RequestError(f"no Geant4 showers of '{detector}' ship with caloforge; simulate some")
    return path


def quickstart(out: Path, *, n: int = 1000, events: int = 40, seed: int = 1) -> Iterator[str]:
    """Run the whole path into the folder `out`, yielding what was done line by line.

    n: showers to generate; events: events of Geant4. Both are electrons of 1-100 GeV in
    `par04-siw`. Raises `RequestError` if `out` cannot be written or a number is below one.
    """
    if n < 1 or events < 1:
        raise RequestError("the numbers of showers and of events must be at least 1")
    with claimed_folder(out):
        yield from _run(out, n, events, seed)


def _run(out: Path, n: int, events: int, seed: int) -> Iterator[str]:
    beam = Beam()
    yield f"1. Geant4: {events} electrons of 1-100 GeV in {DETECTOR}, {WORKERS} processes"
    made = _simulate(out / "geant4.h5", beam, events, seed)
    fraction = 100 * made.visible_fraction
    yield f"   {made.seconds_per_event:.3g} s of processor time a shower; {fraction:.2f} % of the"
    yield f"   energy is visible ({made.path})"

    yield f"2. The shipped model '{MODEL}': {n} showers of the same beam"
    began = time.process_time()
    generate_file(MODEL, out / "generated.h5", detector=DETECTOR, n=n, beam=beam, seed=seed)
    drawn = (time.process_time() - began) / n
    ratio = made.seconds_per_event / drawn
    yield f"   {drawn:.3g} s of processor time a shower ({out / 'generated.h5'})"
    yield f"   speed on this machine: {ratio:.1f} x Geant4"

    yield "3. Validation against Geant4 showers that the model has not seen"
    result = _validate(out)
    yield f"   {result['verdict']['headline']}"
    yield f"   report: {(out / 'report.html').resolve()}"


def _simulate(path: Path, beam: Beam, events: int, seed: int) -> Summary:
    """Make Geant4 showers anew, or go on where an interrupted call stopped."""
    return simulate(
        load_detector(DETECTOR), path, events, particle=beam.particle, energy_mev=beam.energy,
        theta=beam.theta, phi=beam.phi, seed=seed, workers=WORKERS,
        resume=parts_folder(path).exists(), command="caloforge quickstart",
    )  # fmt: skip


def _validate(out: Path) -> dict[str, Any]:
    from caloforge.evaluate.validation import validate

    reference, generated = open_showers(shipped_reference()), open_showers(out / "generated.h5")
    try:
        return validate(reference, generated, out)
    finally:
        reference.close()
        generated.close()
