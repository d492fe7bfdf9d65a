"""The C++ header and example against Python: given noise, positions, wrong input, an event."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.detector.mesh import Mesh

SOURCES = Path(str(files("caloforge.deploy") / "cpp"))
HERE = Path(__file__).parent / "cpp"
PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
MESH = Mesh(n_r=3, n_phi=5, n_z=7, cell_r_mm=4.65, cell_z_mm=3.4)
METADATA = {
    "caloforge": "0.1.0", "target": "plain", "detector": "name = 'toy'", "noise": "11",
    "n_r": "3", "n_phi": "5", "n_z": "7", "cell_r_mm": "4.65", "cell_z_mm": "3.4",
    "energy_min_mev": "1000.0", "energy_max_mev": "100000.0", "theta_min": "0.87",
    "theta_max": "2.27", "pdg": "11,-11,22", "units": "MeV mm rad",
}  # fmt: skip
GEANT4 = (
    "AffineTransform", "FastHit", "FastSimHitMaker", "FastStep", "FastTrack", "ParticleDefinition",
    "SystemOfUnits", "ThreeVector", "Track", "VFastSimulationModel", "VSolid",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not shutil.which("g++", path=PROGRAMS), reason="needs a C++ compiler (apt install g++)"
)


class Toy(torch.nn.Module):
    """A gamma-like profile in depth, an exponential in r, fluctuations; faint cells are empty."""

    mix: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mix", 0.3 * torch.randn(11, MESH.n_cells, generator=generator))

    def forward(self, conditions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        energy, theta, phi, pdg = conditions[:, :, None, None, None].unbind(1)
        z = torch.arange(1.0, MESH.n_z + 1)
        depth = 1 + 0.3 * torch.log(energy / 1000) + 0.1 * (pdg == 22) - 0.1 * (pdg == -11)
        radial = torch.exp(-torch.arange(float(MESH.n_r)))[:, None, None]
        around = 1 + 0.1 * torch.cos(phi + torch.arange(float(MESH.n_phi))[:, None])
        mean = 1e-3 * energy * torch.sin(theta) * z**depth * torch.exp(-z) * radial * around
        showers = mean * torch.exp(noise @ self.mix).reshape(-1, *MESH.shape)
        return torch.where(showers > 1e-4 * energy, showers, 0)


class Echo(torch.nn.Module):
    """Showers that are the noise, a number for each cell."""

    def forward(self, conditions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return noise.reshape(-1, *MESH.shape) + 0 * conditions[:, :1, None, None]


def example_inputs(n_noise: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[5e4, 1.5, 0.3, 11.0]] * 2), torch.zeros(2, n_noise)


def write_torch(
    module: torch.nn.Module, path: Path, metadata: dict[str, str], n_noise: int = 11
) -> None:
    with warnings.catch_warnings():  # TorchScript is deprecated, and what LibTorch reads
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, example_inputs(n_noise))
        traced.save(str(path), _extra_files=dict(metadata))


def write_onnx(module: torch.nn.Module, path: Path, metadata: dict[str, str]) -> None:
    onnx = pytest.importorskip("onnx")
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example_inputs(int(metadata["noise"])), path, dynamo=True, opset_version=18,
            external_data=False, input_names=["conditions", "noise"], output_names=["showers"],
            dynamic_shapes={"conditions": {0: batch}, "noise": {0: batch}}, verbose=False,
        )  # fmt: skip
    proto = onnx.load(path)
    proto.ir_version = 8
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)


def cmake(*arguments: object) -> None:
    program = shutil.which("cmake", path=PROGRAMS)
    if program is None:
        pytest.skip("needs CMake (pip install cmake)")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path, *options: str) -> Path:
    """The example, configured and built as docs/cpp.md says."""
    cmake("-S", SOURCES, "-B", folder, *options)
    cmake("--build", folder)
    return folder / "caloforge_example"


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    return build(folder, f"-DPython3_EXECUTABLE={sys.executable}", "-DONNXRUNTIME_ROOT=")


@pytest.fixture(scope="session")
def onnx_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = os.environ.get("ONNXRUNTIME_ROOT")
    if not root:
        pytest.skip("needs ONNX Runtime's headers and library (set ONNXRUNTIME_ROOT)")
    folder = tmp_path_factory.mktemp("onnx")
    return build(folder, "-DCALOFORGE_WITH_TORCH=OFF", f"-DONNXRUNTIME_ROOT={root}")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.pt"
    write_torch(Toy(), path, METADATA)
    return path


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("echo") / "echo.pt"
    write_torch(Echo(), path, METADATA | {"noise": str(MESH.n_cells)}, MESH.n_cells)
    return path


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def showers_of(program: Path, model: Path, out: Path, *arguments: object) -> np.ndarray:
    done = run(program, model, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    return np.fromfile(out, np.float32).reshape(-1, *MESH.shape)


@pytest.fixture
def given(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, list[object]]:
    """Conditions (7, 4), noise (7, 11), and the options that hand them over."""
    rng = np.random.default_rng(1)
    conditions = np.stack(
        [rng.uniform(2e3, 9e4, 7), rng.uniform(0.9, 2.2, 7), rng.uniform(0, 6.28, 7),
         np.array([11, -11, 22, 11, 22, -11, 11])], axis=1,
    ).astype(np.float32)  # fmt: skip
    noise = rng.normal(size=(7, 11)).astype(np.float32)
    conditions.tofile(tmp_path / "particles")
    noise.tofile(tmp_path / "noise")
    return conditions, noise, ["--particles", tmp_path / "particles", "--noise", tmp_path / "noise"]


def of_python(conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return Toy()(torch.from_numpy(conditions), torch.from_numpy(noise)).numpy()


@pytest.mark.parametrize("how", [(), ("--batch", 1), ("--batch", 3), ("--threads", 3)])
def test_given_noise_gives_the_showers_of_python(
    example: Path, toy: Path, given: tuple[np.ndarray, np.ndarray, list[object]], tmp_path: Path,
    how: tuple[object, ...],
) -> None:  # fmt: skip
    conditions, noise, options = given
    showers = showers_of(example, toy, tmp_path / "out", *options, *how)
    expected = of_python(conditions, noise)
    assert 0.1 < (expected > 0).mean() < 0.9
    np.testing.assert_allclose(showers, expected, rtol=1e-5)


@pytest.mark.parametrize("how", [(), ("--batch", 1), ("--threads", 3)])
def test_onnx_gives_the_showers_of_python(
    onnx_example: Path, given: tuple[np.ndarray, np.ndarray, list[object]], tmp_path: Path,
    how: tuple[object, ...],
) -> None:  # fmt: skip
    conditions, noise, options = given
    write_onnx(Toy(), tmp_path / "toy.onnx", METADATA)
    showers = showers_of(onnx_example, tmp_path / "toy.onnx", tmp_path / "out", *options, *how)
    np.testing.assert_allclose(showers, of_python(conditions, noise), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_seed_fixes_the_showers_whatever_the_batch(
    example: Path, toy: Path, tmp_path: Path, batch: int
) -> None:
    def of(seed: int, *how: object) -> np.ndarray:
        return showers_of(example, toy, tmp_path / "out", "-n", 9, "--seed", seed, *how)

    first = of(5)
    np.testing.assert_allclose(of(5, "--batch", batch), first, rtol=1e-5)
    assert np.array_equal(of(5), first)
    assert not np.array_equal(of(6), first)


def test_the_noise_drawn_is_standard_normal(example: Path, echo: Path, tmp_path: Path) -> None:
    noise = showers_of(example, echo, tmp_path / "out", "-n", 300).ravel()
    error = len(noise) ** -0.5
    assert abs(noise.mean()) < 5 * error
    assert abs((noise**2).mean() - 1) < 5 * 2**0.5 * error
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 * error
    assert len(np.unique(noise)) > 0.99 * len(noise)


def test_deposits_lie_at_the_centres_of_their_cells(
    example: Path, echo: Path, tmp_path: Path
) -> None:
    particles = np.array([[5e4, 1.3, 0.4, 11], [5e4, 2.0, -2.5, 22]], np.float32)
    particles.tofile(tmp_path / "particles")
    noise = np.arange(2 * MESH.n_cells, dtype=np.float32) - 20  # below zero: no deposit
    noise.tofile(tmp_path / "noise")
    done = run(
        example, echo, "--particles", tmp_path / "particles", "--noise", tmp_path / "noise",
        "--radius", 800, "--deposits", tmp_path / "deposits",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = np.fromfile(tmp_path / "deposits").reshape(-1, 5)
    np.testing.assert_array_equal(rows[:, 4], noise[noise > 0])
    r, phi, z = np.meshgrid(MESH.centres_r, MESH.centres_phi, MESH.centres_z, indexing="ij")
    centres = np.stack([r * np.cos(phi), r * np.sin(phi), z], -1).reshape(-1, 3)
    for i, (_, theta, azimuth, _) in enumerate(particles.astype(float)):
        mine = rows[rows[:, 0] == i]
        entrance = 800 * np.array([np.cos(azimuth), np.sin(azimuth), 1 / np.tan(theta)])
        displacement = mine[:, 1:4] - entrance
        cells = np.flatnonzero(noise.reshape(2, -1)[i] > 0)
        np.testing.assert_array_equal(MESH.cells_of(displacement, theta, azimuth), cells)
        np.testing.assert_allclose(
            MESH.to_frame(displacement, theta, azimuth), centres[cells], atol=1e-9
        )


def test_an_application_adds_the_folder(tmp_path: Path) -> None:
    (tmp_path / "application.cc").write_text('#include "torch_model.h"\nint main() {}\n')
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(application CXX)\n"
        f'add_subdirectory("{SOURCES}" caloforge EXCLUDE_FROM_ALL)\n'
        "add_executable(application application.cc)\n"
        "target_link_libraries(application PRIVATE caloforge)\n"
    )
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    cmake("-S", tmp_path, "-B", tmp_path / "build", python, "-DONNXRUNTIME_ROOT=")


def test_cells_of_points_are_those_of_python(compile_cpp: Callable[..., Path]) -> None:
    program = compile_cpp(HERE / "cells.cc")
    rng = np.random.default_rng(2)
    angles = np.stack([rng.uniform(0, np.pi, 400), rng.uniform(-4, 7, 400)], 1)
    angles[:6] = [np.pi / 2, 0]  # where points lie on edges: phi' = +-pi, the axis, the end
    entrance = rng.normal(0, 500, (400, 3))
    displacement = rng.uniform(-30, 30, (400, 3))
    displacement[:6] = [[1, 0, 4], [1, 0, -4], [0, 0, 0], [-1, 2, 2], [7 * 3.4, 1, 1], [1, 20, 0]]
    entrance[:6] = 0
    rows = np.concatenate([angles, entrance, entrance + displacement], axis=1)
    text = "\n".join(" ".join(f"{v:.17g}" for v in row) for row in rows)
    done = subprocess.run(
        [program, *map(str, (*MESH.shape, MESH.cell_r_mm, MESH.cell_z_mm))],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
    displacement = rows[:, 5:] - rows[:, 2:5]
    expected = [MESH.cells_of(d[None], *a)[0] for d, a in zip(displacement, angles, strict=True)]
    assert 20 < np.sum(np.array(expected) >= 0) < 380
    np.testing.assert_array_equal(answer[:, 0], expected)
    np.testing.assert_allclose(answer[:, 1:], rows[:, 5:], atol=1e-9)


@pytest.fixture(scope="session")
def compile_cpp(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles one file with all warnings as errors."""

    def call(source: Path, *options: object) -> Path:
        program = tmp_path_factory.mktemp("program") / source.stem
        command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", f"-I{HERE}"]
        done = subprocess.run(
            [*command, *map(str, options), str(source), "-o", str(program)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return program

    return call


def test_an_event_of_the_fast_simulation_model(
    compile_cpp: Callable[..., Path], tmp_path: Path
) -> None:
    for name in (*(f"G4{name}" for name in GEANT4), "Randomize"):
        (tmp_path / f"{name}.hh").write_text('#include "geant4.hh"\n')
    # Tracks die before Flush(): the sanitizer sees whoever still asks them.
    program = compile_cpp(HERE / "event.cc", f"-I{tmp_path}", "-fsanitize=address,undefined")
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_the_onnx_model_compiles(compile_cpp: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "onnx.cc").write_text('#include "onnx_model.h"\n')
    compile_cpp(tmp_path / "onnx.cc", "-c")


def refused(done: subprocess.CompletedProcess[str], what: str, remedy: str) -> None:
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert what in done.stderr and remedy in done.stderr
    assert not done.stdout


def test_a_file_that_is_no_model_is_refused(example: Path, tmp_path: Path) -> None:
    refused(run(example, tmp_path / "none.pt"), "cannot read", "caloforge export")
    (tmp_path / "text.pt").write_text("no model")
    refused(run(example, tmp_path / "text.pt"), "not a TorchScript file", "caloforge export")
    (tmp_path / "model.onnx").write_text("no model")
    refused(run(example, tmp_path / "model.onnx"), "without ONNX Runtime", "ONNXRUNTIME_ROOT")
    refused(run(example), "no model given", "MODEL.pt")


def test_an_onnx_file_that_is_no_model_is_refused(onnx_example: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    refused(run(onnx_example, path), "cannot read", "caloforge export")
    path.write_text("no model")
    refused(run(onnx_example, path), "not an ONNX file", "--format onnx")
    write_onnx(Toy(), path, {k: v for k, v in METADATA.items() if k != "pdg"})
    refused(run(onnx_example, path), "no metadata 'pdg'", "caloforge export")
    write_onnx(Toy(), path, METADATA | {"n_z": "8"})
    refused(run(onnx_example, path), "ONNX Runtime cannot run", "caloforge export")
    refused(run(onnx_example, tmp_path / "model.pt"), "without LibTorch", "CALOFORGE_WITH_TORCH")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"n_r": ""}, "no metadata 'n_r'"),
        ({"target": "par04"}, "target 'par04'"),
        ({"noise": "many"}, "wrong metadata 'noise'"),
        ({"n_z": "0"}, "wrong metadata 'n_z'"),
        ({"cell_r_mm": "0"}, "wrong metadata 'cell_r_mm'"),
        ({"pdg": "11,e+"}, "wrong metadata 'pdg'"),
    ],
)
def test_wrong_metadata_is_refused(
    example: Path, tmp_path: Path, change: dict[str, str], what: str
) -> None:
    metadata = {k: v for k, v in (METADATA | change).items() if v}
    path = tmp_path / "model.pt"
    write_torch(Toy(), path, metadata)
    refused(run(example, path), what, "caloforge export")


