"""What a recipe says of one kind of model alone: one table of the TOML file for each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "TABLES", "BroadcastSettings", "GraphSettings", "MaskedViTSettings", "PriorSettings",
    "VaeSettings", "VoxelSettings", "VqvaeSettings",
]  # fmt: skip

Share = Annotated[float, Field(ge=0, le=1)]


class VoxelSettings(BaseModel):
    """``[voxels]``: how the voxels of all kinds but diffusion are scaled.

    divide: by the incident energy in MeV or in GeV, by the largest voxel or by the 99th percentile
    of the filled voxels of the shower; transform: none, logarithm, power or logit; power: the
    exponent. See `caloforge.learn.voxelscale`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divide: Literal["incident_mev", "incident_gev", "largest", "percentile"] = "incident_mev"
    transform: Literal["none", "log", "power", "logit"] = "log"
    power: float = Field(default=0.25, gt=0, lt=1)


class MaskedViTSettings(BaseModel):
    """``[vit]``: the pretext task of a masked transformer.

    task: find masked patches, remove noise, tell replaced patches, or put shuffled patches in
    order; share: smallest and largest share of the patches that are hidden, or changed; fill: what
    stands in their place; loss: of the voxels; visible: the encoder sees the visible patches only;
    positions: of the patches; energy: weight of the regression of the incident energy as a second
    task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["mask", "denoise", "replaced", "jigsaw"] = "mask"
    share: tuple[Share, Share] = (0.1, 0.9)
    fill: Literal["zeros", "noise", "mean"] = "zeros"
    loss: Literal["mse", "mae", "bce", "sinkhorn"] = "mse"
    visible: bool = False
    positions: Literal["learned", "fixed", "rolled"] = "rolled"
    energy: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> MaskedViTSettings:
        if self.share[0] > self.share[1]:
            raise ValueError("the smallest share is above the largest")
        if self.visible and self.task != "mask":
            raise ValueError("only hidden patches can be left out of the encoder")
        return self


class VaeSettings(BaseModel):
    """``[vae]``: a variational autoencoder of dense layers.

    latent: length of the latent vector, that of the size by default; loss: of the voxels; kl:
    weight of the divergence from the standard normal; kl_warmup: share of the run in which it
    grows; conditions: features of the primary and the detector, or the four numbers of Par04.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent: int | None = Field(default=None, ge=1)
    loss: Literal["bce", "mse", "mae", "sinkhorn"] = "bce"
    kl: float = Field(default=1.0, ge=0)
    kl_warmup: Share = 0.2
    conditions: Literal["physics", "par04"] = "physics"


class BroadcastSettings(BaseModel):
    """``[broadcast]``: an autoencoder with a transformer and a spatial-broadcast decoder.

    latent, loss, kl, kl_warmup: see `VaeSettings`; encoder, decoder: either may be of dense layers;
    energy: weight of the regression of the incident energy from the latent vector, which the
    encoder then is not told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Literal["dense", "transformer"] = "transformer"
    decoder: Literal["dense", "broadcast"] = "broadcast"
    latent: int | None = Field(default=None, ge=1)
    loss: Literal["bce", "mse", "mae", "sinkhorn"] = "bce"
    kl: float = Field(default=1.0, ge=0)
    kl_warmup: Share = 0.2
    energy: float = Field(default=0.0, ge=0)


class VqvaeSettings(BaseModel):
    """``[vqvae]``: the tokeniser.

    tokens: codes a shower, from the entrance outward; codes: size of the codebook; layers: energy
    and hits of every layer are quantities beside the codes, of which each layer has one;
    width_code: numbers of a code's vector; quantiser: ``ema``, a codebook of running means, or
    ``fsq``, rounded components; levels: of those components, one code each combination; loss: of
    the voxels: ``beliefs`` (filled or not, and how far, by likelihood) or a distance to one guess;
    mixture: Gaussians of a filled voxel, with beliefs; near: channels by which a voxel sees those
    beside it, which are then drawn in parts (`caloforge.learn.models.patchwork`), 0 for none;
    commitment: weight of the encoder's distance to its codes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(default=64, ge=1)
    codes: int = Field(default=512, ge=2)
    layers: bool = False
    width_code: int = Field(default=16, ge=1)
    quantiser: Literal["ema", "fsq"] = "ema"
    levels: tuple[Annotated[int, Field(ge=3)], ...] = (8, 8, 8)
    loss: Literal["beliefs", "bce", "mse", "mae", "sinkhorn"] = "beliefs"
    mixture: int = Field(default=2, ge=1, le=16)
    near: int = Field(default=0, ge=0, le=64)
    commitment: float = Field(default=0.25, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> VqvaeSettings:
        if self.layers and "tokens" in self.model_fields_set:
            raise ValueError("with layers there is one code a layer; leave tokens out")
        if (self.layers or self.near) and self.loss != "beliefs":
            raise ValueError(f"layers and near are for loss = 'beliefs', not '{self.loss}'")
        if self.quantiser == "fsq" and math.prod(self.levels) != self.codes:
            raise ValueError(
                f"levels {self.levels} make {math.prod(self.levels)} codes, not {self.codes}"
            )
        return self


class PriorSettings(BaseModel):
    """``[prior]``: the autoregressive law of a tokeniser's codes.

    tokeniser: checkpoint folder of a trained model of kind ``vqvae``; mixture: Gaussians of an
    energy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokeniser: str
    mixture: int = Field(default=4, ge=1)


class GraphSettings(BaseModel):
    """``[graph]``: of a graph network.

    neighbours: of each hit; most: hits of a shower, beyond which the least likely are left out;
    draws: how often everything is drawn, each time seeing the draft before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(default=8, ge=1, le=64)
    most: int = Field(default=4096, ge=1)
    draws: int = Field(default=2, ge=1, le=16)


# The kinds of models that a table is for; each kind reads the table of its name.
TABLES: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "voxels": VoxelSettings, "vit": MaskedViTSettings, "vae": VaeSettings,
        "broadcast": BroadcastSettings, "vqvae": VqvaeSettings, "prior": PriorSettings,
        "graph": GraphSettings,
    }
)  # fmt: skip
