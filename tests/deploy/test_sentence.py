"""A prior as one function, and as a file: its showers are those of the generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from caloforge.deploy.export import export, one_call
from caloforge.deploy.exported import Exported
from caloforge.deploy.maker import open_maker
from caloforge.deploy.page import write_page
from caloforge.deploy.par04 import DiffusionInput
from caloforge.deploy.sentence import Sentence
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model, ValidRange, load_model, save_model
from caloforge.learn.models.family import Manner, family
from caloforge.learn.models.prior import Prior, PriorConfig, scale
from caloforge.learn.models.vqvae import VqvaeConfig
from caloforge.learn.noise import Dealt
from caloforge.learn.settings import VoxelSettings
from caloforge.simulate.beam import Beam

Folder = Callable[[bool], Path]
CONDITIONS = torch.tensor([[5e4, 1.5, 0.1, 11.0], [2e3, 1.2, 3.0, 22.0], [9e4, 2.0, -1.0, 11.0]])


@pytest.fixture(scope="module")
def folder(toy_batch: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Priors of random weights, with and without a profile of layers, as checkpoints."""

    @torch.enable_grad()
    def made(layers: bool) -> Path:
        path = tmp_path_factory.getbasetemp() / f"prior-{layers}"
        if path.exists():
            return path
        torch.manual_seed(0)
        known = VqvaeConfig(
            (3, 4, 10), (3, 4, 1), 32, 1, 2, 10 if layers else 6, 24, 4, (), "beliefs", 0.25,
            VoxelSettings(), 2, layers, 4 if layers else 0,
        )  # fmt: skip
        network, batch = Prior(PriorConfig(known, 32, 2, 2, 3)), toy_batch(16)
        fitted = scale(network.config)
        fitted.fit(*batch, steps=100)
        network.tokeniser.fit(batch[1].features, fitted(*batch))
        network.fit(batch[1].features, fitted(*batch))
        for parameter in network.parameters():
            if float(parameter.detach().abs().sum()) == 0:
                torch.nn.init.normal_(parameter, std=0.1)
        valid = ValidRange((1e3, 1e5), (0.8, 2.3), (-11, 11, 22), ("small",), ())
        save_model(Model(network, fitted, valid, {}, "prior"), path)
        return path

    return made


