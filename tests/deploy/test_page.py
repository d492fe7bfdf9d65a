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
import warnings
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
TOOLS = ("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(tool) is None for tool in TOOLS),
    reason=f"no ONNX: pip install {' '.join(TOOLS)}",
)
pytestmark = needs_onnx


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
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


# --- the file ---------------------------------------------------------------------------------


def test_the_same_models_give_the_same_page(exported, written, tmp_path, capsys):
    again = tmp_path / "again.html"
    assert main(["page", *map(str, exported), "--out", str(again)]) == 0
    assert again.read_bytes() == written.read_bytes()
    assert f"wrote {again}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [again]


def test_the_page_refers_to_nothing_outside(written):
    text = re.sub(r'<script type="text/plain".*?</script>', "", written.read_text("utf-8"))
    links = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"' >]*)|url\(([^)]*)""", text)
    assert [link for pair in links for link in pair if link] == ["data:,"]
    assert "default-src 'none'" in text and "connect-src" not in text


def test_two_models_of_one_detector_keep_their_names_apart(exported, tmp_path):
    other = tmp_path / "other.onnx"
    shutil.copy(exported[0], other)
    text = write_page([exported[0], other], tmp_path / "page.html").read_text("utf-8")
    assert '"par04-siw (par04-siw)"' in text and '"par04-siw (other)"' in text


def test_the_runtime_is_the_published_one():
    folder = Path(module.__file__).parent / "web" / "onnxruntime"
    sums = re.findall(r"\| `([^`]+)` \|.*`([0-9a-f]{64})`", (folder / "README.md").read_text())
    assert {name for name, _ in sums} == {p.name for p in folder.iterdir()} - {"README.md"}
    for name, expected in sums:
        content = (folder / name).read_bytes()
        content = lzma.decompress(content) if name.endswith(".xz") else content
        assert hashlib.sha256(content).hexdigest() == expected, name


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"units": None}, "no metadata of caloforge (units)"),
        ({"target": "par04"}, "of target par04"),
        ({"pdg": "electron"}, "odd metadata"),
        ({"n_r": "nine"}, "odd metadata"),
        ({"detector": "name = 3"}, "line 1"),
    ],
)
def test_an_export_that_breaks_the_contract_is_refused(exported, tmp_path, changed, complaint):
    import onnx

    model = onnx.load(exported[0])
    metadata = {p.key: p.value for p in model.metadata_props} | changed
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in metadata.items() if v is not None})
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with pytest.raises(RequestError, match=re.escape(complaint)):
        write_page([broken], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x00" * 40, bytes(range(256)) * 16])
def test_a_file_that_is_no_model_is_refused_in_a_line(tmp_path, capsys, content):
    wrong, out = tmp_path / "wrong.onnx", tmp_path / "page.html"
    if content is not None:
        wrong.write_bytes(content)
    assert main(["page", str(wrong), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(wrong) in said
    assert not out.exists()


def test_a_model_is_never_overwritten(exported):
    before = exported[0].read_bytes()
    with pytest.raises(RequestError, match="overwrite"):
        write_page(exported, exported[0])
    with pytest.raises(RequestError, match="name one"):
        write_page([], exported[0].with_name("page.html"))
    assert exported[0].read_bytes() == before


def test_without_onnx_the_remedy_is_named(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RequestError, match="pip install"):
        write_page(exported, tmp_path / "page.html")


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


def opened(browser, written, width=1440, **options):
    """The page from disk, without a network, after its first shower."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    page = context.new_page()
    page.troubles, page.asked = [], []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda wanted: page.asked.append(wanted.url))
    page.on("console", lambda m: page.troubles.append(m.text) if m.type == "error" else None)
    page.goto(written.as_uri())
    page.wait_for_selector("body[data-shower]", timeout=60_000)
    return page


@pytest.fixture(scope="module")
def page(browser, written):
    page = opened(browser, written)
    yield page
    page.context.close()


def drawn(page):
    """How many pixels of the canvas are painted, and a sum that tells two drawings apart."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate(
        """() => {
          const c = document.getElementById("scene"), p = c.getContext("2d");
          const d = p.getImageData(0, 0, c.width, c.height).data;
          let n = 0, sum = 0;
          for (let k = 0; k < d.length; k += 4) if (d[k + 3]) { n++; sum = (sum * 31 + d[k] + k) % 1e9; }
          return [n, sum];
        }"""
    )


def numbers(page):
    return page.evaluate(
        "(({seed, visible, hits, layers}) => [seed, visible, hits, ...layers])(caloforge.shower())"
    )


def settled(page, seed):
    page.locator("#seed").fill(str(seed))
    page.wait_for_selector(f"body[data-shower='{seed}']")
    page.evaluate("new Promise(done => setTimeout(done, 100))")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_opens_from_disk_alone_and_draws(browser, written, width, scheme):
    page = opened(browser, written, width, color_scheme=scheme)
    assert drawn(page)[0] > 5000
    page.locator("#licences summary").click()
    page.wait_for_selector("text=THIRD PARTY SOFTWARE NOTICES")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.troubles == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in page.asked)
    page.context.close()


@in_browser
def test_the_page_may_not_speak_to_anybody(browser, written):
    page = opened(browser, written)
    asked = len(page.asked)
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => '', e => e.name)")
    assert refused == "TypeError" and "Content Security Policy" in " ".join(page.troubles)
    assert len(page.asked) == asked
    page.context.close()


