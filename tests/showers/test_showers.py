"""The container: dense and sparse say the same, choosing and joining lose nothing, nonsense is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.showers.showers import PER_SHOWER, Showers, concatenate

Toy = Callable[..., Showers]


@pytest.fixture
def showers(toy: Toy, small_detector: Detector) -> Showers:
    return toy(small_detector, 20)


def test_dense_and_back(showers: Showers) -> None:
    dense = showers.dense()
    again = Showers.from_dense(
        dense, mesh=showers.mesh, **{name: getattr(showers, name) for name in PER_SHOWER}
    )
    assert dense.shape == (20, *showers.mesh.shape)
    assert np.array_equal(again.dense(), dense)
    assert np.array_equal(again.offsets, showers.offsets)


def test_sums_close(showers: Showers) -> None:
    dense = showers.dense().astype(np.float64)
    assert np.allclose(showers.visible(), dense.sum((1, 2, 3)), rtol=1e-6)
    assert np.allclose(showers.layer_energies(), dense.sum((1, 2)), rtol=1e-6)
    assert np.allclose(showers.layer_energies().sum(1), showers.visible())


@pytest.mark.parametrize("chosen", [slice(3, 9), np.array([5, 1, 5]), np.arange(20) % 3 == 0])
def test_choosing_is_choosing_rows(showers: Showers, chosen: Any) -> None:
    part = showers[chosen]
    assert np.array_equal(part.dense(), showers.dense()[chosen])
    assert np.array_equal(part.seed, showers.seed[chosen])


def test_parts_join_to_the_whole(showers: Showers) -> None:
    whole = concatenate([showers[:7], showers[7:7], showers[7:]])
    for name in (*PER_SHOWER, "offsets", "cell", "deposit"):
        assert np.array_equal(getattr(whole, name), getattr(showers, name)), name


def test_the_mirror_flips_phi_and_nothing_else(showers: Showers) -> None:
    assert np.array_equal(showers.mirrored().dense(), showers.dense()[:, :, ::-1])
    assert np.array_equal(showers.mirrored().mirrored().dense(), showers.dense())


def test_the_cut_takes_away_what_is_below(showers: Showers) -> None:
    cut = showers.above(0.5)
    dense = showers.dense()
    assert np.array_equal(cut.dense(), np.where(dense >= 0.5, dense, 0))
    assert len(cut) == len(showers)


REFUSED = {
    "NaN": ({"deposit": lambda s: np.full(len(s.deposit), np.nan)}, "NaN"),
    "negative": ({"deposit": lambda s: -s.deposit}, "negative"),
    "energy": ({"energy": lambda s: -s.energy}, "above 0"),
    "cell": ({"cell": lambda s: np.full(len(s.cell), 120)}, "outside the mesh"),
    "offsets": ({"offsets": lambda s: s.offsets[::-1].copy()}, "do not belong together"),
    "lengths": ({"theta": lambda s: s.theta[:3]}, "'theta' has not one value"),
    "direction": ({"phi": lambda s: s.phi * np.inf}, "finite angles"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refuses(showers: Showers, wrong: str) -> None:
    changes, message = REFUSED[wrong]
    with pytest.raises(RequestError, match=message):
        showers.with_(**{name: make(showers) for name, make in changes.items()})


def test_refuses_voxels_of_another_mesh(showers: Showers) -> None:
    with pytest.raises(RequestError, match="do not fit a mesh"):
        Showers.from_dense(np.ones((2, 3, 4, 9)), mesh=showers.mesh, energy=1, theta=1, phi=0)


def test_small_cells_take_two_bytes(showers: Showers) -> None:
    assert showers.cell.dtype == np.uint16
    fine = showers.mesh.model_copy(update={"n_r": 2000})
    assert showers.with_(mesh=fine).cell.dtype == np.uint32
