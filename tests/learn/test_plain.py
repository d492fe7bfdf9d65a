"""Configurations in JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from caloforge.learn.models.plain import plain, tupled
from caloforge.learn.settings import VoxelSettings


@dataclass(frozen=True)
class Config:
    shape: tuple[int, int, int]
    width: int
    voxels: VoxelSettings


def test_json_gives_back_the_configuration() -> None:
    config = Config((3, 4, 5), 7, VoxelSettings(divide="largest"))
    values = tupled(json.loads(json.dumps(plain(config))))
    assert values["shape"] == (3, 4, 5) and values["voxels"]["divide"] == "largest"
    assert Config(**values | {"voxels": VoxelSettings(**values["voxels"])}) == config