@pytest.fixture(scope="module")
def plain(
    folder: Folder, small_detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("sentence") / "prior.onnx"
    found = export(folder(True), path, detector=small_detector, steps=2)
    assert 0 <= found["agreement"] < 1e-3 and found["steps"] == 2
    return path


def noise_of(inner: Sentence, n: int = 3) -> torch.Tensor:
    return torch.randn(n, inner.noise, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(("layers", "steps"), [(True, 1), (True, 4), (False, None)])
def test_its_showers_are_the_generators(
    folder: Folder, small_detector: Detector, layers: bool, steps: int | None
) -> None:
    generator, primaries = Generator.load(folder(layers)), Beam("e-,gamma").primaries(5, 0, 8)
    columns = (primaries.energy, primaries.theta, primaries.phi, primaries.pdg)
    conditions = torch.from_numpy(np.stack([c.astype(np.float32) for c in columns], axis=1))
    inner = one_call(generator.model, small_detector, steps)
    assert isinstance(inner, Sentence)
    noise, kind = noise_of(inner, 8), family("prior")
    assert kind.draw is not None
    wanted = kind.draw(
        generator.model.network, generator.model.scale, generator.told(small_detector, primaries),
        Dealt(noise), kind.settle(generator.model, Manner(steps=steps), ""),
    )  # fmt: skip
    made = inner(conditions, noise)
    assert torch.allclose(made.sum((1, 2, 3)), wanted.sum((1, 2, 3)), rtol=1e-3)
    differ = (made - wanted).abs().sum((1, 2, 3)) / wanted.sum((1, 2, 3))
    assert float(differ.median()) < 1e-3 and float(wanted.sum()) > 0


@torch.no_grad()
def test_a_row_of_noise_is_a_shower_in_any_batch(folder: Folder, small_detector: Detector) -> None:
    inner = one_call(load_model(folder(True)), small_detector)
    noise = noise_of(inner)
    together = inner(CONDITIONS, noise)
    alone = torch.cat([inner(c[None], n[None]) for c, n in zip(CONDITIONS, noise, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(inner(CONDITIONS, noise.flip(0)), together)
    assert together.sum((1, 2, 3)).argsort().tolist() == [1, 0, 2]


def test_a_plain_file_gives_its_showers_in_any_batch(
    folder: Folder, plain: Path, small_detector: Detector
) -> None:
    inner = one_call(load_model(folder(True)), small_detector, 2)
    session = onnxruntime.InferenceSession(str(plain), providers=["CPUExecutionProvider"])
    noise = noise_of(inner, 5)
    conditions = CONDITIONS[[0, 1, 2, 0, 1]]
    with torch.no_grad():
        wanted = inner(conditions, noise).numpy()
    for rows in (slice(0, 5), slice(3, 4)):
        fed = {"conditions": conditions[rows].numpy(), "noise": noise[rows].numpy()}
        (found,) = session.run(None, fed)
        assert np.abs(found - wanted[rows]).sum() < 1e-3 * wanted[rows].sum()


def test_cells_and_rings_of_a_detector_are_in_its_file(
    folder: Folder, small_detector: Detector, tmp_path: Path
) -> None:
    model, primaries = load_model(folder(True)), Beam("e-").primaries(5, 0, 2)
    inner = one_call(model, small_detector)
    noise = noise_of(inner)
    with torch.no_grad():
        before = inner(CONDITIONS, noise).numpy()
    here = Generator(model, "").told(small_detector, primaries).features[0]
    draw = torch.Generator().manual_seed(1)
    for part in (model.scale.cells, model.scale.rings):
        number = part.renewed(here, torch.ones_like(here))
        part.values[number] = 0.3 * torch.randn(part.count, generator=draw)
    save_model(model, tmp_path / "model")
    found = export(tmp_path / "model", tmp_path / "m.onnx", detector=small_detector)
    assert 0 <= found["agreement"] < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (showers,) = session.run(None, {"conditions": CONDITIONS.numpy(), "noise": noise.numpy()})
    with torch.no_grad():
        wanted = one_call(load_model(tmp_path / "model"), small_detector)(CONDITIONS, noise).numpy()
    assert np.abs(showers - wanted).sum() < 1e-3 * wanted.sum()
    assert np.abs(before - wanted).sum() > 0.05 * wanted.sum()


def test_a_plain_file_is_an_event_loops_and_a_pages(
    folder: Folder, plain: Path, small_detector: Detector, tmp_path: Path
) -> None:
    primaries = Beam("e-", (2e3, 5e4)).primaries(1, 0, 8)
    for maker in (Exported(plain), open_maker(folder(True))):
        maker.check(small_detector, False)
        showers = maker.make(small_detector, primaries)
        assert (showers.visible() > 0).all() and len(showers) == 8
    assert write_page([plain], tmp_path / "page.html").stat().st_size > 1e6


def test_metadata_and_version_are_those_of_every_file(plain: Path) -> None:
    model = onnx.load(plain)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["target"], told["steps"], told["n_z"]) == ("plain", "2", "10")
    assert int(told["noise"]) == model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    assert model.ir_version == 8 and {entry.version for entry in model.opset_import} == {20}


def test_par04_is_one_input_and_noise_inside(
    folder: Folder, small_detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "par04.onnx"
    found = export(folder(True), path, detector=small_detector, target="par04", steps=1)
    assert Path(found["macro"]).is_file()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    vector = np.array([DiffusionInput(10.0, 0.0, 1.4).vector()], np.float32)
    first, second = (session.run(None, {entry.name: vector})[0] for _ in range(2))
    assert first.shape == (1, 3, 4, 10) and not np.array_equal(first, second)


@pytest.mark.parametrize("target", ["plain", "par04"])
def test_torchscript(folder: Folder, small_detector: Detector, tmp_path: Path, target: str) -> None:
    asked: dict[str, Any] = dict(target=target, format="torchscript")
    found = export(folder(True), tmp_path / "model.pt", detector=small_detector, **asked)
    assert found["agreement"] < 1e-3 and found["steps"] == 4  # all parts where none are asked for


def test_what_it_cannot_do_is_refused(folder: Folder, small_detector: Detector) -> None:
    model = load_model(folder(True))
    with pytest.raises(RequestError, match="1, 2 or 4 steps, not 3"):
        one_call(model, small_detector, 3)
    with pytest.raises(RequestError, match="mesh of 'par04-siw'"):
        one_call(model, load_detector("par04-siw"))
    with pytest.raises(RequestError, match="needs a diffusion model"):
        one_call(replace(model, family="vqvae"), small_detector)
