"""Effective quantities and descriptors: limits and monotony."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors, effective
from caloforge.detector.detector import Detector, Layer, Stack, load_detector, named_detectors
from caloforge.detector.materials import material


def stack(absorber: float, active: float = 0.3) -> Stack:
    return Stack(
        inner_radius_mm=800, layers=50,
        absorber=Layer(material="G4_W", thickness_mm=absorber),
        active=Layer(material="G4_Si", thickness_mm=active),
    )  # fmt: skip


def test_a_homogeneous_stack_is_its_material() -> None:
    eff = effective(load_detector("pbwo4").described_stack())
    lead_tungstate = material("G4_PbWO4")
    assert eff.radiation_length_mm == pytest.approx(lead_tungstate.radiation_length_mm)
    assert eff.moliere_radius_mm == pytest.approx(lead_tungstate.moliere_radius_mm)
    assert eff.sampling_fraction == pytest.approx(1.0)


def test_one_material_in_two_layers_is_that_material() -> None:
    both = Layer(material="G4_Fe", thickness_mm=2.0)
    eff = effective(Stack(inner_radius_mm=1, layers=1, absorber=both, active=both))
    assert eff.radiation_length_mm == pytest.approx(material("G4_Fe").radiation_length_mm)
    assert eff.critical_energy_mev == pytest.approx(material("G4_Fe").critical_energy_mev)
    assert eff.sampling_fraction == pytest.approx(0.5)


def test_more_absorber_samples_less_and_is_denser() -> None:
    found = [effective(stack(d)) for d in (0.5, 1.0, 2.0, 4.0)]
    assert all(
        a.sampling_fraction > b.sampling_fraction for a, b in zip(found, found[1:], strict=False)
    )
    assert all(
        a.radiation_length_mm > b.radiation_length_mm
        for a, b in zip(found, found[1:], strict=False)
    )


# Fully simulated sampling fractions (LEMURS); electrons sample less than a minimum-ionising particle.
@pytest.mark.parametrize(
    ("name", "published"),
    [("par04-siw", 0.0321), ("par04-scipb", 0.0330), ("odd-ecal", 0.0255), ("fccee-cld", 0.0257)],
)
def test_e_over_mip_of_the_named_detectors(name: str, published: float) -> None:
    eff = effective(load_detector(name).described_stack())
    assert 0.5 < published / eff.sampling_fraction < 1.0


@pytest.mark.parametrize("name", named_detectors())
def test_descriptors_are_finite_and_of_order_one(name: str) -> None:
    numbers = descriptors(load_detector(name))
    assert numbers.shape == (len(DESCRIPTOR_NAMES),)
    assert np.isfinite(numbers).all() and np.abs(numbers).max() < 10


def test_descriptors_tell_detectors_apart() -> None:
    table = np.stack([descriptors(load_detector(n)) for n in named_detectors()])
    assert len(np.unique(table, axis=0)) == len(table)


def test_only_the_cells_differ_when_the_mesh_does(siw: Detector) -> None:
    wider = siw.model_copy(update={"mesh": siw.mesh.model_copy(update={"cell_r_mm": 9.3})})
    changed = descriptors(wider) != descriptors(siw)
    assert [n for n, c in zip(DESCRIPTOR_NAMES, changed, strict=True) if c] == ["cell_r_moliere"]
