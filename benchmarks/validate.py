"""Time and memory of a validation of 2 x 100,000 showers: what an evaluation of a challenge takes.

    python benchmarks/validate.py [-n 100000] [--dialect calochallenge] [--folder DIR]

The showers are Geant4 showers that ship with the package, turned in azimuth at random and smeared
by 2 % cell by cell, so that no two are alike; classifiers are left out, they report their own time.
Prints seconds of each part, and the time over that of reading both files once: a ratio that a busy
machine changes little.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from caloforge.evaluate.request import validate_files
from caloforge.evaluate.validation import Options
from caloforge.quickstart import shipped_reference
from caloforge.showers.formats import convert, open_showers, read_showers
from caloforge.showers.native import ShowerWriter, blocks
from caloforge.showers.showers import Showers


def varied(showers: Showers, n: int, rng: np.random.Generator) -> Showers:
    """Draw n showers, each turned in azimuth and smeared on its own."""
    drawn = showers[rng.integers(0, len(showers), n)]
    mesh = drawn.mesh
    ring, rest = np.divmod(drawn.cell.astype(np.int64), mesh.n_phi * mesh.n_z)
    sector, layer = np.divmod(rest, mesh.n_z)
    sector = (sector + rng.integers(0, mesh.n_phi, n)[drawn.rows]) % mesh.n_phi
    smear = np.exp(0.02 * rng.normal(size=len(drawn.deposit)))
    whole = 1 + 0.02 * rng.normal(size=n)
    return drawn.with_(
        cell=(ring * mesh.n_phi + sector) * mesh.n_z + layer,
        deposit=drawn.deposit * smear * whole[drawn.rows],
        energy=drawn.energy * (1 + 1e-3 * rng.normal(size=n)),
    )


def make(path: Path, n: int, seed: int, dialect: str) -> None:
    showers, rng = read_showers(shipped_reference()), np.random.default_rng(seed)
    native = path.with_suffix(".native.h5")
    with ShowerWriter(native, showers.mesh, showers.detector, {"made": "varied"}) as writer:
        for start in range(0, n, 1000):
            writer.append(varied(showers, min(1000, n - start), rng))
    if dialect == "native":
        native.replace(path)
    else:
        convert(native, path, to_dialect=dialect)
        native.unlink()


def reading(paths: list[Path]) -> float:
    began = time.perf_counter()
    for path in paths:
        with closing(open_showers(path)) as source:
            for _ in blocks(source):
                pass
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000)
    parser.add_argument("--dialect", default="calochallenge")
    parser.add_argument("--folder", type=Path, help="where to keep the files for another time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{asked.dialect}-{asked.n}-{k}.h5" for k in (1, 2)]
        for seed, path in enumerate(paths):
            if not path.is_file():
                make(path, asked.n, seed, asked.dialect)
        read = reading(paths)
        began = time.perf_counter()
        record = validate_files(
            paths[0], [paths[1]], folder / "report", options=Options(classifiers=())
        )
        took = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for part, seconds in record["models"][0]["seconds"].items():
        print(f"{part}: {seconds:.0f} s")
    print(f"in all: {took:.0f} s, {took / read:.1f} x reading both files once ({read:.0f} s)")
    print(f"largest memory: {memory:.2f} GiB; {record['verdict']['headline']}")


if __name__ == "__main__":
    main()
