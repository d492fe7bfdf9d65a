"""The native file of showers: sparse HDF5 that plain h5py reads, streamed in both directions.

docs/data_format.md is its specification; energies in MeV, angles in rad, cell sizes in mm. Version
1 stores the cell sizes as attributes; version 0 (prototypes) took them from the detector's text and
had no `seed`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import h5py
import numpy as np

from caloforge.detector.detector import Detector, parse_detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.showers.showers import PER_SHOWER, Showers, cell_dtype

__all__ = ["FORMAT_VERSION", "ShowerFile", "ShowerSource", "ShowerWriter", "blocks", "open_hdf5"]

FORMAT_VERSION = 1
CHUNK = 8192


class ShowerSource(Protocol):
    """Showers that can be read piece by piece: a file of any dialect, or `Showers` in memory."""

    @property
    def mesh(self) -> Mesh:
        """The mesh of all the showers."""

    @property
    def detector(self) -> Detector | None:
        """The detector, where it is known."""

    @property
    def provenance(self) -> dict[str, Any]:
        """How the showers were made."""

    def __len__(self) -> int:
        """Return the number of showers."""

    def read(self, start: int, stop: int) -> Showers:
        """Return showers start to stop."""

    def close(self) -> None:
        """Let go of the file."""


def blocks(source: ShowerSource, size: int = 1000) -> Iterator[Showers]:
    """Read a source piece by piece, `size` showers at a time."""
    for start in range(0, len(source), size):
        yield source.read(start, min(start + size, len(source)))


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file to read; raises `RequestError` if it is missing, truncated or another."""
    if path.is_dir():
        raise RequestError(f"'{path}' is a folder; name a file of showers")
    if not path.is_file():
        raise RequestError(f"there is no file '{path}'; correct the path")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise RequestError(f"'{path}' is truncated or no HDF5 file; make or copy it anew") from None


class ShowerFile:
    """A native file, opened to read.

    Raises `RequestError` for a file that is missing, truncated or not complete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_hdf5(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        needed = {"energy", "theta", "phi", "pdg", "leakage", "offsets", "cell", "deposit"}
        missing = sorted(needed - set(self._file))
        if missing:
            raise RequestError(f"'{self.path}' has no dataset {', '.join(missing)}; not native?")
        version = int(self._file.attrs.get("format_version", 0))
        if version > FORMAT_VERSION:
            raise RequestError(f"'{self.path}' has format version {version}; update caloforge")
        text = self._file.attrs.get("detector")
        self.detector: Detector | None = parse_detector(str(text), str(self.path)) if text else None
        self.mesh: Mesh = self._mesh()
        try:
            self.provenance: dict[str, Any] = json.loads(self._file.attrs.get("provenance", "{}"))
        except ValueError:
            raise RequestError(f"'{self.path}': the attribute 'provenance' is no JSON") from None
        self._offsets = self._file["offsets"][:]

    def _mesh(self) -> Mesh:
        attributes = self._file.attrs
        if "cell_r_mm" not in attributes:
            if self.detector is None:
                raise RequestError(f"'{self.path}' has neither cell sizes nor a detector")
            return self.detector.mesh
        if "mesh" not in attributes or "cell_z_mm" not in attributes:
            raise RequestError(f"'{self.path}' lacks the attributes 'mesh' and 'cell_z_mm'")
        n_r, n_phi, n_z = (int(n) for n in attributes["mesh"])
        sizes = {k: float(attributes[k]) for k in ("cell_r_mm", "cell_z_mm")}
        return Mesh(n_r=n_r, n_phi=n_phi, n_z=n_z, **sizes)

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self._offsets) - 1

    def read(self, start: int, stop: int) -> Showers:
        """Return showers start to stop; raises `RequestError` if the file is damaged there."""
        stop = min(stop, len(self))
        first, last = self._offsets[start], self._offsets[stop]
        try:
            arrays = {
                name: self._file[name][start:stop] for name in PER_SHOWER if name in self._file
            }
            cell, deposit = self._file["cell"][first:last], self._file["deposit"][first:last]
        except OSError:
            raise RequestError(f"'{self.path}' is damaged; make or copy it anew") from None
        arrays.setdefault("seed", np.zeros(stop - start, np.uint64))
        try:
            return Showers(
                **arrays, offsets=self._offsets[start : stop + 1] - first, cell=cell,
                deposit=deposit, mesh=self.mesh, detector=self.detector,
                provenance=self.provenance,
            )  # fmt: skip
        except RequestError as error:
            raise RequestError(f"'{self.path}': {error}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()


class ShowerWriter:
    """A native file that grows by `append` and appears under its name when it is whole.

    A context manager: leaving it with an error leaves no file behind. Raises `RequestError` if the
    folder cannot be written or showers on another mesh are appended.
    """

    def __init__(
        self,
        path: str | Path,
        mesh: Mesh,
        detector: Detector | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.mesh = Path(path), mesh
        self.detector, self.provenance = detector, provenance or {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Create the temporary file."""
        self._file = self._stack.enter_context(_created(self.path))
        for name, dtype in PER_SHOWER.items():
            self._make(name, dtype)
        self._make("offsets", np.int64)
        self._make("cell", cell_dtype(self.mesh))
        self._make("deposit", np.float32)
        self._extend("offsets", np.zeros(1, np.int64))
        return self

    def _make(self, name: str, dtype: Any) -> None:
        self._file.create_dataset(
            name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,), compression="gzip",
            compression_opts=1, shuffle=True,
        )  # fmt: skip

    def _extend(self, name: str, values: np.ndarray) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize((start + len(values),))
        dataset[start:] = values

    def append(self, showers: Showers) -> None:
        """Add showers at the end."""
        if showers.mesh != self.mesh:
            raise RequestError(f"'{self.path}' holds showers on another mesh")
        shift = len(self._file["deposit"])
        for name in (*PER_SHOWER, "cell", "deposit"):
            self._extend(name, getattr(showers, name))
        self._extend("offsets", showers.offsets[1:] + shift)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the attributes and put the file in its place, or remove it after an error."""
        if kind is None:
            self._describe()
        self._stack.__exit__(kind, error, trace)

    def _describe(self) -> None:
        attributes = self._file.attrs
        attributes["format_version"] = FORMAT_VERSION
        attributes["mesh"] = np.array(self.mesh.shape)
        attributes["cell_r_mm"], attributes["cell_z_mm"] = self.mesh.cell_r_mm, self.mesh.cell_z_mm
        if self.detector is not None:
            attributes["detector"] = self.detector.to_toml()
        attributes["provenance"] = json.dumps(self.provenance)


@contextmanager
def _created(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file that takes its place when the block ends well."""
    with atomic_path(path) as sibling, h5py.File(sibling, "w", track_order=True) as file:
        yield file
