"""The numbers that Par04 hands to a model, and the macro that tells it to."""

from __future__ import annotations

import math

from caloforge.deploy.par04 import CONDITIONS, DiffusionInput, VaeInput, macro
from caloforge.detector.detector import load_detector


def test_the_eight_numbers_stand_in_their_order() -> None:
    vector = DiffusionInput(energy_gev=12.5, phi=-0.4, theta=1.1).vector()
    assert vector == [12.5, -0.4, 1.1, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert len(vector) == CONDITIONS


def test_the_vae_is_told_shares_of_its_largest_energy_and_of_a_right_angle() -> None:
    vector = VaeInput(latent=(0.5,) * 10, energy_mev=512_000.0, theta=math.pi / 2).vector()
    assert len(vector) == 14 and vector[:10] == [0.5] * 10
    assert vector[10:] == [0.5, 1.0, 0.0, 1.0]


def test_the_macro_says_path_and_flags_before_the_library_that_opens_the_session() -> None:
    detector = load_detector("par04-siw")
    stack = detector.described_stack()
    lines = macro("siw.onnx", "ONNX", detector.mesh, (stack.layers, stack.pitch_mm)).splitlines()
    commands = [line.split()[0] for line in lines if not line.startswith("#")]
    library = commands.index("/Par04/inference/setInferenceLibrary")
    assert commands.index("/run/initialize") < commands.index("/Par04/inference/setModelPathName")
    before = ("setModelPathName", "setProfileFlag", "setOptimizationFlag", "setCudaFlag")
    assert all(commands.index(f"/Par04/inference/{name}") < library for name in before)
    assert "/Par04/inference/setModelType CaloDiT-2" in lines
    # The readout's mesh and the inference's are set apart and must be one.
    meshes = (
        {
            line.rsplit("/", 1)[1]
            for line in lines
            if f"/Par04/{place}/set" in line and "Cells" in line
        }
        for place in ("mesh", "inference")
    )
    assert len(set(map(frozenset, meshes))) == 1
