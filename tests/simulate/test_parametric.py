"""Laws of the parametrised engine: closure, profiles, scaling, seeds, symmetry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import gammainc

from caloforge.detector.detector import Detector, Layer, Stack, load_detector
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.showers.showers import Showers, concatenate
from caloforge.simulate.parametric import (
    Calibration,
    calibrate,
    mean_profile,
    medium,
    parametric_showers,
    radial_profile,
)

RIGHT = np.pi / 2
SIW = load_detector("par04-siw")


def deep_crystal(n_z: int = 200) -> Detector:
    """Return PbWO4 60 radiation lengths deep, read out along its whole depth."""
    stack = Stack(
        inner_radius_mm=5000, layers=60, active=Layer(material="G4_PbWO4", thickness_mm=9.0)
    )
    mesh = Mesh(n_r=40, n_phi=8, n_z=n_z, cell_r_mm=10, cell_z_mm=540 / n_z)
    return Detector(name="deep", stack=stack, mesh=mesh)


def make(detector: Detector, energy: float, n: int, theta: float = RIGHT, **kw: Any) -> Showers:
    """Make n electron showers of one energy (MeV) and theta (rad), seeds 0 to n - 1."""
    return parametric_showers(detector, energy, theta, 0.3, 11, np.arange(n), **kw)


@pytest.mark.parametrize("energy", [2_000.0, 50_000.0])
def test_energy_closes_in_a_deep_homogeneous_calorimeter(energy: float) -> None:
    showers = make(deep_crystal(), energy, 30)
    total = showers.visible() + showers.leakage
    # Without sampling nothing fluctuates; only tails that leave the stack may be missing.
    assert (total <= energy * (1 + 1e-5)).all()
    np.testing.assert_allclose(total, energy, rtol=3e-3)


def test_energy_closes_in_a_deep_sampling_calorimeter_without_sampling_noise() -> None:
    assert SIW.stack is not None
    stack = SIW.stack.model_copy(update={"layers": 200, "inner_radius_mm": 1e4})
    deep = SIW.model_copy(update={"stack": stack})
    showers = make(deep, 10_000.0, 20, calibration=Calibration(0.5, 0.0))
    np.testing.assert_allclose(showers.visible() + showers.leakage, 5000.0, rtol=3e-3)


@pytest.mark.parametrize("theta", [RIGHT, 0.9])
def test_leakage_is_what_a_smaller_mesh_does_not_hold(theta: float) -> None:
    small = SIW.mesh.model_copy(update={"n_r": 4, "n_z": 15})
    whole = make(SIW, 5000.0, 20, theta)
    part = make(SIW.model_copy(update={"mesh": small}), 5000.0, 20, theta)
    np.testing.assert_allclose(
        part.visible() + part.leakage, whole.visible() + whole.leakage, rtol=1e-5
    )
    np.testing.assert_allclose(part.dense(), whole.dense()[:, :4, :, :15], rtol=1e-5)
    assert (part.leakage > whole.leakage).all()


def test_mean_longitudinal_profile_is_the_mean_of_gamma_distributions() -> None:
    detector, energy, n = deep_crystal(), 10_000.0, 800
    assert detector.stack is not None
    med = medium(detector.stack)
    layers = make(detector, energy, n).layer_energies().mean(axis=0) / energy
    depth = detector.mesh.edges_z / med.x0_mm
    t_max, alpha = mean_profile(med, energy)
    log_y = np.log(energy / med.critical_mev)
    draws = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0], [0, 1]], 4000)
    rho = 0.705 - 0.023 * log_y
    a, b = np.sqrt((1 + rho) / 2), np.sqrt((1 - rho) / 2)
    t = t_max * np.exp((a * draws[:, 0] + b * draws[:, 1]) / (-1.4 + 1.26 * log_y))
    shape = alpha * np.exp((a * draws[:, 0] - b * draws[:, 1]) / (-0.58 + 0.86 * log_y))
    cumulative = gammainc(shape[:, None], ((shape - 1) / t)[:, None] * depth).mean(axis=0)
    np.testing.assert_allclose(np.cumsum(layers), cumulative[1:], atol=0.012)


@pytest.mark.parametrize("name", ["pbwo4", "par04-siw", "par04-scipb"])
def test_decay_constant_is_about_one_half_per_radiation_length(name: str) -> None:
    # PDG 2024, chapter 34: b is about 0.5 per X0, nearly whatever the material and energy.
    stack = load_detector(name).stack
    assert stack is not None
    for energy in (1e3, 1e4, 1e5):
        t_max, alpha = mean_profile(medium(stack), energy)
        assert 0.45 < (alpha - 1) / t_max < 0.6


def test_maximum_moves_with_the_logarithm_of_the_energy() -> None:
    detector = deep_crystal()
    assert detector.stack is not None
    x0 = medium(detector.stack).x0_mm
    energies = np.array([2e3, 2e4, 2e5])
    peaks = []
    for energy in energies:
        layers = make(detector, energy, 300).layer_energies().mean(axis=0)
        peaks.append(detector.mesh.centres_z[np.argmax(layers)] / x0)
    slope = np.polyfit(np.log(energies), peaks, 1)[0]
    assert slope == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("name", ["par04-siw", "par04-scipb"])
def test_response_is_linear_and_resolution_falls_as_the_root(name: str) -> None:
    detector = load_detector(name)
    assert detector.stack is not None
    med = medium(detector.stack)
    for energy in (1e3, 1e4, 1e5):
        showers = make(detector, energy, 400)
        response = (showers.visible() + showers.leakage) / energy
        spread = med.resolution / np.sqrt(energy / 1000)
        assert response.mean() == pytest.approx(med.visible, rel=4 * spread / 20 + 0.004)
        assert response.std() / response.mean() == pytest.approx(spread, rel=0.2, abs=0.001)


def test_same_seeds_give_the_same_showers_in_any_batching() -> None:
    energy, seed = np.array([500.0, 9e3, 4e4, 2e3]), np.array([7, 2**63 + 5, 0, 7], np.uint64)
    theta, pdg = np.array([1.2, 1.5, 1.9, 1.2]), np.array([11, 22, -11, 22])

    def batch(rows: slice) -> Showers:
        phi = np.zeros(len(energy[rows]))
        return parametric_showers(SIW, energy[rows], theta[rows], phi, pdg[rows], seed[rows])

    whole = batch(slice(None))
    parts = concatenate([batch(slice(0, 1)), batch(slice(1, 3)), batch(slice(3, 4))])
    for name in ("energy", "theta", "pdg", "seed", "leakage", "offsets", "cell", "deposit"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_different_seeds_give_different_showers() -> None:
    showers = make(SIW, 5000.0, 2)
    assert showers.visible()[0] != showers.visible()[1]


@pytest.mark.parametrize("theta", [RIGHT, 1.0])
def test_mean_is_mirror_symmetric(theta: float) -> None:
    voxels = make(SIW, 20_000.0, 600, theta).dense().sum(axis=(1, 3), dtype=np.float64)
    difference = voxels - voxels[:, ::-1]
    error = difference.std(axis=0) / np.sqrt(len(voxels))
    assert (np.abs(difference.mean(axis=0)) < 5 * error).all()


def test_deposits_of_a_tilted_shower_lie_in_active_layers() -> None:
    # Cells so fine that their centre tells the layer; theta far from 90 degrees.
    stack = Stack(
        inner_radius_mm=300, layers=20, absorber=Layer(material="G4_Pb", thickness_mm=6),
        active=Layer(material="G4_POLYSTYRENE", thickness_mm=4),
    )  # fmt: skip
    mesh = Mesh(n_r=30, n_phi=64, n_z=2000, cell_r_mm=0.5, cell_z_mm=0.15)
    showers = make(Detector(name="coarse", stack=stack, mesh=mesh), 5000.0, 5, 0.8)
    i, j, k = np.unravel_index(showers.cell, mesh.shape)
    rho, phi, z = mesh.centres_r[i], mesh.centres_phi[j], mesh.centres_z[k]
    x, y = rho * np.cos(phi), rho * np.sin(phi)
    radius = np.hypot(300 + x * np.cos(0.8) + z * np.sin(0.8), y)
    phase = (radius - 300) % 10
    assert len(phase) > 500
    # Half a cell of rounding: 0.25 mm in r, 0.7 mm in the arc, 0.075 mm in z.
    assert ((phase > 6 - 0.9) | (phase < 0.9)).all()


def test_photons_start_deeper_by_nine_sevenths_of_a_radiation_length() -> None:
    detector = deep_crystal()
    assert detector.stack is not None
    x0, seeds = medium(detector.stack).x0_mm, np.arange(800)

    def depth(pdg: int) -> float:
        showers = parametric_showers(detector, 3000.0, RIGHT, 0.0, pdg, seeds)
        layers = showers.layer_energies()
        return float((layers @ detector.mesh.centres_z / layers.sum(axis=1)).mean() / x0)

    assert depth(22) - depth(11) == pytest.approx(9 / 7, abs=0.2)


def test_radial_profile_holds_its_bounds_and_widens_with_depth() -> None:
    assert SIW.stack is not None
    tau = np.linspace(0, 4, 50)
    core, tail, weight = radial_profile(medium(SIW.stack), 10_000.0, tau)
    assert (tail > core).all()
    assert ((weight >= 0) & (weight <= 1)).all()
    assert core[-1] > core[0]


def test_a_calibration_reproduces_what_it_measured() -> None:
    wanted = Calibration(sampling_fraction=0.0321, resolution=0.15)
    energy = np.geomspace(2e3, 5e4, 800)
    showers = parametric_showers(SIW, energy, RIGHT, 0.0, 11, np.arange(800), calibration=wanted)
    found = calibrate(showers)
    assert found.sampling_fraction == pytest.approx(0.0321, rel=0.01)
    assert found.resolution == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pdg": 211}, "211"),
        ({"energy": 0.0}, "energy"),
        ({"energy": np.nan}, "energy"),
        ({"theta": 0.01}, "theta"),
    ],
)
def test_impossible_primaries_are_refused(change: dict[str, float], complaint: str) -> None:
    primary: dict[str, Any] = {"energy": 1e3, "theta": RIGHT, "phi": 0.0, "pdg": 11, "seed": 1}
    with pytest.raises(RequestError, match=complaint):
        parametric_showers(SIW, **{**primary, **change})


def test_impossible_calibrations_are_refused() -> None:
    for kw in ({"sampling_fraction": 0.0}, {"sampling_fraction": 1.5}, {"resolution": -0.1}):
        with pytest.raises(RequestError, match="impossible"):
            Calibration(**kw)
    with pytest.raises(RequestError, match="two showers"):
        calibrate(make(SIW, 1000.0, 1))


def test_no_primaries_give_no_showers() -> None:
    assert len(make(SIW, 1000.0, 0)) == 0
