from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.evaluate.observables import CUT_MEV, QUANTITIES, SPECTRUM_EDGES, measure
from caloforge.showers.showers import Showers

MESH = Mesh(n_r=4, n_phi=6, n_z=5, cell_r_mm=3.0, cell_z_mm=7.0)


def one_voxel(r: int, phi: int, z: int, deposit: float = 2.0) -> Showers:
    voxels = np.zeros((1, *MESH.shape))
    voxels[0, r, phi, z] = deposit
    return Showers.from_dense(voxels, mesh=MESH, energy=100.0, theta=1.5, phi=0.2)


@given(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_one_hot_voxel_is_found_where_it_is(r, phi, z):
    seen = measure(one_voxel(r, phi, z))
    assert seen.visible[0] == 2.0
    assert seen.response[0] == pytest.approx(0.02)
    assert seen.z_mean[0] == pytest.approx((z + 0.5) * 7.0)
    assert seen.r_mean[0] == pytest.approx((r + 0.5) * 3.0)
    assert seen.z_width[0] == 0 and seen.r_width[0] == 0
    assert np.flatnonzero(seen.sector_energy[0]).tolist() == [phi]
    assert seen.phi_cos[0] == pytest.approx(np.cos(MESH.centres_phi[phi]))
    assert seen.hits[0] == 1 and seen.layer_hits[0, z] == 1
    assert seen.sparsity[0] == pytest.approx(1 - 1 / MESH.n_cells)
    assert seen.sector_link[0] == 0
    assert seen.shower_map[r, z] == pytest.approx(0.02) and np.count_nonzero(seen.shower_map) == 1
    colour = int(np.flatnonzero(seen.spectrum[0])[0])
    assert SPECTRUM_EDGES[colour] <= 2.0 < SPECTRUM_EDGES[colour + 1]


def test_two_equal_voxels_are_as_wide_as_half_their_distance():
    voxels = np.zeros((1, *MESH.shape))
    voxels[0, 0, 2, 1] = voxels[0, 2, 2, 4] = 5.0
    seen = measure(Showers.from_dense(voxels, mesh=MESH, energy=100.0, theta=1.5, phi=0.2))
    assert seen.z_mean[0] == pytest.approx(7.0 * 3.0) and seen.r_mean[0] == pytest.approx(3.0 * 1.5)
    assert seen.z_width[0] == pytest.approx(1.5 * 7.0) and seen.r_width[0] == pytest.approx(3.0)


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_of_any_size_give_the_same(toy, block):
    showers = toy(100, 3)
    whole, pieces = measure(showers), measure(showers, block=block)
    for field in fields(whole):
        first, second = getattr(whole, field.name), getattr(pieces, field.name)
        if isinstance(first, np.ndarray):
            np.testing.assert_allclose(first, second, rtol=1e-12, atol=0)


def test_energy_is_shared_out_without_loss(reference, toy):
    showers = toy(800, 1).above(CUT_MEV)
    np.testing.assert_allclose(reference.visible, showers.visible(), rtol=1e-6)
    for part in (reference.layer_energy, reference.ring_energy, reference.sector_energy):
        np.testing.assert_allclose(part.sum(axis=1), reference.visible, rtol=1e-12)
    np.testing.assert_array_equal(reference.spectrum.sum(axis=1), reference.hits)
    np.testing.assert_array_equal(reference.hits, np.diff(showers.offsets))
    total = (showers.visible() / showers.energy).sum()
    assert reference.shower_map.sum() == pytest.approx(total)


def test_cut_keeps_what_reaches_it_and_drops_what_does_not():
    for deposit, hits in ((CUT_MEV * 0.99, 0), (CUT_MEV, 1), (CUT_MEV * 1.01, 1)):
        assert measure(one_voxel(1, 1, 1, deposit)).hits[0] == hits
    assert measure(one_voxel(1, 1, 1, 1e-5), cut_mev=0).hits[0] == 1


def test_a_stored_zero_is_no_hit():
    showers = one_voxel(1, 1, 1)
    assert measure(showers.with_(deposit=showers.deposit * 0), cut_mev=0).hits[0] == 0


def test_empty_showers_give_numbers(toy):
    showers = toy(10, 3)
    seen = measure(showers.with_(deposit=showers.deposit * 0))
    for quantity in QUANTITIES.values():
        np.testing.assert_array_equal(quantity.of(seen), 0)


def test_scaling_the_energy_leaves_the_shape(toy, reference):
    showers = toy(800, 1)
    scaled = measure(showers.with_(deposit=showers.deposit * np.float32(2)), cut_mev=0)
    plain = measure(showers, cut_mev=0)
    np.testing.assert_allclose(scaled.response, 2 * plain.response, rtol=1e-6)
    for name in ("z_mean", "z_width", "r_mean", "r_width", "phi_cos", "phi_link", "hits"):
        of = QUANTITIES[name].of
        np.testing.assert_allclose(of(scaled), of(plain), rtol=1e-5, atol=1e-6)


def test_turning_the_shower_changes_no_smoothness_and_mirroring_no_dipole(toy, alter):
    showers = toy(100, 3)
    turned = measure(alter(showers, np.roll(showers.dense(), 3, axis=2)))
    mirrored, plain = measure(showers.mirrored()), measure(showers)
    np.testing.assert_allclose(turned.sector_link, plain.sector_link, rtol=1e-5)
    np.testing.assert_allclose(mirrored.phi_cos, plain.phi_cos, atol=1e-6)
    np.testing.assert_allclose(mirrored.phi_cos2, plain.phi_cos2, atol=1e-6)


@pytest.mark.parametrize("cut", [-1.0, float("nan"), float("inf")])
def test_senseless_cut_is_refused(cut):
    with pytest.raises(RequestError, match="cut"):
        measure(one_voxel(0, 0, 0), cut_mev=cut)


def test_nothing_to_measure_is_refused(toy):
    with pytest.raises(RequestError, match="at least one"):
        measure(toy(10, 3)[:0])


def test_progress_counts_every_shower(toy):
    done: list[int] = []
    measure(toy(100, 3), block=30, advance=done.append)
    assert done == [30, 30, 30, 10]
