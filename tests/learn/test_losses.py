"""Losses of voxels: nothing is lost on the truth, and transport knows distances."""

from __future__ import annotations

import sys

import pytest
import torch

from caloforge.errors import RequestError
from caloforge.learn import losses
from caloforge.learn.losses import Loss, read, unit, voxel_loss

PITCH = torch.tensor([[0.5, 0.8]])
KINDS: tuple[Loss, ...] = ("bce", "mse", "mae", "sinkhorn")


def spot(z: int, r: int = 1, phi: int = 2, height: float = 0.8) -> torch.Tensor:
    x = torch.full((1, 3, 16, 20), 1e-4)
    x[0, r, phi, z] = height
    return x


def asked(loss: Loss, wanted: torch.Tensor) -> torch.Tensor:
    """The prediction that is right."""
    return wanted.logit() if unit(loss) else wanted


@pytest.mark.parametrize("loss", KINDS)
def test_the_truth_is_read_back_and_nothing_is_better(loss: Loss) -> None:
    wanted = spot(9)
    assert torch.allclose(read(loss, asked(loss, wanted)), wanted, atol=1e-6)
    pitch = PITCH.clone()
    best = voxel_loss(loss, asked(loss, wanted), wanted, pitch).sum()
    for other in (spot(12), spot(9, height=0.4), spot(9, phi=6)):
        assert voxel_loss(loss, asked(loss, other), wanted, pitch).sum() > best + 1e-3


def test_only_transport_knows_how_far_a_spot_was_moved() -> None:
    wanted = spot(2)
    for loss, grows in (("mse", False), ("mae", False), ("sinkhorn", True)):
        near, far = (
            float(voxel_loss(loss, asked(loss, spot(z)), wanted, PITCH).sum())  # type: ignore[arg-type]
            for z in (7, 17)
        )
        assert (far > 2 * near) is grows, loss
        assert grows or abs(far - near) < 1e-5


def test_transport_goes_around_in_phi() -> None:
    wanted = spot(2, r=2, phi=0)
    beside, across = (
        float(voxel_loss("sinkhorn", spot(2, r=2, phi=p).logit(), wanted, PITCH).sum())
        for p in (15, 8)
    )
    assert beside < across


@pytest.mark.parametrize("loss", KINDS)
def test_gradients_are_finite_where_little_is(loss: Loss) -> None:
    predicted = asked(loss, spot(5, height=1e-4)).requires_grad_()
    voxel_loss(loss, predicted, torch.zeros(1, 3, 16, 20), PITCH).sum().backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None and bool(predicted.grad.isfinite().all())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geomloss", None)
    losses._sinkhorn.cache_clear()
    with pytest.raises(RequestError, match=r"caloforge\[models\]"):
        voxel_loss("sinkhorn", spot(2), spot(2), PITCH)
