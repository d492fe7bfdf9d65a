"""The report in a real browser: no errors, nothing outside the frame, showers that turn.

Needs Chromium (`apt install chromium`, or CHROMIUM=/path/to/it); continuous integration has it.
"""

import os
import shutil
from pathlib import Path

import pytest

from caloforge.evaluate.observables import QUANTITIES
from caloforge.evaluate.validation import Options, validate
from caloforge.quickstart import shipped_reference
from caloforge.showers.formats import read_showers

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
SWITCHES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of two samples of real showers, with a long name among the labels."""
    out = tmp_path_factory.mktemp("browser")
    showers = read_showers(shipped_reference())
    bright = showers[600:900].with_(deposit=showers[600:900].deposit * 1.05)
    with pytest.MonkeyPatch.context() as patch:
        from caloforge.evaluate import contest, networks

        patch.setattr(contest, "EPOCHS", 2)
        patch.setattr(networks, "_WIDTH", 32)
        validate(
            showers[:300], [showers[300:600], bright], out,
            labels=("Geant4", "a_model_with_a_rather_long_name_v2", "bright"),
            options=Options(neighbours=100, trainings=1),
        )  # fmt: skip
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture(params=[390, 1440], ids=["phone", "desk"])
def page(request, browser, report: Path):
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    opened.troubles, opened.asked = [], []
    opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
    opened.on("request", lambda wanted: opened.asked.append(wanted.url))
    opened.on("console", lambda m: opened.troubles.append(m.text) if m.type == "error" else None)
    opened.goto(report.as_uri())
    yield opened
    opened.close()


def test_the_page_opens_without_errors_network_or_overflow(page):
    page.locator("#showers").scroll_into_view_if_needed()
    page.wait_for_selector("body[data-turning=ready]", timeout=60_000)
    assert page.troubles == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in page.asked)
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_figure_is_seen(page):
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => "
        "[f.id, f.querySelector('svg').getBoundingClientRect().height])"
    )
    assert {f"figure-{name}" for name in QUANTITIES} < {name for name, _ in boxes}
    assert len(boxes) == len(QUANTITIES) + 12 and min(height for _, height in boxes) > 100
    # One column on a phone, several on a desk.
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('figure')]"
        ".map(f => Math.round(f.getBoundingClientRect().left))).size"
    )
    assert (columns == 1) == (page.viewport_size["width"] == 390)


def test_showers_turn_and_can_be_chosen(page):
    page.locator("#showers").scroll_into_view_if_needed()
    page.wait_for_selector("body[data-turning=ready]", timeout=60_000)
    page.wait_for_selector("#scene-2 canvas", timeout=30_000)
    eye = "JSON.stringify(document.getElementById('scene-0')._fullLayout.scene._scene.getCamera().eye)"
    before, text = page.evaluate(eye), page.locator("#text-0").inner_text()
    box = page.locator("#scene-0").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert page.evaluate(eye) != before
    page.locator("#which").select_option("3")
    assert page.locator("#text-0").inner_text() != text
    points = page.evaluate("document.getElementById('scene-1').data[0].x.length")
    assert points > 50 and page.troubles == []


def test_it_can_be_printed(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000
    page.close()
