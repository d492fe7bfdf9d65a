"""How a prior and its tokeniser are made to fit one more detector, together.

What turns showers into codes, encoder and codebook, is kept, with all that the decoder shares with
it: a code goes on meaning what it meant, and the codes of the new showers are known from the first
step on. The prior learns what is likely of them, and the part of the decoder that reads codes
learns what voxels they stand for. No weight belongs to both, so neither waits for the other; the
loss is the surprise of the whole shower, of energies, codes and voxels, in nats a place.

Two things are fitted in seconds, whatever the method: the law of energy and hits of whole showers
before all that (`caloforge.learn.models.totals`), and what rings hold after it
(`caloforge.learn.rings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from caloforge.errors import RequestError
from caloforge.learn.condition import Conditions
from caloforge.learn.models.family import Tuning
from caloforge.learn.models.totals import fit_totals
from caloforge.learn.noise import Noise
from caloforge.learn.rings import fit_rings

if TYPE_CHECKING:
    from caloforge.learn.checkpoint import Model
    from caloforge.learn.models.prior import Prior, PriorConfig

__all__ = ["tuning"]

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
    return Tuning(energies, HEADS, LEARNS, fit_totals, fit_rings)


def energies(network: Prior, given: Conditions, noise: Noise) -> Tensor:
    """Draw whitened energies (B, K) of showers, those of the layers among them."""
    return network.draw_codes(network.draw_energies(given, noise), given, noise)[1]
