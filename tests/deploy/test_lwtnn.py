"""The JSON file for LWTNN, read by LWTNN's rules alone, does what the decoder does in torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.cli import main
from caloforge.deploy.decoder import Decoder, export_model
from caloforge.deploy.par04 import VaeInput
from caloforge.detector.detector import Detector, parse_detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import load_model
from caloforge.learn.preprocess import CUT_MEV
from caloforge.learn.recipe import recipe_of
from caloforge.learn.train import train
from caloforge.showers.formats import read_showers

Array = np.ndarray[Any, Any]


def evaluated(path: Path, nodes: dict[str, dict[str, float]]) -> dict[str, float]:
    """A graph of input and feed-forward nodes with dense layers, in double precision.

    By LWTNN's documentation: an input is (x + offset) * scale, weights stand row after row for
    each output, a layer is activation(weights x + bias), an output names the entries of a node.
    """
    graph = json.loads(path.read_text("utf-8"))
    assert graph["input_sequences"] == []  # LWTNN asks for it, even if it is empty
    values: list[Array] = []
    for node in graph["nodes"]:
        (source,) = node["sources"]
        if node["type"] == "input":
            given = graph["inputs"][source]
            filled = nodes[given["name"]]
            x = np.array(
                [(filled[v["name"]] + v["offset"]) * v["scale"] for v in given["variables"]]
            )
            assert len(x) == node["size"]
        else:
            assert node["type"] == "feed_forward" and source < len(values)
            x = layer(graph["layers"][node["layer_index"]], values[source])
        values.append(x)
    (output,) = graph["outputs"].values()  # the default one
    return dict(zip(output["labels"], values[output["node_index"]].tolist(), strict=True))


def layer(told: dict[str, Any], x: Array) -> Array:
    assert told["architecture"] == "dense"
    y = np.reshape(told["weights"], (-1, len(x))) @ x + told["bias"]
    if told["activation"] == "sigmoid":
        return 1 / (1 + np.exp(-y))
    assert told["activation"]["function"] == "leakyrelu"
    return np.where(y > 0, y, told["activation"]["alpha"] * y)


@pytest.fixture(scope="module")
def run(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense autoencoder under Par04's conditions, after a few steps."""
    out = tmp_path_factory.mktemp("vae") / "run"
    train(recipe_of(values(toy_files), [], "r"), out)
    return out


def values(files: list[Path], **more: Any) -> dict[str, Any]:
    return dict(
        model="vae", data=[str(f) for f in files], steps=30, batch=32, scale_steps=10,
        learning_rate=1e-2, warmup=5, vae=dict(conditions="par04", kl=1e-5) | more,
        voxels={"transform": "none"},
    )  # fmt: skip


def detectors(files: list[Path]) -> list[Detector]:
    found = [read_showers(path).detector for path in files]
    return [detector for detector in found if detector is not None]


@pytest.mark.parametrize("which", [0, 1])
def test_it_agrees_with_torch(run: Path, toy_files: list[Path], tmp_path: Path, which: int) -> None:
    detector, path = detectors(toy_files)[which], tmp_path / "out.json"
    found = export_model(run, path, detector=detector, format="lwtnn", target="par04")
    assert found["agreement"] < 1e-4 and found["latent"] == 10
    module = Decoder(load_model(run), detector).eval()
    draw = np.random.default_rng(3)
    for energy, theta in ((2e3, 1.0), (3e4, 1.5), (9e4, 2.1)):
        row = VaeInput(tuple(draw.normal(size=10)), energy, theta).vector()
        filled = {"node_0": {f"variable_{k}": value for k, value in enumerate(row)}}
        out = evaluated(path, filled)
        cells = np.array([out[f"out_{k}"] for k in range(detector.mesh.n_cells)])  # as Par04 reads
        with torch.no_grad():
            wanted = module(torch.tensor([row], dtype=torch.float32)).numpy().reshape(-1)
        kept = wanted > 0  # Par04 drops the others, and so has the module
        assert np.allclose(cells[kept], wanted[kept], rtol=1e-5)
        assert (cells[~kept] * energy < 1.001 * CUT_MEV).all()
        assert wanted.sum() > 0 and len(out) == detector.mesh.n_cells


