"""The dense dialects: the layouts in which others keep voxels, each a row of one table.

Sources of the layouts (docs/data_format.md says what each one loses):

- `lemurs`: the LEMURS dataset (arXiv:2509.05108), datasets at the root or in a compound dataset or
  group `events`;
- `calochallenge`: datasets 2 and 3 of the CaloChallenge (arXiv:2410.21611), Par04's silicon and
  tungsten at 90 degrees, voxels flat in (Z, PHI, R) order, R fastest, divided by 0.033;
- `par04`: what `root2h5.py` of Geant4's example Par04 writes, float64, without angles.

Files that caloforge writes carry the native attributes too (detector, mesh, cell sizes,
provenance). Without them the cells are those of the published meshes of their shape. Reading and
writing go in blocks; the whole file is never in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector, load_detector, parse_detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.files import atomic_path
from caloforge.showers.native import ShowerSource, blocks, open_hdf5
from caloforge.showers.showers import Showers, concatenate

__all__ = ["LAYOUTS", "PUBLISHED_MESHES", "DenseFile", "Layout", "VoxelFile", "write_dense"]

CHALLENGE_SAMPLING_FRACTION = 0.033
ANGLES = ("incident_theta", "incident_phi")
BLOCK_BYTES = 2**26

# Cells in mm of the meshes of Par04, LEMURS and the CaloChallenge (silicon and tungsten).
PUBLISHED_MESHES: Mapping[tuple[int, int, int], Mesh] = MappingProxyType(
    {
        (9, 16, 45): Mesh(n_r=9, n_phi=16, n_z=45, cell_r_mm=4.65, cell_z_mm=3.4),
        (18, 50, 45): Mesh(n_r=18, n_phi=50, n_z=45, cell_r_mm=2.325, cell_z_mm=3.4),
    }
)


@dataclass(frozen=True)
class Layout:
    """How a dense dialect lays out its voxels.

    `energy`: key of the incident energies in MeV; `angles`: whether the dialect has theta and phi
    (rad) of its own; `flat`: voxels (N, Z*PHI*R) instead of (N, R, PHI, Z); `column`: incident
    energies (N, 1) instead of (N,); `scale`: stored value of 1 MeV; `dtype`: stored type.
    """

    energy: str
    angles: bool = False
    flat: bool = False
    column: bool = False
    scale: float = 1.0
    dtype: str = "f4"

    def unpack(self, stored: NDArray[Any], mesh: Mesh) -> NDArray[np.float32]:
        """Turn stored voxels into raw visible MeV (N, R, PHI, Z)."""
        voxels = np.asarray(stored, dtype=np.float32) / np.float32(self.scale)
        if not self.flat:
            return voxels
        return voxels.reshape(-1, mesh.n_z, mesh.n_phi, mesh.n_r).transpose(0, 3, 2, 1)

    def pack(self, voxels: NDArray[np.float32]) -> NDArray[Any]:
        """Turn raw visible MeV (N, R, PHI, Z) into what is stored."""
        scaled = voxels * np.float32(self.scale)
        return scaled.transpose(0, 3, 2, 1).reshape(len(voxels), -1) if self.flat else scaled


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "lemurs": Layout("incident_energy", angles=True),
        "calochallenge": Layout(
            "incident_energies", flat=True, column=True, scale=1 / CHALLENGE_SAMPLING_FRACTION
        ),
        "par04": Layout("incident_energy", dtype="f8"),
    }
)


class DenseFile:
    """A file of a dense dialect, opened to read (a `ShowerSource`).

    `detector` tells what the file cannot: its mesh is used if the file carries none. Assumptions
    (mesh, angles, particle) are listed in `provenance["assumed"]`. Raises `RequestError` for a file
    that is missing, truncated, incomplete, or of a mesh that nobody told.
    """

    def __init__(self, path: str | Path, dialect: str, detector: Detector | None = None) -> None:
        self.path, self.dialect, self._layout = Path(path), dialect, LAYOUTS[dialect]
        self._file = open_hdf5(self.path)
        try:
            self._open(detector)
        except BaseException:
            self.close()
            raise

    def _open(self, told: Detector | None) -> None:
        self._energy, self._voxels = self._column(self._layout.energy), self._column("showers")
        self._angles = {key: self._column(key) for key in ANGLES if key in columns_of(self._file)}
        missing = [key for key in ANGLES if self._layout.angles and key not in self._angles]
        if missing:
            raise RequestError(
                f"'{self.path}' has no {', '.join(missing)}; it is not {self.dialect}"
            )
        self._check_lengths()
        own = self._own_detector()
        self._assumed: dict[str, str] = {"pdg": "11 (e-)"}
        self.mesh: Mesh = self._find_mesh(own or told)
        self.detector: Detector | None = self._find_detector(own or told)
        self.provenance: dict[str, Any] = self._describe()

    def _own_detector(self) -> Detector | None:
        text = self._file.attrs.get("detector") if self._is_ours else None
        return parse_detector(str(text), str(self.path)) if text else None

    @property
    def _is_ours(self) -> bool:
        """Whether caloforge wrote the file: only then do its attributes mean what ours mean."""
        return {"mesh", "cell_r_mm", "cell_z_mm"} <= set(self._file.attrs)

    def _column(self, key: str) -> _Column:
        if key not in columns_of(self._file):
            keys = ", ".join(sorted(columns_of(self._file))) or "none"
            raise RequestError(f"'{self.path}' has no dataset '{key}' (it has: {keys})")
        return _Column(self._file, key)

    def _check_lengths(self) -> None:
        rank = 2 if self._layout.flat else 4
        if len(self._voxels.shape) != rank:
            raise RequestError(
                f"'{self.path}': showers of shape {self._voxels.shape} are not {self.dialect}, "
                f"whose showers have {rank} axes"
            )
        others = [self._energy, *self._angles.values()]
        if any(math.prod(column.shape) != len(self) for column in others):
            raise RequestError(f"'{self.path}': its datasets have different numbers of showers")

    def _find_mesh(self, detector: Detector | None) -> Mesh:
        attributes, shape = self._file.attrs, self._voxels.shape[1:]
        candidates = [detector.mesh] if detector else []
        if self._is_ours:
            n_r, n_phi, n_z = (int(n) for n in attributes["mesh"])
            sizes = {k: float(attributes[k]) for k in ("cell_r_mm", "cell_z_mm")}
            candidates = [Mesh(n_r=n_r, n_phi=n_phi, n_z=n_z, **sizes)]
        if candidates and not _fits(candidates[0], shape):
            raise RequestError(
                f"'{self.path}' has voxels {shape}, which do not fit the mesh {candidates[0].shape}"
            )
        for mesh in (*candidates, *PUBLISHED_MESHES.values()):
            if _fits(mesh, shape):
                if not candidates:
                    self._assumed["cells"] = "those of the published Par04 mesh of this shape"
                return mesh
        raise RequestError(
            f"'{self.path}': voxels {shape} are on no published mesh; name the detector they are of"
        )

    def _find_detector(self, detector: Detector | None) -> Detector | None:
        """Return the detector; CaloChallenge files without one are of Par04's silicon-tungsten."""
        if detector is None and self.dialect == "calochallenge":
            detector = load_detector("par04-siw")
        if detector is None or detector.mesh == self.mesh:
            return detector
        return detector.model_copy(update={"mesh": self.mesh})

    def _describe(self) -> dict[str, Any]:
        if not self._angles:
            self._assumed |= {"theta": "pi/2", "phi": "0"}
        known = json.loads(self._file.attrs.get("provenance", "{}")) if self._is_ours else {}
        return {**known, "dialect": self.dialect, "assumed": self._assumed}

    def __len__(self) -> int:
        """Return the number of showers."""
        return int(self._voxels.shape[0])

    def read(self, start: int, stop: int) -> Showers:
        """Return showers start to stop, in MeV and rad.

        Raises `RequestError` for damaged data, and for voxels that are not finite or are negative.
        """
        size = max(1, BLOCK_BYTES // (8 * self.mesh.n_cells))
        stop = min(stop, len(self))
        parts = [self._read(i, min(i + size, stop)) for i in range(start, stop, size)]
        return concatenate(parts) if parts else self._read(start, start)

    def _read(self, start: int, stop: int) -> Showers:
        try:
            voxels = self._layout.unpack(self._voxels.read(start, stop), self.mesh)
            energy = self._energy.read(start, stop).reshape(-1)
            theta, phi = (
                self._angles[key].read(start, stop).reshape(-1) if key in self._angles else assumed
                for key, assumed in zip(ANGLES, (np.pi / 2, 0.0), strict=True)
            )
        except OSError:
            raise RequestError(f"'{self.path}' is damaged; make or copy it anew") from None
        self._check_voxels(voxels, start)
        try:
            return Showers.from_dense(
                voxels, mesh=self.mesh, energy=energy, theta=theta, phi=phi,
                detector=self.detector, provenance=self.provenance,
            )  # fmt: skip
        except RequestError as error:
            raise RequestError(f"'{self.path}': {error}") from None

    def stored(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return incident energies (n,) in MeV and voxels (n, ...) just as the file holds them.

        In the layout, scale and precision of the dialect. Raises `RequestError` for damaged data,
        and for voxels that are not finite.
        """
        return _stored(self.path, self._energy, self._voxels, start, min(stop, len(self)))

    def _check_voxels(self, voxels: NDArray[np.float32], start: int) -> None:
        lowest = voxels.min(axis=(1, 2, 3), initial=0.0)
        largest = voxels.max(axis=(1, 2, 3), initial=0.0)
        for bad, what in (
            (~np.isfinite(lowest + largest), "a voxel that is NaN or infinite"),
            (lowest < 0, "a negative voxel"),
        ):
            if bad.any():
                first = start + int(np.argmax(bad))
                raise RequestError(f"'{self.path}': shower {first} has {what}; mend or drop it")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()


class VoxelFile:
    """Voxels of the CaloChallenge that lie on no mesh (dataset 1), opened to read as stored.

    It has energies in MeV and voxels (N, V), flat, and no more: it is no `ShowerSource`. Raises
    `RequestError` for a file that is missing, truncated or laid out otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_hdf5(self.path)
        self.provenance: dict[str, Any] = {"dialect": "calochallenge"}
        try:
            keys = columns_of(self._file)
            if not {"showers", LAYOUTS["calochallenge"].energy} <= keys:
                have = ", ".join(sorted(keys)) or "no datasets"
                raise RequestError(
                    f"'{path}' is no file of the CaloChallenge: it needs 'showers' and "
                    f"'incident_energies' (it has: {have})"
                )
            energy = _Column(self._file, LAYOUTS["calochallenge"].energy)
            self._energy, self._voxels = energy, _Column(self._file, "showers")
            if len(self._voxels.shape) != 2 or math.prod(energy.shape) != self._voxels.shape[0]:
                raise RequestError(f"'{path}': showers of shape {self._voxels.shape} are not flat")
        except BaseException:
            self.close()
            raise

    @property
    def n_voxels(self) -> int:
        """Number of voxels of a shower."""
        return int(self._voxels.shape[1])

    def __len__(self) -> int:
        """Return the number of showers."""
        return int(self._voxels.shape[0])

    def stored(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return incident energies (n,) in MeV and voxels (n, V) just as the file holds them.

        Raises `RequestError` for damaged data, and for voxels that are not finite.
        """
        return _stored(self.path, self._energy, self._voxels, start, min(stop, len(self)))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _stored(
    path: Path, energy: _Column, voxels: _Column, start: int, stop: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        found = energy.read(start, stop).reshape(-1), voxels.read(start, stop)
    except OSError:
        raise RequestError(f"'{path}' is damaged; make or copy it anew") from None
    if not np.isfinite(found[1].sum()):
        raise RequestError(f"'{path}' has voxels that are NaN or infinite; mend or drop them")
    return found


class _Column:
    """One quantity of a dense file: a dataset of its own, or a field of a compound `events`."""

    def __init__(self, file: h5py.File, key: str) -> None:
        events = file.get("events")
        if isinstance(events, h5py.Dataset):
            self._data: h5py.Dataset = events
            self._field: str | None = key
            self.shape = (*events.shape, *events.dtype[key].shape)
        else:
            self._data, self._field = (events or file)[key], None
            self.shape = self._data.shape

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start to stop; may raise OSError."""
        data = self._data if self._field is None else self._data.fields(self._field)
        return np.asarray(data[start:stop])


def columns_of(file: h5py.File) -> set[str]:
    """Names of the quantities in a file: of its root, or of `events` (a group or compound)."""
    events = file.get("events")
    if isinstance(events, h5py.Group):
        return set(events)
    if isinstance(events, h5py.Dataset):
        return set(events.dtype.names or ())
    return {name for name, item in file.items() if isinstance(item, h5py.Dataset)}


def _fits(mesh: Mesh, shape: tuple[int, ...]) -> bool:
    """Whether voxels (R, PHI, Z) or flat ones (R*PHI*Z,) belong on a mesh."""
    return shape in (mesh.shape, (mesh.n_cells,))


def write_dense(source: ShowerSource, path: Path, dialect: str) -> None:
    """Write a source in a dense dialect, block by block; the file appears when it is whole.

    Lost: leakage, seed and pdg. Angles are kept: `calochallenge` and `par04`, which have none of
    their own, get `incident_theta` and `incident_phi` beside their keys unless all showers are at
    90 degrees; tools made for these dialects do not look at them. Raises `RequestError` if the
    folder cannot be written.
    """
    layout = LAYOUTS[dialect]
    with _created(path) as file:
        datasets = _make_datasets(file, layout, len(source), source.mesh)
        theta, phi, done = np.empty(len(source)), np.empty(len(source)), 0
        for block in blocks(source, max(1, BLOCK_BYTES // (8 * source.mesh.n_cells))):
            rows = slice(done, done + len(block))
            theta[rows], phi[rows] = block.theta, block.phi
            shape = (-1, 1) if layout.column else (-1,)
            datasets[layout.energy][rows] = block.energy.reshape(shape)
            datasets["showers"][rows] = layout.pack(block.dense())
            done = rows.stop
        if layout.angles or bool((np.abs(theta - np.pi / 2) > 1e-3).any()):
            file.create_dataset(ANGLES[0], data=theta, dtype=layout.dtype)
            file.create_dataset(ANGLES[1], data=phi, dtype=layout.dtype)
        _write_attributes(file, source)


@contextmanager
def _created(path: Path) -> Iterator[h5py.File]:
    with atomic_path(path) as sibling, h5py.File(sibling, "w") as file:
        yield file


def _make_datasets(file: h5py.File, layout: Layout, n: int, mesh: Mesh) -> dict[str, h5py.Dataset]:
    shape = (mesh.n_cells,) if layout.flat else mesh.shape
    rows = max(1, min(n, 2**20 // (4 * mesh.n_cells)))
    file.create_dataset(layout.energy, (n, 1) if layout.column else (n,), layout.dtype)
    file.create_dataset(
        "showers", (n, *shape), layout.dtype, maxshape=(None, *shape), chunks=(rows, *shape),
        compression="gzip", compression_opts=1, shuffle=True,
    )  # fmt: skip
    return {key: file[key] for key in (layout.energy, "showers")}


def _write_attributes(file: h5py.File, source: ShowerSource) -> None:
    file.attrs["mesh"] = np.array(source.mesh.shape)
    file.attrs["cell_r_mm"] = source.mesh.cell_r_mm
    file.attrs["cell_z_mm"] = source.mesh.cell_z_mm
    if source.detector is not None:
        file.attrs["detector"] = source.detector.to_toml()
    file.attrs["provenance"] = json.dumps(source.provenance)
