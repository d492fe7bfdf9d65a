"""The page of exported models, in a real browser: from disk, alone, quick, and with right numbers.

Needs Chromium (`apt install chromium`, or CHROMIUM=/path/to/it); continuous integration has it.
"""

import hashlib
import importlib.util
import lzma
import math
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from caloforge.cli import main
from caloforge.deploy import page as module
from caloforge.deploy.page import write_page
from caloforge.detector.detector import load_detector
from caloforge.errors import RequestError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
DETECTORS = ("par04-siw", "par04-scipb")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="no ONNX: pip install onnx onnxscript onnxruntime",
)
pytestmark = [needs_onnx, pytest.mark.filterwarnings("default")]


def export_toy(name, path, **changed):
    """A toy of the contract: a gamma profile in depth, an exponential in r, times exp(noise)."""
    import onnx
    import torch

    detector = load_detector(name)
    mesh = detector.mesh
    cells = mesh.n_r * mesh.n_phi * mesh.n_z

    class Toy(torch.nn.Module):
        def forward(self, conditions, noise):
            z = torch.linspace(0.5, mesh.n_z - 0.5, mesh.n_z) / 4  # (Z,)
            r = torch.arange(mesh.n_r) + 0.5  # (R,)
            energy = conditions[:, :1]  # (B, 1)
            peak = 1 + 0.5 * torch.log(energy / 10)  # (B, 1)
            depth = torch.exp(peak * torch.log(z) - 0.9 * z)  # (B, Z)
            depth = depth / depth.sum(1, keepdim=True)
            across = torch.exp(-0.8 * r) / torch.exp(-0.8 * r).sum() / mesh.n_phi
            mean = 0.032 * energy[:, :, None, None] * across[:, None, None] * depth[:, None, None]
            grain = noise.reshape(-1, mesh.n_r, mesh.n_phi, mesh.n_z)
            found = mean * torch.exp(0.8 * grain - 0.3)  # (B, R, PHI, Z)
            return torch.where(found < 0.01 + 0.05 * (grain > 0), 0.0, found)

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Toy().eval(), (torch.tensor([[2e4, 1.57, 0, 11]] * 2), torch.zeros(2, cells)), path,
        dynamo=True, opset_version=18, external_data=False, verbose=False,
        input_names=["conditions", "noise"], output_names=["showers"],
        dynamic_shapes={"conditions": {0: batch}, "noise": {0: batch}},
    )  # fmt: skip
    model = onnx.load(path)
    model.ir_version = 8
    metadata = {
        "caloforge": "0", "target": "plain", "detector": detector.to_toml(), "n_r": mesh.n_r,
        "n_phi": mesh.n_phi, "n_z": mesh.n_z, "cell_r_mm": mesh.cell_r_mm,
        "cell_z_mm": mesh.cell_z_mm, "noise": cells, "energy_min_mev": 1e3,
        "energy_max_mev": 1e5, "theta_min": 0.87, "theta_max": 2.27, "pdg": "11,-11,22",
        "units": "MeV mm rad",
    }  # fmt: skip
    metadata = {key: str(value) for key, value in (metadata | changed).items() if value is not None}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return [export_toy(name, folder / f"{name}.onnx") for name in DETECTORS]


@pytest.fixture(scope="module")
def written(exported, tmp_path_factory):
    return write_page(exported, tmp_path_factory.mktemp("page") / "showers.html")
