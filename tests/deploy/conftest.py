"""A small model and a toy export that the tests of the event loop share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caloforge.detector.detector import Detector
from caloforge.learn.checkpoint import Model, save_model

Export = Callable[..., Path]


@pytest.fixture(scope="session")
def model(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a checkpoint folder, told that it knows photons and positrons too."""
    path = tmp_path_factory.mktemp("deployed") / "tiny"
    save_model(
        replace(tiny_model, valid=replace(tiny_model.valid, pdg=(-11, 11, 22),
                                          energy_mev=(1e3, 1e5), theta=(0.9, 2.2))), path
    )  # fmt: skip
    return path


def toy_export(detector: Detector, path: Path) -> None:
    """Export a toy: a gamma-like profile in depth, an exponential in r, times exp(noise)."""
    import torch

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mesh = detector.mesh
            self.shape = mesh.shape
            r, z = (torch.tensor(c / c[-1]).float() for c in (mesh.centres_r, mesh.centres_z))
            self.register_buffer("lateral", torch.exp(-3 * r)[:, None, None])
            self.register_buffer("z", z)

        def forward(self, conditions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            depth = 2 + 0.5 * torch.log(conditions[:, :1] / 1e3)
            long = torch.exp(depth * torch.log(self.z) - 4 * self.z)[:, None, None, :]
            mean = (self.lateral * long).expand(-1, *self.shape)
            scale = 0.03 * conditions[:, 0] / mean.sum((1, 2, 3))
            drawn = mean * torch.exp(0.3 * noise).reshape(-1, *self.shape)
            drawn = drawn * scale[:, None, None, None]
            return torch.where(drawn > 0.01, drawn, torch.zeros_like(drawn))

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Toy().eval(), (torch.tensor([[1e4, 1.5, 0.0, 11.0]] * 2),
                           torch.randn(2, detector.mesh.n_cells)),
            dynamo=True, opset_version=18, external_data=False, verbose=False,
            input_names=["conditions", "noise"], output_names=["showers"],
            dynamic_shapes={"conditions": {0: batch}, "noise": {0: batch}},
        )  # fmt: skip
    proto = program.model_proto
    proto.ir_version = 8
    mesh = detector.mesh
    told = dict(
        caloforge="0.1.0", target="plain", detector=detector.to_toml(), n_r=mesh.n_r,
        n_phi=mesh.n_phi, n_z=mesh.n_z, cell_r_mm=mesh.cell_r_mm, cell_z_mm=mesh.cell_z_mm,
        noise=mesh.n_cells, energy_min_mev=1e3, energy_max_mev=1e5, theta_min=0.87, theta_max=2.27,
        pdg="11,-11,22", units="MeV mm rad",
    )  # fmt: skip
    write_proto(proto, path, told)


def write_proto(proto: Any, path: Path, told: dict[str, Any]) -> None:
    """Write an ONNX model with metadata."""
    import onnx

    del proto.metadata_props[:]
    for key, value in told.items():
        proto.metadata_props.add(key=key, value=str(value))
    onnx.save(proto, path)


@pytest.fixture(scope="session")
def exported(small_detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "toy.onnx"
    toy_export(small_detector, path)
    return path


@pytest.fixture(scope="session")
def student(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the smallest size that is drawn from beliefs, after a few steps on toy files."""
    from caloforge.learn.recipe import Recipe
    from caloforge.learn.train import train

    recipe = Recipe(
        size="micro", data=[str(p) for p in toy_files], process="beliefs", calls=2, steps=40,
        batch=32, warmup=5, scale_steps=200,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("student") / "run"
    train(recipe, out)
    return out
