"""File dialects: every file of showers that caloforge reads and writes, recognised by itself.

The native layout is sparse (caloforge/showers/native.py); the dense layouts of the field are in
caloforge/showers/dialects.py. docs/data_format.md is the specification of all of them. Every
reader is a `ShowerSource` and streams; every writer streams and is atomic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.showers.dialects import ANGLES, LAYOUTS, DenseFile, columns_of, write_dense
from caloforge.showers.native import ShowerFile, ShowerSource, ShowerWriter, blocks, open_hdf5
from caloforge.showers.showers import Showers

__all__ = ["DIALECTS", "Dialect", "convert", "open_showers", "read_showers", "recognise",
           "write_showers"]  # fmt: skip

NATIVE_KEYS = {"offsets", "cell", "deposit"}


@dataclass(frozen=True)
class Dialect:
    """One dialect: the `keys` that tell it, a `summary`, and how it is opened and written.

    `open(path, detector)` returns a `ShowerSource`; `write(source, path)` is streamed and atomic.
    """

    keys: str
    summary: str
    open: Callable[[Path, Detector | None], ShowerSource]
    write: Callable[[ShowerSource, Path], None]


def _open_native(path: Path, _: Detector | None) -> ShowerSource:
    return ShowerFile(path)


def _write_native(source: ShowerSource, path: Path) -> None:
    with ShowerWriter(path, source.mesh, source.detector, source.provenance) as writer:
        for block in blocks(source):
            writer.append(block)


def _open_dense(name: str, path: Path, detector: Detector | None) -> ShowerSource:
    return DenseFile(path, name, detector)


def _write_dense(name: str, source: ShowerSource, path: Path) -> None:
    write_dense(source, path, name)


def _dense(name: str, keys: str, summary: str) -> Dialect:
    return Dialect(keys, summary, partial(_open_dense, name), partial(_write_dense, name))


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "native": Dialect(
            "offsets, cell, deposit", "sparse, everything kept", _open_native, _write_native
        ),
        "lemurs": _dense(
            "lemurs", "showers, incident_energy, incident_theta, incident_phi",
            "dense (N, R, PHI, Z), MeV",
        ),
        "calochallenge": _dense(
            "calochallenge", "showers, incident_energies",
            "flat (Z, PHI, R), MeV divided by the sampling fraction 0.033",
        ),
        "par04": _dense(
            "par04", "showers, incident_energy", "dense (N, R, PHI, Z), MeV, no angles"
        ),
    }
)  # fmt: skip


def recognise(path: str | Path) -> str:
    """Name of the dialect of a file, told by its keys.

    Raises `RequestError` if the file is missing, truncated, or fits no dialect or more than one.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        keys = columns_of(file)
    found = [name for name, fits in _fitting(keys).items() if fits]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{name} ({dialect.keys})" for name, dialect in DIALECTS.items())
    have = ", ".join(sorted(keys)) or "no datasets"
    if "showers" not in keys and not found:
        raise RequestError(f"'{path}' has no 'showers' (it has: {have}); known dialects: {known}")
    what = f"fits {' and '.join(found)}; name one" if found else "fits no dialect"
    raise RequestError(f"'{path}' {what} (it has: {have}); known dialects: {known}")


def _fitting(keys: set[str]) -> dict[str, bool]:
    angles = len(keys & set(ANGLES))
    dense = "showers" in keys
    one = dense and LAYOUTS["lemurs"].energy in keys
    return {
        "native": keys >= NATIVE_KEYS,
        "lemurs": one and angles == len(ANGLES),
        "calochallenge": dense and LAYOUTS["calochallenge"].energy in keys,
        "par04": one and angles == 0,
    }


def _named(dialect: str) -> Dialect:
    if dialect not in DIALECTS:
        raise RequestError(f"unknown dialect '{dialect}'; the known ones are {', '.join(DIALECTS)}")
    return DIALECTS[dialect]


def open_showers(
    path: str | Path, dialect: str | None = None, detector: Detector | None = None
) -> ShowerSource:
    """Open a file of any dialect to read it piece by piece.

    `dialect` overrules recognition; `detector` tells the mesh where the file does not. Raises
    `RequestError` for a file that is missing, truncated, of no known dialect or not complete.
    """
    path = Path(path)
    return _named(dialect or recognise(path)).open(path, detector)


def read_showers(
    path: str | Path, dialect: str | None = None, detector: Detector | None = None
) -> Showers:
    """Read all showers of a file of any dialect into memory (MeV, mm, rad).

    Raises `RequestError` as `open_showers`, and for voxels that are NaN, infinite or negative.
    """
    source = open_showers(path, dialect, detector)
    try:
        return source.read(0, len(source))
    finally:
        source.close()


def write_showers(
    source: ShowerSource | Showers, path: str | Path, dialect: str = "native"
) -> None:
    """Write showers to a file, streamed; the file appears under its name when it is whole.

    Raises `RequestError` for an unknown dialect or a folder that cannot be written.
    """
    _named(dialect).write(source, Path(path))


def convert(
    src: str | Path,
    dst: str | Path,
    from_dialect: str | None = None,
    to_dialect: str = "native",
    detector: Detector | None = None,
) -> None:
    """Rewrite a file in another dialect, never holding more than a block of it in memory.

    Raises `RequestError` as `open_showers` and `write_showers`, and if both paths are one file.
    """
    _named(to_dialect)
    if Path(src).resolve() == Path(dst).resolve():
        raise RequestError(f"'{src}' cannot be converted onto itself; name another output")
    source = open_showers(src, from_dialect, detector)
    try:
        write_showers(source, dst, to_dialect)
    finally:
        source.close()
