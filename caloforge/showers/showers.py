"""Showers: what primaries left in the cells of a calorimeter, in memory and on disk.

A shower fills a tenth of its mesh, so showers are kept sparse, in compressed rows: shower i owns
the entries ``offsets[i]:offsets[i+1]`` of `cell` (flat index in (R, PHI, Z) order) and `deposit`
(raw visible energy in MeV). The same layout is the native HDF5 format (docs/data_format.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.detector.detector import Detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError

__all__ = ["PER_SHOWER", "Showers", "cell_dtype", "concatenate"]

PER_SHOWER: Mapping[str, Any] = {
    "energy": np.float32, "theta": np.float32, "phi": np.float32,
    "pdg": np.int32, "leakage": np.float32, "seed": np.uint64,
}  # fmt: skip


def cell_dtype(mesh: Mesh) -> type[np.unsignedinteger[Any]]:
    """Smallest unsigned type that can number the cells of a mesh."""
    return np.uint16 if mesh.n_cells <= 2**16 else np.uint32


@dataclass(frozen=True, eq=False)
class Showers:
    """N showers on one mesh.

    energy (N,) f4: kinetic energy of the primary in MeV; theta, phi (N,) f4: its direction in rad;
    pdg (N,) i4; leakage (N,) f4: visible energy outside the mesh in MeV; seed (N,) u8: seed of the
    event; offsets (N+1,) i8; cell (K,) u2 or u4; deposit (K,) f4: raw visible energy in MeV.
    Other types are converted. Raises `RequestError` for arrays that do not belong together, cells
    outside the mesh, energies that are not positive, and deposits that are negative or not finite.
    """

    energy: NDArray[np.float32]
    theta: NDArray[np.float32]
    phi: NDArray[np.float32]
    pdg: NDArray[np.int32]
    leakage: NDArray[np.float32]
    seed: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    cell: NDArray[Any]
    deposit: NDArray[np.float32]
    mesh: Mesh
    detector: Detector | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert the arrays to their types and validate them."""
        for name, dtype in PER_SHOWER.items():
            self._set(name, dtype)
        self._set("offsets", np.int64)
        self._set("deposit", np.float32)
        self._validate()
        self._set("cell", cell_dtype(self.mesh))

    def _set(self, name: str, dtype: Any) -> None:
        object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))

    def _validate(self) -> None:
        n = len(self.energy)
        for name in PER_SHOWER:
            if getattr(self, name).shape != (n,):
                raise RequestError(f"showers: '{name}' has not one value for each of {n} showers")
        offsets = self.offsets
        sound = (
            offsets.shape == (n + 1,) and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
        )
        if not sound or offsets[-1] != len(self.cell) or len(self.cell) != len(self.deposit):
            raise RequestError("showers: 'offsets', 'cell' and 'deposit' do not belong together")
        if not (np.isfinite(self.deposit).all() and np.isfinite(self.leakage).all()):
            raise RequestError("showers: NaN or infinite deposits; mend or drop these showers")
        if (self.deposit < 0).any() or (self.leakage < 0).any():
            raise RequestError("showers: negative deposits; mend or drop these showers")
        if not (np.isfinite(self.energy).all() and (self.energy > 0).all()):
            raise RequestError("showers: incident energies must be finite and above 0 MeV")
        if not (np.isfinite(self.theta).all() and np.isfinite(self.phi).all()):
            raise RequestError("showers: directions must be finite angles in rad")
        if len(self.cell) and not (self.cell.min() >= 0 and self.cell.max() < self.mesh.n_cells):
            raise RequestError(
                f"showers: a cell lies outside the mesh of {self.mesh.n_cells} cells"
            )

    @classmethod
    def from_dense(
        cls,
        voxels: ArrayLike,
        *,
        mesh: Mesh,
        energy: ArrayLike,
        theta: ArrayLike,
        phi: ArrayLike,
        pdg: ArrayLike = 11,
        leakage: ArrayLike = 0.0,
        seed: ArrayLike = 0,
        detector: Detector | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> Showers:
        """Make showers from voxels (N, R, PHI, Z) in MeV; the others are (N,) or one value for all.

        Raises `RequestError` if the voxels do not fit the mesh or hold what `Showers` refuses.
        """
        dense = np.asarray(voxels)
        if dense.ndim != 4 or dense.shape[1:] != mesh.shape:
            raise RequestError(f"voxels of shape {dense.shape} do not fit a mesh of {mesh.shape}")
        n = len(dense)
        flat = dense.reshape(n, mesh.n_cells)
        row, cell = np.nonzero(flat)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
        scalars = dict(energy=energy, theta=theta, phi=phi, pdg=pdg, leakage=leakage, seed=seed)
        return cls(
            **{k: np.broadcast_to(np.asarray(v), (n,)) for k, v in scalars.items()},
            offsets=offsets, cell=cell, deposit=flat[row, cell], mesh=mesh, detector=detector,
            provenance=provenance or {},
        )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self.energy)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Showers:
        """Return the chosen showers: a slice, or an array (M,) of indices or of truth values."""
        index = np.arange(len(self))[chosen]
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        entries = np.repeat(self.offsets[index], lengths) + within
        per_shower = {name: getattr(self, name)[index] for name in PER_SHOWER}
        return replace(
            self, **per_shower, offsets=offsets, cell=self.cell[entries],
            deposit=self.deposit[entries],
        )  # fmt: skip

    def with_(self, **changes: Any) -> Showers:
        """Return a copy with some fields changed, validated anew."""
        return replace(self, **changes)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Number of the shower (K,) that each deposit belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def dense(self) -> NDArray[np.float32]:
        """Voxels (N, R, PHI, Z) in MeV; cells that occur twice are added up."""
        n, cells = len(self), self.mesh.n_cells
        flat = self.rows * cells + self.cell
        voxels = np.bincount(flat, weights=self.deposit, minlength=n * cells)
        return voxels.reshape(n, *self.mesh.shape).astype(np.float32)

    def visible(self) -> NDArray[np.float64]:
        """Visible energy (N,) in MeV inside the mesh."""
        sums = np.bincount(self.rows, weights=self.deposit, minlength=len(self))
        return sums.astype(np.float64)

    def layer_energies(self) -> NDArray[np.float64]:
        """Visible energy (N, Z) in MeV of each slice of the mesh along the primary."""
        n, n_z = len(self), self.mesh.n_z
        flat = self.rows * n_z + self.cell % n_z
        sums = np.bincount(flat, weights=self.deposit, minlength=n * n_z)
        return sums.reshape(n, n_z).astype(np.float64)

    def above(self, cut_mev: float) -> Showers:
        """Return the same showers without deposits below `cut_mev` (MeV)."""
        kept = self.deposit >= cut_mev
        counts = np.bincount(self.rows[kept], minlength=len(self))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return replace(self, offsets=offsets, cell=self.cell[kept], deposit=self.deposit[kept])

    def mirrored(self) -> Showers:
        """Return the showers mirrored in phi' -> -phi', as likely as the originals."""
        return replace(self, cell=self.mesh.mirrored(self.cell))

    def read(self, start: int, stop: int) -> Showers:
        """Return showers start to stop; with this, showers in memory serve as a `ShowerSource`."""
        return self[start:stop]

    def close(self) -> None:
        """Do nothing; it is here because a `ShowerSource` can be closed."""


def concatenate(parts: Sequence[Showers]) -> Showers:
    """Join showers on the same mesh; detector and provenance are those of the first part.

    Raises `RequestError` if there are none or the meshes differ.
    """
    if not parts:
        raise RequestError("there are no showers to join")
    if any(part.mesh != parts[0].mesh for part in parts):
        raise RequestError("showers on different meshes cannot be joined")
    shifts = np.cumsum([0] + [part.offsets[-1] for part in parts])
    offsets = [part.offsets[1:] + shift for part, shift in zip(parts, shifts, strict=False)]
    joined: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(Showers)
        if f.name in PER_SHOWER or f.name in ("cell", "deposit")
    }
    return replace(parts[0], **joined, offsets=np.concatenate([[0], *offsets]))
