import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from caloforge.evaluate.differences import energy_bins
from caloforge.evaluate.observables import QUANTITIES, measure
from caloforge.evaluate.plots import figures

WANTED = {
    *QUANTITIES, "response_vs_energy", "resolution_vs_energy", "longitudinal_profile",
    "radial_profile", "azimuthal_profile", "layer_energy", "cell_spectrum", "average_shower",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(reference, toy):
    other = measure(toy(300, 2))
    samples = [("Geant4", reference), ("a <b>model</b> & --> more", other)]
    before = dict(mpl.rcParams)
    found = list(figures(samples, energy_bins(reference, other)))
    assert dict(mpl.rcParams) == before, "drawing changed the settings of the process"
    return found


def test_every_figure_is_there_with_title_caption_and_unit(drawn):
    assert {f.name for f in drawn} == WANTED
    for figure in drawn:
        assert figure.title and figure.caption
        quantity = QUANTITIES.get(figure.name)
        if quantity is not None and quantity.unit:
            assert quantity.unit in figure.caption


def test_figures_are_sound_and_stand_alone(drawn):
    for figure in drawn:
        ElementTree.fromstring(figure.svg.replace("xlink:href", "href"))
        assert "http" not in figure.svg
        assert "<b>" not in figure.svg


def test_identifiers_are_unique_and_every_reference_has_its_target(drawn):
    page = "".join(f.svg for f in drawn)
    known = re.findall(r'\bid="([^"]+)"', page)
    assert len(known) == len(set(known))
    used = re.findall(r'(?:href="|url\()#([^")]+)', page)
    assert used and set(used) <= set(known)


def test_colours_follow_the_page(drawn):
    for figure in drawn:
        assert "currentColor" in figure.svg
        assert figure.name == "average_shower" or {"var(--curve-0)", "var(--curve-1)"} <= set(
            re.findall(r"var\(--curve-\d\)", figure.svg)
        )


def test_the_same_showers_give_the_same_picture(reference):
    first, second = (
        next(figures([("a", reference), ("b", reference)], energy_bins(reference, reference))).svg
        for _ in range(2)
    )
    assert first == second


def test_three_samples_and_odd_showers_can_be_drawn(reference, toy):
    showers = toy(100, 3)
    single = measure(showers.with_(energy=np.full(100, 5e4)))
    empty = measure(showers.with_(deposit=showers.deposit * 0))
    bins = [(a, b, b) for a, b in energy_bins(empty, single)]
    samples = [("one", empty), ("two", single), ("three", reference)]
    assert len(list(figures(samples, bins))) == len(WANTED)


def test_importing_the_report_loads_no_plotting():
    code = (
        "import sys, caloforge.evaluate.report;"
        "sys.exit(bool({'matplotlib', 'sklearn', 'mplhep', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