def test_it_is_one_detector_whatever_par04_says(
    run: Path, toy_files: list[Path], tmp_path: Path
) -> None:
    """The one-hot of Par04 is not listened to; energy, angle and every latent number are."""
    parts = []
    for k, detector in enumerate(detectors(toy_files)):
        path = tmp_path / f"{k}.json"
        export_model(run, path, detector=detector, format="lwtnn", target="par04")

        def cells(*change: tuple[int, float], path: Path = path) -> Array:
            row = VaeInput((0.3,) * 10, 2e4, 1.5).vector()
            for index, value in change:
                row[index] = value
            filled = {"node_0": {f"variable_{i}": value for i, value in enumerate(row)}}
            return np.array(list(evaluated(path, filled).values()))

        same = cells()
        assert np.array_equal(same, cells((12, 1.0), (13, 0.0)))
        assert all(not np.allclose(same, cells((index, -1.0)), rtol=1e-6) for index in range(12))
        parts.append(same)
    assert not np.allclose(*parts, rtol=1e-3)


def test_the_macro_is_of_a_vae_in_lwtnn(run: Path, toy_files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    found = export_model(
        run, path, detector=detectors(toy_files)[0], format="lwtnn", target="par04"
    )
    text = Path(found["macro"]).read_text("utf-8")
    for line in ("setModelType VAE", "setSizeLatentVector 10", "setSizeConditionVector 4",
                 "setInferenceLibrary LWTNN", "setModelPathName small.json"):  # fmt: skip
        assert f"/Par04/inference/{line}\n" in text
    assert text.index("setModelPathName") < text.index("setInferenceLibrary")
    told = json.loads(path.read_text("utf-8"))["miscellaneous"]
    assert told["target"] == "par04" and told["latent"] == "10"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vae.conditions": "physics"}, "conditions = 'par04'.*recipes/vae-par04.toml"),
        ({"vae.loss": "mse"}, "loss = 'bce'"),
        ({"voxels.transform": "log"}, "transform = 'none'"),
        ({"voxels.divide": "largest"}, "divide = 'incident_mev'"),
    ],
)
def test_what_lwtnn_cannot_do_is_refused_with_the_remedy(
    toy_files: list[Path], tmp_path: Path, change: dict[str, str], words: str
) -> None:
    changes = [f"{key}={value}" for key, value in change.items()]
    recipe = recipe_of(values(toy_files) | {"steps": 1}, changes, "r")
    train(recipe, tmp_path / "run")
    asked: dict[str, Any] = dict(detector=detectors(toy_files)[0], format="lwtnn", target="par04")
    with pytest.raises(RequestError, match=words):
        export_model(tmp_path / "run", tmp_path / "x.json", **asked)
    assert not (tmp_path / "x.json").exists()


def test_an_unknown_detector_and_another_kind_are_refused(
    run: Path, model: Path, small_detector: Detector, toy_files: list[Path], tmp_path: Path
) -> None:
    asked: dict[str, Any] = dict(format="lwtnn", target="par04", extrapolate=True)
    text = small_detector.to_toml().replace("500", "700").replace('"small"', '"other"')
    other = parse_detector(text)
    with pytest.raises(RequestError, match="'other' is neither; name one of small0, small1"):
        export_model(run, tmp_path / "x.json", detector=other, **asked)
    with pytest.raises(RequestError, match="of kind 'diffusion'; train a model of kind 'vae'"):
        export_model(model, tmp_path / "x.json", detector=small_detector, **asked)
    assert not list(tmp_path.iterdir())


def test_the_verb_writes_it(run: Path, toy_files: list[Path], tmp_path: Path) -> None:
    detector = tmp_path / "small0.toml"
    detector.write_text(detectors(toy_files)[0].to_toml())
    out = tmp_path / "x.json"
    asked = ["export", str(run), str(out), "--detector", str(detector), "--format", "lwtnn"]
    assert main([*asked, "--target", "plain"]) == 2 and not out.exists()
    assert main([*asked, "--target", "par04"]) == 0 and out.stat().st_size > 1000
