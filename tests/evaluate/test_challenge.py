"""The challenge's numbers: against the organisers' own on stored showers, and by laws."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.binning import Binning
from caloforge.evaluate.challenge import challenge_features, histograms, voxel_blocks, voxel_edges
from caloforge.evaluate.distances import frechet_distance, kernel_distance, neighbour_scores
from caloforge.evaluate.metrics import separation_power
from caloforge.quickstart import shipped_reference
from caloforge.showers.formats import open_showers, read_showers, write_showers

OFFICIAL = json.loads(Path(__file__).with_name("crosscheck.json").read_text())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The two files that the organisers' code was run on, see crosscheck.json."""
    folder = tmp_path_factory.mktemp("cross")
    showers = read_showers(shipped_reference())
    second = showers[500:]
    bright = second.with_(deposit=second.deposit * np.float32(1.03))
    paths = []
    for name, sample in (("reference", showers[:500]), ("generated", bright)):
        paths.append(folder / f"{name}.hdf5")
        write_showers(sample, paths[-1], "calochallenge")
    return [open_showers(path) for path in paths]


@pytest.fixture(scope="module")
def computed(pair):
    binning = Binning.of_mesh(pair[0].mesh, 5e-4)
    edges = voxel_edges(pair[0], binning)
    return [challenge_features(source, binning, edges) for source in pair]


def test_features_are_the_organisers(computed):
    first, second = (c.matrix() for c in computed)
    assert list(first.shape) == OFFICIAL["shape"]
    np.testing.assert_allclose(first[0], OFFICIAL["first"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(second[-1], OFFICIAL["last_generated"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(first.mean(axis=0), OFFICIAL["means"], rtol=0, atol=1e-7)


def test_separation_powers_are_the_organisers(computed):
    first, second = computed
    seen = {
        h.name: float(separation_power(h.counts(first), h.counts(second)))
        for h in histograms(first)
    }
    seen["voxel"] = float(separation_power(first.voxels.sum(axis=0), second.voxels.sum(axis=0)))
    assert set(seen) == set(OFFICIAL["separation"]) and len(seen) == 362
    for name, value in OFFICIAL["separation"].items():
        assert seen[name] == pytest.approx(value, abs=1e-6), name


def test_frechet_and_kernel_distance_are_those_of_jetnet(computed):
    first, second = (c.matrix() for c in computed)
    assert frechet_distance(first, second).value == pytest.approx(OFFICIAL["fpd"][0], rel=1e-4)
    assert kernel_distance(first, second).value == pytest.approx(OFFICIAL["kpd"][0], rel=1e-4)


def test_neighbour_scores_are_those_of_prdc(pair, computed):
    binning = computed[0].binning
    logs = [
        np.log10(np.where(v == 0, 0.1, v)).astype(np.float32)
        for v in (np.concatenate([v for _, v in voxel_blocks(s, binning)]) for s in pair)
    ]
    seen = neighbour_scores(*logs)
    for name, value in OFFICIAL["prdc"].items():
        assert getattr(seen, name).value == pytest.approx(value, abs=0.005), name


def test_any_dialect_gives_the_same_features(pair, computed, tmp_path):
    native = read_showers(shipped_reference())[:500]
    seen = challenge_features(native, computed[0].binning).matrix()
    np.testing.assert_array_equal(seen, computed[0].matrix())
    write_showers(native, tmp_path / "lemurs.h5", "lemurs")
    with open_showers(tmp_path / "lemurs.h5", detector=native.detector) as dense:
        np.testing.assert_array_equal(challenge_features(dense, computed[0].binning).matrix(), seen)


def test_blocks_and_chosen_rows_change_nothing(pair, computed):
    binning = computed[0].binning
    whole = np.concatenate([v for _, v in voxel_blocks(pair[0], binning, size=500)])
    small = np.concatenate([v for _, v in voxel_blocks(pair[0], binning, size=7)])
    np.testing.assert_array_equal(whole, small)
    rows = np.array([3, 77, 78, 499])
    some = np.concatenate([v for _, v in voxel_blocks(pair[0], binning, rows, size=50)])
    np.testing.assert_array_equal(some, whole[rows])
    assert ((whole == 0) | (whole >= binning.cut)).all()


def test_one_voxel_has_its_place_and_no_width(siw):
    """A single voxel: centres at its own, widths zero up to rounding, one cell not empty."""
    from caloforge.showers.showers import Showers

    voxels = np.zeros((1, *siw.mesh.shape), np.float32)
    voxels[0, 4, 3, 20] = 2.0
    one = Showers.from_dense(voxels, mesh=siw.mesh, energy=1e4, theta=1.5, phi=0.0)
    seen = challenge_features(one, Binning.of_mesh(siw.mesh, 5e-4))
    r, phi = siw.mesh.centres_r[4], siw.mesh.centres_phi[3]
    assert seen.r[0, 20] == pytest.approx(r)
    assert (seen.x[0, 20], seen.y[0, 20]) == pytest.approx((r * np.cos(phi), r * np.sin(phi)))
    assert max(seen.x_width[0, 20], seen.y_width[0, 20], seen.r_width[0, 20]) < 1e-2
    assert seen.sparsity[0, 20] == pytest.approx(143 / 144) and seen.sparsity[0, 19] == 1
    assert seen.total[0] == pytest.approx(2 / 0.033) == pytest.approx(seen.layer[0].sum())


def test_stored_voxels_that_are_not_numbers_are_refused(pair, tmp_path):
    bad = tmp_path / "bad.hdf5"
    with h5py.File(pair[0].path) as old, h5py.File(bad, "w") as new:
        for key in ("incident_energies", "showers"):
            new[key] = old[key][:40]
        new["showers"][5, 7] = np.nan
    source = open_showers(bad)
    with pytest.raises(RequestError, match="NaN"):
        challenge_features(source, Binning.of_mesh(source.mesh, 5e-4))
