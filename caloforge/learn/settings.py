"""What a recipe says of one kind of model alone: one table of the TOML file for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["TABLES", "GraphSettings", "MaskedViTSettings", "VoxelSettings"]

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
        "voxels": VoxelSettings,
        "vit": MaskedViTSettings,
        "graph": GraphSettings,
    }
)
