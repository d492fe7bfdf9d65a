"""How a prior and its tokeniser are made to fit one more detector, together.

What turns showers into codes, encoder and codebook, is kept, with all that the decoder shares with
it: a code goes on meaning what it meant, and the codes of the new showers are known from the first
step on. The prior learns what is likely of them, and the part of the decoder that reads codes
learns what voxels they stand for. No weight belongs to both, so neither waits for the other; the
loss is the surprise of the whole shower, of energies, codes and voxels, in nats a place.

Fitted in seconds, whatever the method: the law of energy and hits of whole showers before all that
(`caloforge.learn.models.totals`), and after it what rings hold and then what cells hold
(`caloforge.learn.rings`, `caloforge.learn.cells`): a gain would blur an edge in the spectrum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.calibration import Draw, drawn, spread_out
from caloforge.learn.cells import cell_moves
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Tuning
from caloforge.learn.models.totals import fit_totals
from caloforge.learn.noise import Noise
from caloforge.learn.rings import ring_gains

if TYPE_CHECKING:
    from caloforge.learn.checkpoint import Model
    from caloforge.learn.models.prior import Prior, PriorConfig
    from caloforge.learn.preprocess import ShowerScale

__all__ = ["fit_details", "tuning"]

HEADS = ("profile.head.", "head.", "head_vector.", "tokeniser.head.", "tokeniser.patchwork.")
LEARNS = (
    *HEADS, "condition.", "profile.", "embed_", "depths.", "blocks.", "modulation.",
    "tokeniser.from_code.", "tokeniser.decoder.",
)  # fmt: skip


def tuning(model: Model, name: str, shape: tuple[int, int, int]) -> Tuning:
    """Return how a prior, opened as `name`, is adapted to a mesh of `shape` cells.

    Raises `RequestError` for a prior without layers, and for another mesh than its own.
    """
    config: PriorConfig = model.network.config
    if not config.tokeniser.layers:
        raise RequestError(
            f"'{name}' draws no energies of layers, which are what is corrected; take a prior "
            "whose tokeniser was trained with vqvae.layers = true"
        )
    if shape != config.shape:
        raise RequestError(
            f"'{name}' knows a mesh of {config.shape} cells, the showers have {shape}; simulate "
            "them on that mesh, or adapt a diffusion model"
        )
    return Tuning(energies, HEADS, LEARNS, fit_totals, fit_details)


def energies(network: Prior, given: Conditions, noise: Noise) -> Tensor:
    """Draw whitened energies (B, K) of showers, those of the layers among them."""
    return network.draw_codes(network.draw_energies(given, noise), given, noise)[1]


@torch.no_grad()
def fit_details(
    scale: ShowerScale, draw: Draw, voxels: Tensor, given: Conditions, most: int
) -> None:
    """Fit what rings and cells hold to voxels (N, R, PHI, Z) in MeV, all of one detector.

    `draw` makes voxels (B, R, PHI, Z) in MeV from conditions and noise, by way of `scale`; it is
    asked for so many showers at `most`.
    """
    rings, cells = (
        part.renewed(given.features[0], scale.energies.unit) for part in (scale.rings, scale.cells)
    )
    rows, voxels = spread_out(len(voxels), most), voxels.to(given.energy.device)
    given = given.at(rows)
    made = drawn(draw, given)
    scale.rings.values[rings] = ring_gains(made, voxels)
    made = scale.corrected(made, made.sum(dim=(1, 2)), given)
    scale.cells.values[cells] = cell_moves(made, voxels[rows])
