import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.evaluate import report, validation
from caloforge.evaluate.maps import Figure
from caloforge.evaluate.observables import QUANTITIES
from caloforge.evaluate.validation import FORMAT, Options, validate

FIELDS = {
    "name", "observable", "title", "kind", "unit", "value", "error", "floor", "floor_error",
    "ideal", "sigmas", "definition", "matched",
}  # fmt: skip


class Page(HTMLParser):
    """Collects tags and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A validation of a sample that is 4 % too bright, with labels that want escaping."""
    out = tmp_path_factory.mktemp("made") / "deep" / "report"
    showers = toy(800, 2)
    bright = showers.with_(
        deposit=showers.deposit * np.float32(1.04), provenance={"model": "<i>x</i>"}
    )
    record = validate(toy(800, 1), bright, out, labels=("Geant4", "<b>fast</b> & light"))
    return out, record


def test_the_numbers_are_complete(made):
    out, record = made
    stored = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(record))
    assert stored["format"] == FORMAT
    (model,) = stored["models"]
    for metric in model["metrics"] + model["layers"]:
        assert set(metric) == FIELDS and metric["definition"] and metric["unit"]
        for name in ("value", "error", "floor", "floor_error", "sigmas"):
            assert math.isfinite(metric[name])
    names = [m["name"] for m in model["metrics"]]
    assert len(names) == len(set(names))
    for name in QUANTITIES:
        assert {f"{name}.separation", f"{name}.wasserstein"} < set(names)
    assert {"classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio"} < set(names)
    assert len(model["layers"]) == 2 * 12
    assert [f["showers"] for f in stored["files"]] == [800, 800]
    assert model["energy_bins"][0]["reference"]["response"]["error"] > 0


def test_the_page_has_every_figure_and_loads_nothing(made):
    text = (made[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    ids = {a.get("id") for tag, a in page.tags if tag == "figure"}
    assert {f"figure-{name}" for name in QUANTITIES} < ids
    assert len(ids) == len(QUANTITIES) + 12
    assert sum(tag == "svg" for tag, _ in page.tags) == len(ids)
    assert "http" not in text and "@import" not in text
    assert not {"link", "iframe", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_the_page_says_what_the_numbers_say(made):
    out, record = made
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    seen = re.sub(r"\s+", " ", page.text.replace("\u00a0", " ").replace("\u2212", "-"))
    assert record["verdict"]["headline"] in seen
    assert record["verdict"]["paragraph"] in seen
    assert page.text.index("The worst:") < page.text.index("Every number beside its floor")
    assert record["verdict"]["quote"] in seen
    assert page.text.index("Every number beside its floor") < page.text.index("Figures")


def test_labels_and_provenance_cannot_break_the_page(made):
    text = (made[0] / "report.html").read_text(encoding="utf-8")
    assert "<b>fast" not in text and "<i>x" not in text
    assert "&lt;b&gt;fast" in text and "&lt;i&gt;x" in text


def test_only_the_two_files_are_left(made):
    assert sorted(p.name for p in made[0].iterdir()) == ["metrics.json", "report.html"]


def test_a_floor_file_and_unlike_conditions_are_told(toy, tmp_path, fast):
    showers = toy(800, 2)
    record = validate(
        toy(800, 1),
        showers[showers.energy > 20_000],
        tmp_path / "out",
        toy(800, 4),
        options=Options(3),
    )
    assert record["floor"] == "file" and len(record["files"]) == 3
    assert "incident energy" in record["warnings"][0]
    assert "see the warnings" in record["verdict"]["headline"]
    assert "incident energy of the generated" in (tmp_path / "out" / "report.html").read_text()


def test_another_mesh_is_refused_in_one_line(toy, tmp_path):
    showers = toy(100, 3)
    other = showers.with_(mesh=Mesh(n_r=5, n_phi=8, n_z=12, cell_r_mm=4.0, cell_z_mm=12.0))
    refused(RequestError, "mesh", showers, other, tmp_path / "out")
    refused(RequestError, "floor", showers, showers, tmp_path / "out", other)


def test_too_few_showers_are_refused_with_the_remedy(toy, tmp_path):
    showers = toy(100, 3)
    refused(RequestError, "give at least 40, or a floor", showers[:39], showers, tmp_path / "out")
    refused(RequestError, "give at least 20", showers, showers[:19], tmp_path / "out")


def refused(error: type[Exception], text: str, *arguments: object) -> None:
    """Assert that the request fails in one line and leaves no folder behind."""
    with pytest.raises(error, match=text) as caught:
        validate(*arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not Path(str(arguments[2])).exists()


def test_a_folder_that_cannot_be_written_is_refused(toy, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="cannot write"):
        validate(toy(100, 3), toy(100, 5), tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_work_that_fails_leaves_nothing(toy, tmp_path, monkeypatch, fast):
    def fail(*_: object) -> str:
        raise RuntimeError("no page today")

    monkeypatch.setattr(report, "page", fail)
    with pytest.raises(RuntimeError, match="no page"):
        validate(toy(100, 3), toy(100, 5), tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_work_that_fails_keeps_an_older_report(toy, tmp_path, monkeypatch, fast):
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(report, "page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        validate(toy(100, 3), toy(100, 5), tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_seed_repeats_the_numbers(toy, tmp_path, fast):
    first, second, other = (
        validate(toy(100, 3), toy(100, 5), tmp_path / str(i), options=Options(seed))
        for i, seed in enumerate((0, 0, 1))
    )
    for record in (first, second, other):
        record["models"][0].pop("seconds")
    assert first == second
    assert first["models"][0]["metrics"] != other["models"][0]["metrics"]


@pytest.fixture
def fast(monkeypatch):
    """Draw one figure and skip the slow distances, where they are not the point."""
    monkeypatch.setattr(validation, "distance_metrics", lambda *_: [])
    svg = "<svg></svg>"
    monkeypatch.setattr(report, "figures", lambda *_: iter([Figure("x", "X", "x (mm)", svg)]))


def test_large_numbers_keep_their_unit() -> None:
    plain = {"+(1.2 ± 0.3)e+05 %": "+(1.2 ± 0.3) × 10⁵ %", "3e-05": "3 × 10⁻⁵"}
    for text, wanted in plain.items():
        assert re.sub(r"\s", " ", report._pretty(text)) == wanted