def test_a_file_whose_metadata_lie_is_refused(example: Path, tmp_path: Path) -> None:
    for change, name in (({"n_z": "8"}, "cells"), ({"noise": "12"}, "noise")):
        path = tmp_path / f"{name}.pt"
        write_torch(Toy(), path, METADATA | change)
        refused(run(example, path), "LibTorch cannot run", "caloforge export")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--energy-gev", 200), "200000 MeV"),
        (("--energy-gev", "nan"), "nan MeV"),
        (("--theta", 0.2), "theta 0.2 rad"),
        (("--pdg", 211), "PDG code 211"),
    ],
)
def test_a_particle_out_of_range_is_left_to_geant4(
    example: Path, toy: Path, options: tuple[object, ...], what: str
) -> None:
    done = run(example, toy, *options)
    refused(done, what, "leave it to Geant4")
    assert "1000 to 100000 MeV" in done.stderr


def test_wrong_options_are_refused(example: Path, toy: Path, tmp_path: Path) -> None:
    refused(run(example, toy, "--enregy", 1), "--enregy", "example.cc")
    refused(run(example, toy, "-n", "ten"), "'ten' is no number", "-n")
    refused(run(example, toy, "--batch", 0), "--batch", "whole number")
    np.zeros(10, np.float32).tofile(tmp_path / "noise")
    refused(run(example, toy, "--noise", tmp_path / "noise"), "holds 10 numbers", "11 for each")
