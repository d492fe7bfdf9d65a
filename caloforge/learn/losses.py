r"""How far predicted voxels are from those of a shower, in the ways that the field has tried.

``bce``: cross-entropy of voxels in [0, 1] read as probabilities, as in Geant4's Par04 VAE; ``mse``,
``mae``: squared and absolute error; ``sinkhorn``: optimal transport of the energy between coarse
cells at their physical distances (Sinkhorn divergence, Feydy et al., arXiv:1810.08278, by the
library geomloss), with the amount of energy as a term of its own, since transport compares shapes,
and the squared error of the voxels, which says where in a coarse cell they lie. What is predicted
for ``bce`` and ``sinkhorn`` is a logit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.tokens import Patches

__all__ = ["Loss", "read", "unit", "voxel_loss"]

Loss = Literal["bce", "mse", "mae", "sinkhorn"]
COARSE = (3, 4, 5)  # Largest coarse cell of the transport, in cells (r, phi, z).
BLUR = 0.5  # Of the transport, in Moliere radii or radiation lengths.


def unit(loss: Loss) -> bool:
    """Whether a loss needs voxels in [0, 1], and logits as prediction."""
    return loss in ("bce", "sinkhorn")


def read(loss: Loss, predicted: Tensor) -> Tensor:
    """Return what a prediction (...) for this loss says of the scaled voxels (...)."""
    return predicted.sigmoid() if unit(loss) else predicted


def voxel_loss(loss: Loss, predicted: Tensor, wanted: Tensor, pitch: Tensor) -> Tensor:
    """Loss of every voxel (B, R, PHI, Z), or (B, 1, 1, 1) for whole showers (``sinkhorn``).

    predicted, wanted: scaled voxels (B, R, PHI, Z), `predicted` as `read` takes it; pitch (B, 2):
    size of a cell in Moliere radii and radiation lengths.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none")
    if loss == "mae":
        return (predicted - wanted).abs()
    if loss == "mse":
        return (predicted - wanted).square()
    return _transport(predicted.sigmoid(), wanted, pitch)[:, None, None, None]


def _transport(predicted: Tensor, wanted: Tensor, pitch: Tensor) -> Tensor:
    """Sinkhorn divergence of shapes, squared error of amounts and of voxels, summed (B,)."""
    cells = Patches.dividing((wanted.shape[1], wanted.shape[2], wanted.shape[3]), COARSE)
    places = _places(cells, pitch)  # (B, S, 3)
    mine, theirs = (cells.cut(x).sum(-1).clamp(min=1e-9) for x in (predicted, wanted))  # (B, S)
    amounts = [x.sum(1, keepdim=True) for x in (mine, theirs)]
    moved: Tensor = _sinkhorn()(mine / amounts[0], places, theirs / amounts[1], places)
    amount = (amounts[0] / amounts[1]).log().square()[:, 0]
    return moved + amount + (predicted - wanted).square().sum((1, 2, 3)) / amounts[1][:, 0]


def _places(cells: Patches, pitch: Tensor) -> Tensor:
    """Centres (B, S, 3) of coarse cells: across in Moliere radii, along in radiation lengths."""
    g_r, g_phi, g_z = cells.grid
    kind: dict[str, Any] = dict(device=pitch.device, dtype=pitch.dtype)
    r = (torch.arange(g_r, **kind) + 0.5) * cells.size[0]
    phi = (torch.arange(g_phi, **kind) + 0.5) * (2 * torch.pi / g_phi)
    z = (torch.arange(g_z, **kind) + 0.5) * cells.size[2]
    r, phi, z = (x.flatten() for x in torch.meshgrid(r, phi, z, indexing="ij"))
    across = torch.stack([r * phi.cos(), r * phi.sin()], dim=-1) * pitch[:, None, :1]
    return torch.cat([across, (z * pitch[:, 1:])[..., None]], dim=-1)


@cache
def _sinkhorn() -> Any:
    try:
        from geomloss import SamplesLoss
    except ModuleNotFoundError:
        raise RequestError(
            "the loss 'sinkhorn' needs geomloss: pip install 'caloforge[models]'"
        ) from None
    return SamplesLoss("sinkhorn", p=2, blur=BLUR, backend="tensorized")
