"""Detector files: every named one is valid, every mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from caloforge.detector.detector import load_detector, named_detectors, parse_detector
from caloforge.errors import RequestError

TEXT = """name = "mine"
[stack]
inner_radius_mm = 800
layers = 10
absorber = { material = "G4_W", thickness_mm = 1.4 }
active = { material = "G4_Si", thickness_mm = 0.3 }
[mesh]
n_r = 9
n_phi = 16
n_z = 45
cell_r_mm = 4.65
cell_z_mm = 3.4
"""

MISTAKES = {
    "unknown key": ("layers = 10", "layers = 10\nlayer = 3", r"line 5.*unknown key 'stack.layer'"),
    "zero": ("thickness_mm = 0.3", "thickness_mm = 0", r"line 6.*greater than 0"),
    "negative": ("thickness_mm = 1.4", "thickness_mm = -1", r"line 5.*greater than 0"),
    "material": ("G4_Si", "G4_Sillicon", r"line 6.*unknown material 'G4_Sillicon'.*G4_Si"),
    "missing": ("layers = 10\n", "", r"line 2.*'stack.layers' is missing"),
    "word": ("n_phi = 16", 'n_phi = "many"', r"line 9.*mesh.n_phi"),
    "toml": ("n_r = 9", "n_r = = 9", r"no valid TOML.*line 8"),
    "no geometry": (
        TEXT[TEXT.index("[stack]") : TEXT.index("[mesh]")],
        "",
        r"\[stack\] or a \[gdml\]",
    ),
    "infinite": ("cell_z_mm = 3.4", "cell_z_mm = inf", r"line 12.*finite"),
}


@pytest.mark.parametrize("name", named_detectors())
def test_named_detectors_survive_the_round_trip(name: str) -> None:
    detector = load_detector(name)
    assert detector.name == name
    assert parse_detector(detector.to_toml()) == detector


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(mistake: str) -> None:
    old, new, message = MISTAKES[mistake]
    assert old in TEXT
    with pytest.raises(RequestError, match=message) as error:
        parse_detector(TEXT.replace(old, new), "mine.toml")
    assert "\n" not in str(error.value)


def test_a_file_is_opened_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    assert load_detector(path).stack == parse_detector(TEXT).stack


def test_homogeneous_without_absorber() -> None:
    stack = load_detector("pbwo4").described_stack()
    assert stack.absorber is None
    assert stack.pitch_mm == stack.active.thickness_mm


def test_gdml_is_resolved_beside_the_detector_file(tmp_path: Path) -> None:
    gdml = '[gdml]\nfile = "box.gdml"\nsensitive = ["Si.*"]\nentrance = "calo"\n'
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n' + gdml + TEXT[TEXT.index("[mesh]") :])
    with pytest.raises(RequestError, match=r"no GDML file.*box\.gdml"):
        load_detector(path)
    (tmp_path / "box.gdml").write_text("<gdml/>")
    found = load_detector(path)
    assert found.gdml is not None and found.gdml.file == (tmp_path / "box.gdml").resolve()
    with pytest.raises(RequestError, match=r"has no \[stack\]"):
        found.described_stack()


def test_a_broken_regular_expression_is_named() -> None:
    text = (
        'name="m"\n[gdml]\nfile="a"\nsensitive=["("]\nentrance="c"\n' + TEXT[TEXT.index("[mesh]") :]
    )
    with pytest.raises(RequestError, match="no regular expression"):
        parse_detector(text)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="par04-siw"):
        load_detector("par04-sci")
