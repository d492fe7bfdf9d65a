"""The native file: what is written is read, in any pieces; broken files are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.showers.native import ShowerFile, ShowerWriter, blocks
from caloforge.showers.showers import PER_SHOWER, Showers, concatenate

Toy = Callable[..., Showers]


@pytest.fixture
def showers(toy: Toy, small_detector: Detector) -> Showers:
    return toy(small_detector, 30)


@pytest.fixture
def path(showers: Showers, tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    with ShowerWriter(path, showers.mesh, showers.detector, showers.provenance) as writer:
        for block in blocks(showers, 7):
            writer.append(block)
    return path


@pytest.mark.parametrize("size", [1, 11, 100])
def test_read_in_pieces(showers: Showers, path: Path, size: int) -> None:
    with ShowerFile(path) as file:
        again = concatenate(list(blocks(file, size)))
    for name in (*PER_SHOWER, "offsets", "cell", "deposit"):
        assert np.array_equal(getattr(again, name), getattr(showers, name)), name
    assert (again.detector, again.mesh, again.provenance) == (
        showers.detector, showers.mesh, showers.provenance)  # fmt: skip


def test_plain_h5py_reads_it(showers: Showers, path: Path) -> None:
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1
        assert file["cell"].dtype == np.uint16 and file["cell"].compression == "gzip"
        assert file["deposit"][:].sum() == pytest.approx(showers.deposit.sum(), rel=1e-6)


def test_the_cell_sizes_are_kept_without_a_detector(showers: Showers, tmp_path: Path) -> None:
    with ShowerWriter(tmp_path / "b.h5", showers.mesh) as writer:
        writer.append(showers)
    with ShowerFile(tmp_path / "b.h5") as file:
        assert file.mesh == showers.mesh and file.detector is None


def test_version_0_has_no_seed_and_takes_its_cells_from_the_detector(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["seed"], file.attrs["cell_r_mm"], file.attrs["cell_z_mm"]
        file.attrs["format_version"] = 0
    with ShowerFile(path) as file:
        assert file.read(0, 5).seed.tolist() == [0] * 5
        assert file.detector is not None and file.mesh == file.detector.mesh


def test_an_error_leaves_no_file(showers: Showers, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ShowerWriter(tmp_path / "c.h5", showers.mesh) as writer:
        writer.append(showers)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_refuses_another_mesh(showers: Showers, siw: Detector, tmp_path: Path) -> None:
    with (
        pytest.raises(RequestError, match="another mesh"),
        ShowerWriter(tmp_path / "c.h5", siw.mesh) as writer,
    ):
        writer.append(showers)


def test_names_what_is_broken(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        ShowerFile(tmp_path / "nowhere.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RequestError, match="truncated"):
        ShowerFile(cut)
    with h5py.File(path, "a") as file:
        del file["cell"]
    with pytest.raises(RequestError, match="no dataset cell"):
        ShowerFile(path)


def test_refuses_a_later_version(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(RequestError, match="update caloforge"):
        ShowerFile(path)
