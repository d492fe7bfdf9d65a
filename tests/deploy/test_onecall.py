"""A model for one detector as one function: what it is told, and that it is what is generated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.deploy.onecall import OneCall, active_maps
from caloforge.detector import active
from caloforge.detector.detector import Detector, load_detector, named_detectors
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import Model, load_model
from caloforge.learn.models.diffusion import DiffusionTransformer
from caloforge.simulate.beam import Beam


@pytest.mark.parametrize("name", named_detectors())
def test_maps_are_those_of_the_detector(name: str) -> None:
    detector, theta = load_detector(name), np.linspace(0.87, 2.27, 23, dtype=np.float32)
    stack = detector.described_stack()
    wanted = active.active_maps(stack, detector.mesh, theta)
    found = active_maps(stack, detector.mesh, torch.from_numpy(theta)).numpy()
    # A face at the very edge of a cell may fall to either side in the last bit.
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) > 1e-3).mean() < 1e-3


def test_it_is_told_what_the_generator_is_told(student: Path, small_detector: Detector) -> None:
    generator, primaries = Generator.load(student), Beam("e-,gamma").primaries(5, 0, 20)
    wanted = generator.told(small_detector, primaries)
    columns = (primaries.energy, primaries.theta, primaries.phi, primaries.pdg)
    conditions = torch.from_numpy(np.stack([c.astype(np.float32) for c in columns], axis=1))
    found = OneCall(generator.model, small_detector, 2).told(conditions)
    assert torch.allclose(found.features, wanted.features, atol=1e-5)
    assert torch.allclose(found.pitch.expand_as(wanted.pitch), wanted.pitch)
    assert torch.equal(found.energy, wanted.energy)


@torch.no_grad()
def test_energy_closes_and_a_row_of_noise_is_a_shower(
    student: Path, small_detector: Detector
) -> None:
    inner = OneCall(load_model(student), small_detector, 2).eval()
    conditions = torch.tensor(
        [[5e4, 1.5, 0.1, 11.0], [2e3, 1.2, 3.0, 22.0], [9e4, 2.0, -1.0, 11.0]]
    )
    noise = torch.randn(3, inner.noise, generator=torch.Generator().manual_seed(0))
    together = inner(conditions, noise)
    alone = torch.cat([inner(c[None], n[None]) for c, n in zip(conditions, noise, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert together.shape == (3, *small_detector.mesh.shape) and (together >= 0).all()
    other = inner(conditions, noise.flip(0))
    assert not torch.allclose(other, together)
    # More energy, more signal: the order of the three.
    assert together.sum((1, 2, 3)).argsort().tolist() == [1, 0, 2]


@torch.no_grad()
def test_a_model_of_flow_is_drawn_from_its_beliefs(
    tiny_model: Model, small_detector: Detector
) -> None:
    inner = OneCall(tiny_model, small_detector, 2).eval()
    drawn = inner(torch.tensor([[2e4, 1.5, 0.0, 11.0]]), torch.randn(1, inner.noise))
    assert (drawn >= 0).all() and float(drawn.sum()) > 0


def test_models_without_beliefs_are_refused(tiny_model: Model, small_detector: Detector) -> None:
    config = replace(tiny_model.network.config, head="noise")
    other = replace(tiny_model, network=DiffusionTransformer(config))
    with pytest.raises(RequestError, match="distil"):
        OneCall(other, small_detector, 2)


def test_another_mesh_is_refused(student: Path) -> None:
    with pytest.raises(RequestError, match="mesh of 'par04-siw'"):
        OneCall(load_model(student), load_detector("par04-siw"), 2)
