"""Laws of the file dialects: round trips, axis order, recognition, streaming, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.detector.detector import Detector, load_detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.showers import dialects
from caloforge.showers.dialects import PUBLISHED_MESHES, DenseFile
from caloforge.showers.formats import (
    DIALECTS,
    convert,
    open_showers,
    read_showers,
    recognise,
    write_showers,
)
from caloforge.showers.showers import Showers, concatenate

RIGHT = np.pi / 2
DENSE = ["lemurs", "calochallenge", "par04"]
SIW = load_detector("par04-siw")


def some(n: int = 5, theta: float | None = None, detector: Detector = SIW) -> Showers:
    """Make n random showers in a detector; `theta` in rad, random if not given."""
    rng = np.random.default_rng(3)
    filled = rng.random((n, *detector.mesh.shape)) < 0.05
    voxels = np.where(filled, rng.exponential(0.3, filled.shape), 0).astype(np.float32)
    return Showers.from_dense(
        voxels, mesh=detector.mesh, energy=rng.uniform(1e3, 1e5, n),
        theta=rng.uniform(0.9, 2.2, n) if theta is None else theta,
        phi=rng.uniform(-3, 3, n), pdg=22, leakage=rng.random(n), seed=np.arange(n),
        detector=detector, provenance={"engine": "test"},
    )  # fmt: skip


def one_hot(r: int, phi: int, z: int) -> Showers:
    """Make one shower at 90 degrees with 3 MeV in a single cell of the default mesh."""
    voxels = np.zeros((1, *SIW.mesh.shape), np.float32)
    voxels[0, r, phi, z] = 3.0
    return Showers.from_dense(voxels, mesh=SIW.mesh, energy=1e4, theta=RIGHT, phi=0.0)


@pytest.mark.parametrize("first", DIALECTS)
@pytest.mark.parametrize("second", DIALECTS)
def test_round_trips_keep_voxels_and_what_the_dialects_carry(
    tmp_path: Path, first: str, second: str
) -> None:
    showers, a, b = some(), tmp_path / "a.h5", tmp_path / "b.h5"
    write_showers(showers, a, first)
    convert(a, b, to_dialect=second)
    back = read_showers(b)
    np.testing.assert_allclose(back.dense(), showers.dense(), rtol=4e-7)
    for name in ("energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(back, name), getattr(showers, name))
    assert back.mesh == showers.mesh
    assert back.detector == showers.detector
    assert back.provenance["engine"] == "test"


def test_native_keeps_everything_through_a_copy(tmp_path: Path) -> None:
    showers = some()
    write_showers(showers, tmp_path / "a.h5")
    convert(tmp_path / "a.h5", tmp_path / "b.h5")
    back = read_showers(tmp_path / "b.h5")
    for name in ("pdg", "leakage", "seed", "offsets", "cell", "deposit"):
        np.testing.assert_array_equal(getattr(back, name), getattr(showers, name))


def test_one_hot_voxel_lands_in_its_cell_in_every_dialect(tmp_path: Path) -> None:
    r, phi, z = 2, 5, 7
    for name in DIALECTS:
        write_showers(one_hot(r, phi, z), tmp_path / f"{name}.h5", name)
    with h5py.File(tmp_path / "native.h5") as file:
        assert file["cell"][:].tolist() == [1672]  # (2*16 + 5)*45 + 7
    for name in ("lemurs", "par04"):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert np.argwhere(file["showers"][0]).tolist() == [[2, 5, 7]]
            assert file["showers"][0, 2, 5, 7] == 3.0
    with h5py.File(tmp_path / "calochallenge.h5") as file:
        stored = file["showers"][0]
        assert np.flatnonzero(stored).tolist() == [1055]  # (7*16 + 5)*9 + 2
        assert stored[1055] == pytest.approx(3.0 / 0.033)
    for name in DIALECTS:
        back = read_showers(tmp_path / f"{name}.h5")
        assert np.argwhere(back.dense()[0]).tolist() == [[r, phi, z]]


def test_stored_types_are_those_of_the_dialects(tmp_path: Path) -> None:
    for name, energy, shape, dtype in (
        ("lemurs", "incident_energy", (5,), "f4"),
        ("calochallenge", "incident_energies", (5, 1), "f4"),
        ("par04", "incident_energy", (5,), "f8"),
    ):
        write_showers(some(theta=RIGHT), tmp_path / name, name)
        with h5py.File(tmp_path / name) as file:
            assert file[energy].shape == shape
            assert file["showers"].dtype == dtype


@pytest.mark.parametrize("dialect", ["calochallenge", "par04"])
def test_angles_are_written_only_where_the_dialect_would_lie(tmp_path: Path, dialect: str) -> None:
    write_showers(some(theta=RIGHT), tmp_path / "right.h5", dialect)
    write_showers(some(theta=1.2), tmp_path / "tilted.h5", dialect)
    with h5py.File(tmp_path / "right.h5") as file:
        assert "incident_theta" not in file
    right, tilted = read_showers(tmp_path / "right.h5"), read_showers(tmp_path / "tilted.h5")
    np.testing.assert_allclose(right.theta, RIGHT)
    assert right.provenance["assumed"]["theta"] == "pi/2"
    np.testing.assert_allclose(tilted.theta, 1.2, rtol=1e-6)
    assert "theta" not in tilted.provenance.get("assumed", {})


def foreign(path: Path, **columns: Any) -> Path:
    """Write a file as others do: datasets only, no attributes."""
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


def dense_columns(n: int = 3, shape: tuple[int, ...] = (9, 16, 45)) -> dict[str, Any]:
    """Columns of a LEMURS file with n showers."""
    rng = np.random.default_rng(0)
    return {
        "showers": rng.random((n, *shape)).astype("f4"),
        "incident_energy": np.full(n, 5e3, "f4"),
        "incident_theta": np.full(n, 1.3, "f4"),
        "incident_phi": np.full(n, 0.2, "f4"),
    }


@pytest.mark.parametrize("shape", list(PUBLISHED_MESHES))
def test_foreign_files_get_the_published_mesh_of_their_shape(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    n_cells = int(np.prod(shape))
    path = foreign(
        tmp_path / "c.h5", incident_energies=np.full((2, 1), 1e4), showers=np.ones((2, n_cells))
    )
    showers = read_showers(path)
    assert recognise(path) == "calochallenge"
    assert showers.mesh == PUBLISHED_MESHES[shape]
    assert showers.detector is not None
    assert showers.detector.mesh == showers.mesh
    np.testing.assert_allclose(showers.dense(), 0.033, rtol=1e-6)


@pytest.mark.parametrize("kind", ["root", "group", "compound"])
def test_lemurs_is_read_from_the_root_a_group_or_a_compound(tmp_path: Path, kind: str) -> None:
    columns, path = dense_columns(), tmp_path / "l.h5"
    with h5py.File(path, "w") as file:
        if kind == "compound":
            table = np.empty(3, [(k, "f4", v.shape[1:]) for k, v in columns.items()])
            for name, values in columns.items():
                table[name] = values
            file["events"] = table
        else:
            place = file if kind == "root" else file.create_group("events")
            for name, values in columns.items():
                place[name] = values
    assert recognise(path) == "lemurs"
    showers = read_showers(path)
    np.testing.assert_array_equal(showers.dense(), columns["showers"])
    np.testing.assert_array_equal(showers.theta, columns["incident_theta"])
    assert showers.detector is None
    assert "cells" in showers.provenance["assumed"]


def test_a_named_detector_gives_the_cells_of_an_unknown_mesh(tmp_path: Path) -> None:
    path = foreign(tmp_path / "l.h5", **dense_columns(shape=(4, 6, 10)))
    mesh = Mesh(n_r=4, n_phi=6, n_z=10, cell_r_mm=8, cell_z_mm=9)
    told = SIW.model_copy(update={"name": "mine", "mesh": mesh})
    with pytest.raises(RequestError, match="name the detector"):
        open_showers(path)
    assert read_showers(path, detector=told).mesh == mesh
    with pytest.raises(RequestError, match="do not fit"):
        open_showers(path, detector=SIW)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_reading_in_blocks_gives_the_same_and_only_reads_the_block(
    tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, "BLOCK_BYTES", 8 * SIW.mesh.n_cells * 2)  # two showers
    write_showers(some(7), tmp_path / "a.h5", dialect)
    source = open_showers(tmp_path / "a.h5")
    whole = source.read(0, len(source))
    parts = concatenate([source.read(0, 3), source.read(3, 4), source.read(4, 100)])
    source.close()
    np.testing.assert_array_equal(whole.dense(), parts.dense())
    np.testing.assert_array_equal(whole.energy, parts.energy)


def test_dense_files_are_never_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_showers(some(9), tmp_path / "a.h5", "lemurs")
    monkeypatch.setattr(dialects, "BLOCK_BYTES", 8 * SIW.mesh.n_cells * 2)
    sizes: list[int] = []
    read = DenseFile._read

    def watched(self: DenseFile, start: int, stop: int) -> Showers:
        sizes.append(stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(DenseFile, "_read", watched)
    convert(tmp_path / "a.h5", tmp_path / "b.h5")
    assert sum(sizes) == 9
    assert max(sizes) == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_showers_survive_the_round_trip(tmp_path: Path, dialect: str) -> None:
    write_showers(some(0), tmp_path / "a.h5", dialect)
    assert len(read_showers(tmp_path / "a.h5", dialect)) == 0


def _missing(path: Path) -> Path:
    return path


def _truncated(path: Path) -> Path:
    write_showers(some(), path, "lemurs")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _text(path: Path) -> Path:
    path.write_text("no HDF5")
    return path


def _columns(**changes: Any) -> Callable[[Path], Path]:
    """Make a maker of LEMURS files with some columns replaced, or left out where None."""

    def make(path: Path) -> Path:
        columns = {**dense_columns(), **changes}
        return foreign(path, **{k: v for k, v in columns.items() if v is not None})

    return make


def _voxel(value: float) -> Callable[[Path], Path]:
    showers = dense_columns()["showers"]
    showers[1, 2, 3, 4] = value
    return _columns(showers=showers)


WRONG = {
    "missing": (_missing, "there is no file"),
    "truncated": (_truncated, "truncated"),
    "text": (_text, "no HDF5"),
    "no-showers": (_columns(showers=None), "has no 'showers'.*incident_energy.*calochallenge"),
    "no-energy": (_columns(incident_energy=None), "fits no dialect"),
    "half-angles": (_columns(incident_phi=None), "fits no dialect"),
    "two-dialects": (_columns(incident_energies=np.ones((3, 1))), "name one"),
    "lengths": (_columns(incident_energy=np.ones(2)), "different numbers"),
    "rank": (_columns(showers=np.ones((3, 6480))), "4 axes"),
    "nan-voxel": (_voxel(np.nan), "shower 1 has a voxel that is NaN"),
    "infinite-voxel": (_voxel(np.inf), "shower 1 has a voxel that is NaN or inf"),
    "negative-voxel": (_voxel(-1.0), "shower 1 has a negative voxel"),
    "zero-energy": (_columns(incident_energy=np.zeros(3)), "energies must be"),
    "nan-angle": (_columns(incident_theta=np.full(3, np.nan)), "finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_get_one_clear_line_and_leave_nothing(tmp_path: Path, name: str) -> None:
    make, complaint = WRONG[name]
    path, target = make(tmp_path / "in.h5"), tmp_path / "out.h5"
    with pytest.raises(RequestError, match=complaint) as caught:
        convert(path, target)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] in ([], ["in.h5"])


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_showers(some(40), path, "lemurs")
    with h5py.File(path) as file:
        chunk = file["showers"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 10 : chunk.byte_offset + 200] = bytes(190)
    path.write_bytes(bytes(data))
    with pytest.raises(RequestError, match="damaged"):
        read_showers(path)


def test_wrong_requests(tmp_path: Path) -> None:
    write_showers(some(), tmp_path / "a.h5")
    with pytest.raises(RequestError, match="unknown dialect 'root'"):
        write_showers(some(), tmp_path / "b.h5", "root")
    with pytest.raises(RequestError, match="onto itself"):
        convert(tmp_path / "a.h5", tmp_path / "a.h5", to_dialect="lemurs")
    with pytest.raises(RequestError, match="no dataset"):
        open_showers(tmp_path / "a.h5", "lemurs")


@pytest.mark.parametrize("page", ["data_format.md", "conventions.md"])
def test_examples_of_the_documentation_run(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    showers = some()
    write_showers(showers, tmp_path / "showers.h5")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    names: dict[str, Any] = {}
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == 1
    exec(code[0], names)
    if "voxels" in names:
        np.testing.assert_array_equal(names["voxels"], showers.dense()[0])
