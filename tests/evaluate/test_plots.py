import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from caloforge.evaluate.observables import QUANTITIES, measure
from caloforge.evaluate.plots import figures
from caloforge.evaluate.resolution import angle_bins, energy_bins, fit_resolution

WANTED = {
    *QUANTITIES, "response_vs_energy", "resolution_vs_energy", "longitudinal_profile",
    "response_vs_theta", "resolution_vs_theta", "radial_profile", "azimuthal_profile", "occupancy",
    "layer_energy", "cell_spectrum", "average_shower", "layer_correlation",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(reference, toy):
    other = measure(toy(300, 2))
    samples = [("Geant4", reference), ("a <b>model</b> & --> more", other)]
    before = dict(mpl.rcParams)
    bins = energy_bins(reference, other)
    fits = [fit_resolution([pair[k] for pair in bins]) for k in (0, 1)]
    found = list(figures(samples, bins, angle_bins(reference, other), fits))
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
        assert figure.name in ("average_shower", "layer_correlation") or {
            "var(--curve-0)",
            "var(--curve-1)",
        } <= set(re.findall(r"var\(--curve-\d\)", figure.svg))


def test_the_same_showers_give_the_same_picture(reference):
    bins, angles = energy_bins(reference, reference), angle_bins(reference, reference)
    first, second = (
        next(figures([("a", reference), ("b", reference)], bins, angles)).svg for _ in range(2)
    )
    assert first == second


def test_three_samples_and_odd_showers_can_be_drawn(reference, toy):
    showers = toy(100, 3)
    single = measure(showers.with_(energy=np.full(100, 5e4)))
    empty = measure(showers.with_(deposit=showers.deposit * 0))
    bins, angles = ([(a, b, b) for a, b in cut(empty, single)] for cut in (energy_bins, angle_bins))
    samples = [("one", empty), ("two", single), ("three", reference)]
    assert len(list(figures(samples, bins, angles))) == len(WANTED)


def test_importing_the_report_loads_no_plotting():
    code = (
        "import sys, caloforge.evaluate.report, caloforge.evaluate.validation;"
        "sys.exit(bool({'matplotlib', 'sklearn', 'mplhep', 'jinja2', 'torch', 'plotly'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
