"""Decoders as Par04 loads them in ONNX: one input, the same noise the same shower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from caloforge.deploy.decoder import export_model
from caloforge.deploy.par04 import VaeInput
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import load_model
from caloforge.learn.noise import Noise
from caloforge.learn.recipe import recipe_of
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers
from caloforge.simulate.beam import Primaries

SEEDS = np.array([5, 6], np.uint64)


def trained(files: list[Path], out: Path, **more: Any) -> Path:
    values = dict(data=[str(f) for f in files], steps=20, batch=32, scale_steps=10,
                  learning_rate=5e-3, warmup=5)  # fmt: skip
    train(recipe_of(values | more, [], "r"), out)
    return out


@pytest.fixture(scope="module")
def run(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(toy_files, tmp_path_factory.mktemp("run") / "vae", model="vae")


def first(files: list[Path]) -> Detector:
    detector = read_showers(files[0]).detector
    assert detector is not None
    return detector


@pytest.mark.parametrize(
    "more",
    [
        dict(model="vae"),
        dict(model="vae", vae={"conditions": "par04", "kl": 1e-5}, voxels={"transform": "none"}),
        dict(model="vae", voxels={"divide": "largest"}),
        dict(model="broadcast"),
    ],
    ids=["physics", "par04", "largest", "broadcast"],
)
def test_the_file_gives_what_is_generated(
    toy_files: list[Path], tmp_path: Path, more: dict[str, Any]
) -> None:
    """The noise of two showers, handed over as Par04 hands it, gives these showers."""
    model, path, detector = (
        trained(toy_files, tmp_path / "run", **more),
        tmp_path / "x.onnx",
        first(toy_files),
    )
    found = export_model(model, path, detector=detector, target="par04")
    assert found["agreement"] < 1e-4 and "VAE" in Path(found["macro"]).read_text("utf-8")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert entry.type == "tensor(float)" and entry.shape[1] == found["latent"] + 4
    energy, theta = np.array([8e3, 4e4], np.float32), np.array([1.2, 1.9], np.float32)
    latent = Noise(SEEDS, torch.device("cpu")).rows(found["latent"]).tolist()
    out = np.concatenate(
        [
            session.run(
                None, {entry.name: np.array([VaeInput(tuple(z), e, t).vector()], np.float32)}
            )[0]
            for z, e, t in zip(latent, energy.tolist(), theta.tolist(), strict=True)
        ]
    )
    made = out.reshape(2, *detector.mesh.shape) * energy[:, None, None, None]
    primaries = Primaries(energy, theta, np.zeros(2, np.float32), np.full(2, 11, np.int32), SEEDS)
    (wanted,) = Generator(load_model(model), "m").stream(detector, primaries)
    assert np.allclose(made, wanted.dense(), rtol=1e-3, atol=1e-3) and made.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "torchscript"}, "written as onnx or lwtnn, not 'torchscript'"),
        ({"format": "csv"}, "not 'csv'"),
        ({"target": "plain"}, "add --target par04"),
        ({"target": "ddml"}, "for Par04 only"),
        ({"steps": 2}, "leave out --steps"),
        ({"detector": "par04-siw"}, "mesh"),
        ({"out": Path("/nowhere/at/all/x.onnx")}, "no folder"),
    ],
)
def test_wrong_requests_leave_nothing(
    run: Path, toy_files: list[Path], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    asked: dict[str, Any] = dict(
        model=run, out=tmp_path / "x.onnx", detector=first(toy_files), target="par04"
    )
    with pytest.raises(RequestError, match=words):
        export_model(**(asked | change))
    assert not list(tmp_path.iterdir())
