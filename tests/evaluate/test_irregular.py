"""Voxels on no mesh: the challenge's dataset 1, and a binning of the user's."""

import json

import h5py
import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.binning import DATASET_1
from caloforge.evaluate.irregular import binning_of, validate_voxels
from caloforge.evaluate.request import validate_files
from caloforge.evaluate.validation import Options
from caloforge.showers.dialects import VoxelFile

XML = """<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,5,10" n_bin_alpha="1" />
<Layer id="2" r_edges="0,2,4,8" n_bin_alpha="4" /></Bin></Bins>"""
QUICK = Options(neighbours=100)


def write(path, voxels, seed, scale=1.0, n=300):
    """Showers of discrete energies with gamma-distributed voxels."""
    rng = np.random.default_rng(seed)
    energy = 2.0 ** rng.integers(10, 18, n)
    share = np.linspace(2, 0.1, voxels) ** 2
    showers = energy[:, None] * share / share.sum() * rng.gamma(2, 0.5, (n, voxels)) * scale
    with h5py.File(path, "w") as file:
        file["incident_energies"], file["showers"] = energy[:, None], showers
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset1")
    made = {"reference": (1, 1.0), "same": (2, 1.0), "bright": (3, 1.1), "floor": (4, 1.0)}
    return {k: write(folder / f"{k}.hdf5", 368, *v) for k, v in made.items()}


def test_dataset_1_is_recognised_by_its_voxels(files, tmp_path):
    assert binning_of(files["reference"]) is DATASET_1[368]
    assert binning_of(write(tmp_path / "p.hdf5", 533, 1)) is DATASET_1[533]
    assert binning_of(write(tmp_path / "x.hdf5", 100, 1)) is None
    assert binning_of(tmp_path / "absent.hdf5") is None  # its reader says so


def test_a_scale_is_found_with_its_size_and_an_equal_law_is_not(files, tmp_path):
    record = validate_files(
        files["reference"], [files["same"], files["bright"]], tmp_path, files["floor"],
        options=Options(neighbours=100, trainings=1, classifiers=("trees",)),
    )  # fmt: skip
    json.dumps(record, allow_nan=False)
    same, bright = record["models"]
    ratio = {m["name"]: m for m in bright["metrics"]}["response.ratio"]
    assert abs(ratio["value"] - 1.1) < 4 * ratio["error"] and ratio["sigmas"] > 5
    assert bright["verdict"]["findings"][0].startswith("mean response +")
    assert same["verdict"]["findings"] == []
    assert len(same["challenge_separations"]) == 2 + 5 * 4 + 2 * 4
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "dataset 1, photons" in text and 'id="trust"' not in text and 'id="challenge"' in text
    assert 'id="figure-resolution_vs_energy"' in text and "<script" not in text


def test_halves_serve_as_the_floor(files, tmp_path):
    record = validate_files(files["reference"], [files["same"]], tmp_path, options=QUICK)
    assert record["floor"] == "halves" and record["sample_size"] == 150
    assert record["files"][0]["mesh"] == "368 in 5 layers"


def test_a_binning_of_ones_own(tmp_path):
    (tmp_path / "b.xml").write_text(XML)
    first, second = (write(tmp_path / f"{k}.hdf5", 14, k) for k in (1, 2))
    record = validate_files(first, [second], tmp_path / "out", binning=tmp_path / "b.xml",
                            options=QUICK)  # fmt: skip
    assert len(record["models"][0]["challenge_separations"]) == 2 + 2 * 4 + 4
    other = write(tmp_path / "3.hdf5", 15, 3)
    with pytest.raises(RequestError, match="take the binning that belongs"):
        validate_files(other, [second], tmp_path / "no", binning=tmp_path / "b.xml")
    assert not (tmp_path / "no").exists()


def test_wrong_requests_are_one_line_and_leave_nothing(files, tmp_path):
    pions = write(tmp_path / "p.hdf5", 533, 1)
    few = write(tmp_path / "few.hdf5", 368, 1, n=10)
    wanted = (
        ([pions], QUICK, "compare files of one binning"),
        ([few], QUICK, "give at least 20"),
        ([files["same"]], Options(classifiers=("resnet",)), "residual network"),
        ([tmp_path / "absent.hdf5"], QUICK, "there is no file"),
    )
    for generated, options, words in wanted:
        with pytest.raises(RequestError, match=words) as caught:
            validate_files(files["reference"], generated, tmp_path / "out", options=options)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_file_of_another_layout_is_no_voxel_file(files, tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["showers"] = np.zeros((3, 2, 2))
        file["incident_energies"] = np.ones((3, 1))
    with pytest.raises(RequestError, match="not flat"):
        VoxelFile(tmp_path / "x.hdf5")
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file["energy"] = np.ones(3)
    with pytest.raises(RequestError, match="no file of the CaloChallenge"):
        VoxelFile(tmp_path / "y.hdf5")


def test_python_gives_the_same_as_paths(files, tmp_path):
    opened = [VoxelFile(files[k]) for k in ("reference", "same")]
    first = validate_voxels(opened[0], opened[1:], DATASET_1[368], tmp_path / "a", options=QUICK)
    second = validate_files(files["reference"], [files["same"]], tmp_path / "b", options=QUICK)
    for record in (first, second):
        record["models"][0].pop("seconds")
    assert first == second
