"""Exported files: the contract of each target, and that they do what the model does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from caloforge.deploy.export import export
from caloforge.deploy.exported import Exported
from caloforge.deploy.page import write_page
from caloforge.deploy.par04 import DiffusionInput
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.learn.models.diffusion import DiffusionConfig, DiffusionTransformer
from caloforge.learn.preprocess import ShowerScale
from caloforge.simulate.beam import Beam

SHAPE = (3, 4, 10)
LIT = (1, 3, 7)


def opened(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def plain(
    student: Path, small_detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("plain") / "small.onnx"
    found = export(student, path, detector=small_detector, steps=2)
    assert 0 <= found["agreement"] < 1e-3 and found["steps"] == 2
    return path


@pytest.fixture(scope="module")
def lit(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that lights one voxel, whatever it is told."""
    trained = load_model(student)
    config = DiffusionConfig(
        SHAPE, SHAPE, (3, 2, 10), 16, 1, 2, process="beliefs", hidden=0, calls=2
    )
    network = DiffusionTransformer(config)
    odds = torch.full(SHAPE, -60.0)
    odds[LIT] = 60.0
    with torch.no_grad():
        network.head_voxels.bias[: odds.numel()] = network.patches.cut(odds[None])[0, 0]
        network.empty.fill_(-0.5)
    scale = ShowerScale(network.sketch, True)
    last = scale.energies.net[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():  # a response of three per cent, spread by five
        last.weight.zero_()
        last.bias.zero_()
        last.bias[0], last.bias[len(last.bias) // 2] = np.log(0.03), np.log(0.05)
    path = tmp_path_factory.mktemp("lit") / "model"
    save_model(Model(network, scale, trained.valid, {}), path)
    return path


@pytest.fixture(scope="module")
def par04(lit: Path, small_detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("par04") / "par04.onnx"
    asked: dict[str, Any] = dict(target="par04", steps=1, extrapolate=True)
    found = export(lit, path, detector=small_detector, **asked)
    assert Path(found["macro"]).read_text("utf-8").count("par04.onnx") == 2
    return path


def test_a_plain_file_is_the_event_loops(plain: Path, small_detector: Detector) -> None:
    maker = Exported(plain)
    maker.check(small_detector, False)
    showers = maker.make(small_detector, Beam("e-", (2e3, 5e4)).primaries(1, 0, 8))
    assert (showers.visible() > 0).all() and len(showers) == 8


def test_a_plain_file_makes_a_page(plain: Path, tmp_path: Path) -> None:
    assert write_page([plain], tmp_path / "page.html").stat().st_size > 1e6


def test_metadata_say_what_the_file_is(plain: Path, small_detector: Detector) -> None:
    model = onnx.load(plain)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["target"] == "plain" and told["units"] == "MeV mm rad"
    assert [int(told[key]) for key in ("n_r", "n_phi", "n_z")] == list(SHAPE)
    assert float(told["cell_r_mm"]) == small_detector.mesh.cell_r_mm
    assert int(told["noise"]) == model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    assert model.ir_version == 8 and model.opset_import[0].version == 20


def test_par04_onnx_is_loaded_as_par04_loads_it(par04: Path) -> None:
    session = opened(par04)
    (entry,) = session.get_inputs()  # exactly one, under any name
    assert entry.type == "tensor(float)" and len(entry.shape) == 2 and entry.shape[1] == 8

    def cells(energy: float, phi: float = 0.0, theta: float = 1.4) -> np.ndarray[Any, Any]:
        vector = np.array([DiffusionInput(energy, phi, theta).vector()], np.float32)
        (out,) = session.run(None, {entry.name: vector})
        assert out.dtype == np.float32 and out.size == np.prod(SHAPE) and out.flags.c_contiguous
        return out.reshape(-1)

    first, second = cells(10.0), cells(10.0)
    assert not np.array_equal(first, second)  # the noise is inside
    many = {energy: np.mean([cells(energy).sum() for _ in range(40)]) for energy in (5.0, 50.0)}
    assert many[5.0] == pytest.approx(0.15, rel=0.1)  # GeV, as the energy
    assert many[50.0] / many[5.0] == pytest.approx(10, rel=0.1)


def test_the_order_of_the_axes_is_par04s(par04: Path, small_detector: Detector) -> None:
    """One voxel is lit; Par04's own arithmetic puts its place into the cell that was meant."""
    mesh, session, phi, theta = small_detector.mesh, opened(par04), 0.7, 1.2
    vector = np.array([DiffusionInput(20.0, phi, theta).vector()], np.float32)
    out = session.run(None, {session.get_inputs()[0].name: vector})[0].reshape(-1)
    (flat,) = np.flatnonzero(out * 1000 > 0.0005)
    i, j, k = flat // (mesh.n_phi * mesh.n_z), flat // mesh.n_z % mesh.n_phi, flat % mesh.n_z
    rho, angle = (i + 0.5) * mesh.cell_r_mm, (j + 0.5) * 2 * np.pi / mesh.n_phi - np.pi
    x, y, z = rho * np.cos(angle), rho * np.sin(angle), (k + 0.5) * mesh.cell_z_mm
    x, z = x * np.cos(theta) + z * np.sin(theta), z * np.cos(theta) - x * np.sin(theta)
    place = np.array([[x * np.cos(phi) - y * np.sin(phi), x * np.sin(phi) + y * np.cos(phi), z]])
    assert mesh.cells_of(place, theta, phi)[0] == flat == np.ravel_multi_index(LIT, SHAPE)


@pytest.mark.parametrize("target", ["plain", "par04", "ddml"])
def test_torchscript(lit: Path, small_detector: Detector, tmp_path: Path, target: str) -> None:
    path = tmp_path / "model.pt"
    export(
        lit, path, detector=small_detector, target=target, format="torchscript", extrapolate=True
    )
    told = {"target": "", "n_phi": "", "noise": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(str(path), _extra_files=told)
    text = {k: v.decode() if isinstance(v, bytes) else v for k, v in told.items()}
    assert (text["target"], text["n_phi"]) == (target, "4")
    numbers = DiffusionInput(10.0, 0.0, 1.4).vector()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiling executor speaks of its own optimisations
        if target == "plain":
            conditions = torch.tensor([[1e4, 1.4, 0.0, 11.0]] * 5)  # another batch than was traced
            out = script(conditions, torch.randn(5, int(text["noise"])))
            assert out.shape == (5, *SHAPE)
            mev = float(out.sum() / 5)
        elif target == "par04":
            out = script(torch.tensor(numbers))  # rank 1, no batch
            assert out.numel() == np.prod(SHAPE) and out.is_contiguous()
            mev = 1e3 * float(out.sum())
        else:
            mev = float(script(torch.tensor([numbers])).sum())
    assert mev == pytest.approx(300, rel=0.3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": "json"}, "format 'json'"),
        ({"target": "cms"}, "target 'cms'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": -1}, "steps must be at least 1"),
        ({"detector": "par04-siw"}, "mesh|unlike"),
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"out": Path("/nowhere/at/all/x.onnx")}, "no folder"),
    ],
)
def test_wrong_requests_leave_nothing(
    student: Path, small_detector: Detector, tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    asked: dict[str, Any] = dict(model=student, out=tmp_path / "x.onnx", detector=small_detector)
    with pytest.raises(RequestError, match=word):
        export(**(asked | change))
    assert not list(tmp_path.iterdir())
