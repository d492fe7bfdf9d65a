"""The gate without Geant4: who is taken and why not, and that showers land in their cells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from caloforge.deploy.gate import Gate, Particle
from caloforge.detector.detector import Detector, load_detector
from caloforge.learn.reach import outside
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import Primaries, event_seeds


class Hot:
    """A maker that fills chosen cells with numbers of its seeds, and remembers what it was asked."""

    def __init__(self, cells: list[int]) -> None:
        self.cells, self.asked = np.array(cells), []
        self.valid = SimpleNamespace(energy_mev=(1e3, 1e5), theta=(0.87, 2.27), pdg=(11, -11, 22))
        self.info: dict[str, object] = {}

    def check(self, detector: Detector, extrapolate: bool) -> None: ...

    def make(self, detector: Detector, primaries: Primaries) -> Showers:
        self.asked.append(primaries)
        assert not any(mask.any() for mask in outside(self.valid, primaries).values())
        n, k = len(primaries), len(self.cells)
        rng = np.random.default_rng(primaries.seed % 1000)
        return Showers(
            **{f: getattr(primaries, f) for f in ("energy", "theta", "phi", "pdg", "seed")},
            leakage=np.zeros(n), offsets=np.arange(n + 1) * k, cell=np.tile(self.cells, n),
            deposit=rng.uniform(0.1, 50, n * k), mesh=detector.mesh, detector=detector,
        )  # fmt: skip


def gate(detector: Detector, cells: list[int], above: float = 0.0) -> Gate:
    made = Gate(detector, Hot(cells), above)
    radius = detector.described_stack().inner_radius_mm
    made._geometry = SimpleNamespace(
        entrance=lambda theta, phi: axis(theta, phi) * radius / np.sin(theta)
    )
    return made


def axis(theta: float, phi: float) -> np.ndarray:
    return np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def arriving(
    detector: Detector, theta: float = 1.3, phi: float = 0.7, energy: float = 2e4, pdg: int = 11,
    **more: object,
) -> Particle:  # fmt: skip
    radius = detector.described_stack().inner_radius_mm
    direction = axis(theta, phi)
    values = dict(position=direction * radius / np.sin(theta), direction=direction) | more
    return Particle(pdg=pdg, energy=energy, **values)


def primary(theta: float = 1.3, phi: float = 0.7, seed: int = 5) -> Primaries:
    return Primaries(
        *(np.array([x], np.float32) for x in (2e4, theta, phi)), np.array([11], np.int32),
        np.array([seed], np.uint64),
    )  # fmt: skip


def in_event_mesh(detector: Detector, points, deposits, theta: float, phi: float):
    """As the full simulation makes an event of its steps."""
    radius = detector.described_stack().inner_radius_mm
    flat = detector.mesh.cells_of(points - axis(theta, phi) * radius / np.sin(theta), theta, phi)
    return flat, deposits


@pytest.mark.parametrize("theta", [0.9, np.pi / 2, 2.2])
def test_the_cells_of_a_single_particle_come_back_exactly(siw: Detector, theta: float) -> None:
    cells = [0, 44, 1175, 3333, siw.mesh.n_cells - 1]
    ours = gate(siw, cells)
    assert ours.enter(arriving(siw, theta))
    given = primary(theta)
    points, deposits = ours.flush(given)
    # The event's frame is that of the primary, whose angles are kept as float32.
    flat, _ = in_event_mesh(siw, points, deposits, float(given.theta[0]), float(given.phi[0]))
    assert flat.tolist() == cells
    rng = np.random.default_rng(event_seeds(5, 0, 1) % 1000)
    assert np.array_equal(deposits, rng.uniform(0.1, 50, len(cells)).astype(np.float32))
    books = ours.books.take()
    assert books["outside_mev"][0] == 0 and books["placed_mev"][0] == pytest.approx(deposits.sum())


def test_a_shower_is_placed_where_its_particle_entered(siw: Detector) -> None:
    """Wherever along the axis a particle comes from, its shower moves with it."""
    points = []
    for along in (0.0, 250.0):
        ours = gate(siw, [1175, 3333])
        here = arriving(siw)
        assert ours.enter(arriving(siw, position=here.position + np.array([0, 0, along])))
        points.append(ours.flush(primary())[0])
    assert np.allclose(points[1] - points[0], [0, 0, 250.0])


def test_two_particles_are_one_batch_with_a_seed_and_a_mesh_each(siw: Detector) -> None:
    ours = gate(siw, [44, 1175])
    first = arriving(siw, 1.30, pdg=22, track=2)
    second = arriving(siw, 1.31, 0.75, pdg=22, track=3, energy=3e3)
    assert ours.enter(first) and ours.enter(second)
    points, deposits = ours.flush(primary())
    (asked,) = ours.maker.asked
    assert asked.seed.tolist() == event_seeds(5, 0, 2).tolist() and len(set(asked.seed)) == 2
    for i, particle in enumerate((first, second)):
        chosen = slice(2 * i, 2 * i + 2)
        flat, _ = in_event_mesh(siw, points[chosen], deposits[chosen], particle.theta, particle.phi)
        assert flat.tolist() == [44, 1175]
    assert (ours.books.take()["taken"], ours.flush(primary())[0].shape) == ([2], (0, 3))


FATES = {
    "taken": {},
    "species": dict(pdg=13),
    "energy": dict(energy=300.0),
    "theta": dict(theta=0.5),
    "returned": dict(born_inside=True),
}


@pytest.mark.parametrize("fate", FATES)
def test_every_fate(siw: Detector, fate: str) -> None:
    ours = gate(siw, [44])
    assert ours.enter(arriving(siw, **FATES[fate])) == (fate == "taken")
    assert (len(ours.flush(primary())[0]) > 0) == (fate == "taken")
    books = ours.books.take()
    assert books[fate] == [1] and books["entered"] == [1]


@pytest.mark.parametrize("shift", [[0, 0, 0], [60.0, -40.0, 0], [-1600.0, 0, 0]])
def test_only_the_front_seen_from_the_axis_is_an_entrance(siw: Detector, shift) -> None:
    """A line that misses the axis, and one through the inner surface from outside, are not."""
    here = arriving(siw, np.pi / 2, 0.0)
    position = here.position + shift
    position[:2] *= 800 / np.hypot(*position[:2])
    moved = arriving(siw, np.pi / 2, 0.0, position=position)
    assert gate(siw, [44]).fate(moved) == ("taken" if shift == [0, 0, 0] else "entrance")


def test_who_comes_back_is_counted_once_as_entering_anew(siw: Detector) -> None:
    ours = gate(siw, [44])
    assert not ours.enter(arriving(siw, energy=300.0))
    assert not ours.enter(arriving(siw, energy=200.0))
    ours.leave(arriving(siw, energy=100.0))
    ours.leave(arriving(siw, energy=50.0, track=7))
    ours.flush(primary())
    books = ours.books.take()
    assert (books["energy_mev"], books["returned_mev"], books["missed_mev"]) == ([300], [200], [50])
    assert ours.enter(arriving(siw)), "the next event starts anew"


def test_a_higher_threshold_leaves_more_to_geant4(siw: Detector) -> None:
    ours = gate(siw, [44], above=1e4)
    assert [ours.fate(arriving(siw, energy=e)) for e in (5e3, 2e4)] == ["energy", "taken"]
    assert gate(siw, [44], above=10.0).fate(arriving(siw, energy=300.0)) == "energy"


def test_deposits_outside_the_events_mesh_are_counted() -> None:
    siw = load_detector("par04-siw")
    ours = gate(siw, [44, 1175])
    assert ours.enter(arriving(siw, 1.3, 0.7 + 0.5, track=2))  # 400 mm beside the primary's line
    deposits = ours.flush(primary())[1]
    assert ours.books.take()["outside_mev"][0] == pytest.approx(deposits.sum())
