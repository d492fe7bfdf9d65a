"""A network on another mesh: the trunk is the same, and equal fields are read alike."""

from __future__ import annotations

import math

import pytest
import torch

from caloforge.detector.detector import Detector, parse_detector
from caloforge.learn.checkpoint import Model
from caloforge.learn.models.diffusion import DiffusionTransformer, config_of
from caloforge.learn.preprocess import ShowerScale, quantities
from caloforge.learn.remesh import RESHAPED, overlap, remeshed, reshaped_config
from tests.conftest import SMALL, toy_showers
from tests.learn.test_calibration import prepared


def on(n_r: int, n_phi: int, n_z: int) -> Detector:
    text = SMALL.format(name="fine", lead=2.5)
    return parse_detector(
        text.replace("n_r = 3", f"n_r = {n_r}").replace("n_phi = 4", f"n_phi = {n_phi}")
        .replace("n_z = 10", f"n_z = {n_z}").replace("cell_r_mm = 12", f"cell_r_mm = {36 / n_r}")
    )  # fmt: skip


@pytest.mark.parametrize(("new", "old"), [(6, 3), (3, 6), (5, 4), (4, 4), (1, 7)])
def test_overlaps_share_every_old_cell_out(new: int, old: int) -> None:
    share = overlap(new, old)
    torch.testing.assert_close(share.sum(1), torch.ones(old))
    torch.testing.assert_close(share.sum(0), torch.full((new,), old / new))


def test_the_same_mesh_is_the_same_network(tiny_model: Model, small_detector: Detector) -> None:
    network, scale = remeshed(
        tiny_model, *prepared(toy_showers(small_detector, 30), small_detector)
    )
    assert network.config == tiny_model.network.config
    state, before = network.state_dict(), tiny_model.network.state_dict()
    for name, value in before.items():
        if name != "head_voxels.bias":  # what is believed at first is fitted to the new showers
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    for name, value in tiny_model.scale.state_dict().items():
        assert torch.equal(scale.state_dict()[name], value)


@pytest.mark.parametrize("mesh", [(6, 8, 10), (6, 10, 10), (2, 4, 15), (3, 4, 7)])
def test_the_trunk_is_kept(tiny_model: Model, mesh: tuple[int, int, int]) -> None:
    detector = on(*mesh)
    network, scale = remeshed(tiny_model, *prepared(toy_showers(detector, 30), detector))
    state = network.state_dict()
    assert network.config.shape == mesh == scale.sketch.shape
    for name, value in tiny_model.network.state_dict().items():
        if not name.startswith(RESHAPED):
            assert torch.equal(state[name], value), name


def test_a_field_constant_within_old_cells_is_read_as_before(tiny_model: Model) -> None:
    detector = on(6, 8, 10)
    network, _ = remeshed(tiny_model, *prepared(toy_showers(detector, 30), detector))
    old = tiny_model.network
    field = torch.randn(5, *old.config.shape)
    fine = field.repeat_interleave(2, 1).repeat_interleave(2, 2)
    tokens = old.embed_voxels(old.patches.cut(field))
    assert network.patches.tokens == old.patches.tokens
    torch.testing.assert_close(network.embed_voxels(network.patches.cut(fine)), tokens)
    heads, wanted = network.head_voxels.weight, old.head_voxels.weight
    assert len(heads) == 4 * len(wanted)
    torch.testing.assert_close(heads.sum(0), 4 * wanted.sum(0))


def test_the_fine_mesh_of_the_field_has_as_many_tokens() -> None:
    config = config_of("small", (9, 16, 45))
    fine = reshaped_config(config, (18, 50, 45))
    assert fine.patch == (18, 50, 1) and fine.sketch == (6, 5, 5)
    base = reshaped_config(config_of("base", (9, 16, 45)), (18, 50, 45))
    assert all(n % p == 0 for n, p in zip(base.shape, base.patch, strict=True))
    assert math.prod(base.shape[k] // base.patch[k] for k in range(3)) <= 1.5 * 180


def test_directions_of_energies_are_fitted_to_the_new_mesh(tiny_model: Model) -> None:
    """A model that is drawn from beliefs: more layers, more energies, and still independent."""
    torch.manual_seed(0)
    network = DiffusionTransformer(config_of("micro", (3, 4, 10), process="beliefs"))
    old = Model(network, ShowerScale(network.sketch, True), tiny_model.valid, {})
    detector = on(3, 4, 15)
    new, scale = remeshed(old, *prepared(toy_showers(detector, 60), detector))
    count = quantities(new.sketch, True)
    assert new.whiten.shape == (count, count) == new.colour.shape and scale.counted
    assert torch.allclose(new.whiten @ new.colour, torch.eye(count), atol=1e-3)
    assert len(new.head_spread.bias) == count