@in_browser
def test_a_shower_takes_less_than_a_second_from_click_to_picture(page):
    before = drawn(page)
    took = page.evaluate(
        """async () => {
          const start = performance.now(), before = document.body.dataset.shower;
          document.getElementById("new").click();
          const frame = () => new Promise(requestAnimationFrame);
          while (document.body.dataset.shower === before) await frame();
          await frame();
          return performance.now() - start;
        }"""
    )
    assert took < 1000
    assert drawn(page) != before


@in_browser
def test_the_first_shower_too(browser, written):
    page = opened(browser, written)
    assert page.evaluate("caloforge.shower().ms") < 1000
    page.context.close()


@in_browser
def test_the_same_seed_gives_the_same_shower(page):
    settled(page, 5)
    first, picture = numbers(page), drawn(page)
    settled(page, 6)
    assert numbers(page) != first and drawn(page) != picture
    settled(page, 5)
    page.locator("#seed").press("Enter")  # accepts the seed, and does not go on to the next
    assert numbers(page) == first and drawn(page) == picture


@in_browser
@pytest.mark.parametrize("k", range(len(DETECTORS)))
def test_the_browser_agrees_with_onnxruntime(page, exported, k):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported[k]))
    rng = np.random.default_rng(k)
    conditions = np.array([[1e3, 1.0, 0.0, 11], [3e4, 1.5, 2.0, 22]], np.float32)
    noise = rng.normal(size=(2, session.get_inputs()[1].shape[1])).astype(np.float32)
    (expected,) = session.run(None, {"conditions": conditions, "noise": noise})
    got = page.evaluate(
        "async ([c, n, k]) => Array.from(await caloforge.run(c, n, k))",
        [conditions.ravel().tolist(), noise.ravel().tolist(), k],
    )
    got = np.reshape(got, expected.shape)
    np.testing.assert_allclose(got.sum((1, 2, 3)), expected.sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@in_browser
def test_what_is_said_of_a_shower_follows_from_its_cells(page, exported):
    settled(page, 9)
    shower = page.evaluate(
        """async () => {
          const {conditions, model: {noise}, visible, hits, layers, points} = caloforge.shower();
          const voxels = await caloforge.run(conditions, caloforge.normals(9, noise));
          return {voxels: Array.from(voxels), visible, hits, layers: Array.from(layers), points};
        }"""
    )
    mesh = load_detector(DETECTORS[0]).mesh
    voxels = np.reshape(shower["voxels"], mesh.shape)  # (R, PHI, Z)
    assert math.isclose(shower["visible"], voxels.sum(), rel_tol=1e-6)
    np.testing.assert_allclose(shower["layers"], voxels.sum((0, 1)), rtol=1e-6)
    assert shower["hits"] == len(shower["points"]) == (voxels >= 5e-4).sum()
    point = max(shower["points"], key=lambda p: p["e"])
    r, phi, z = np.unravel_index(voxels.argmax(), voxels.shape)
    assert point["cell"] == [r, phi, z]
    rho, turn, depth = mesh.centres_r[r], mesh.centres_phi[phi], mesh.centres_z[z]
    place = [rho * np.cos(turn), rho * np.sin(turn), depth]
    np.testing.assert_allclose([point[axis] for axis in "xyz"], place, rtol=1e-6)


def xoshiro(state):
    """xoshiro128** of Blackman and Vigna in plain integers (doi:10.1145/3460772)."""
    s, mask = list(state), 2**32 - 1

    def turned(x, k):
        return ((x << k) | (x >> (32 - k))) & mask

    while True:
        yield turned(s[1] * 5 & mask, 7) * 9 & mask
        t = s[1] << 9 & mask
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = turned(s[3], 11)


@in_browser
def test_the_noise_is_the_generator_that_is_named(page):
    words = page.evaluate(
        "(() => { const f = caloforge.xoshiro([1, 2, 3, 4]); return [...Array(2000)].map(f); })()"
    )
    ours = xoshiro([1, 2, 3, 4])
    # The first words of the authors' code from this state.
    assert words[:4] == [11520, 0, 5927040, 70819200]
    assert words == [next(ours) for _ in words]


@in_browser
def test_the_noise_is_normal_and_differs_from_seed_to_seed(page):
    n = 100_001  # odd: the last pair is cut
    first, same, other = (
        np.array(page.evaluate(f"Array.from(caloforge.normals({seed}, {n}))"))
        for seed in (0, 0, 2**32 - 1)
    )
    np.testing.assert_array_equal(first, same)
    for sample in (first, other):
        assert abs(sample.mean()) < 5 / math.sqrt(n)
        assert abs(sample.var() - 1) < 5 * math.sqrt(2 / n)
        assert abs((sample**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs(np.corrcoef(first, other)[0, 1]) < 5 / math.sqrt(n)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(n)


@in_browser
def test_every_control_reaches_the_model(browser, written):
    page = opened(browser, written)
    start = page.evaluate("caloforge.shower().visible")
    page.locator("#energy").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(300)
    assert page.locator("#energy-said").inner_text() == "100 GeV"
    assert math.isclose(page.evaluate("caloforge.shower().visible") / start, 5, rel_tol=0.3)
    page.locator("#detector").select_option("1")
    page.get_by_text("photon").click()
    page.locator("#theta").fill("1.2")
    page.locator("#phi").fill("0.5")
    page.wait_for_timeout(300)
    now = page.evaluate("[caloforge.shower().model.name, ...caloforge.shower().conditions]")
    assert now[0] == DETECTORS[1] and np.allclose(now[1:], [1e5, 1.2, 0.5, 22], atol=1e-3)
    assert page.troubles == []
    page.context.close()


@in_browser
def test_the_mean_counts_every_seed_once_and_begins_anew(browser, written):
    page = opened(browser, written)
    page.locator("#more").click()
    page.wait_for_selector("body[data-showers='21']")
    assert page.locator("#mean-said").inner_text() == "mean of 21 showers"
    settled(page, 3)
    assert page.locator("#mean-said").inner_text() == "mean of 21 showers"
    page.locator("#energy").fill("0.25")
    page.wait_for_selector("body[data-showers='1']")
    assert page.troubles == []
    page.context.close()


@in_browser
def test_it_turns_by_mouse_and_by_keyboard_and_reads_a_cell(page):
    seen = [drawn(page)]
    page.locator("#scene").scroll_into_view_if_needed()
    box = page.locator("#scene").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30, steps=5)
    page.mouse.up()
    seen.append(drawn(page))
    for key in ("ArrowUp", "ArrowLeft", "+"):
        page.locator("#scene").press(key)
        seen.append(drawn(page))
    assert len({total for _, total in seen}) == len(seen)
    page.locator("#scene").press("Home")
    assert page.evaluate("caloforge.camera.near") == pytest.approx(1)
    drawn(page)
    page.mouse.move(middle[0] + 1, middle[1])
    assert re.fullmatch(r"[\d.]+ MeV at r \d+, φ \d+, z \d+", page.locator("#status").inner_text())
