"""The verb as a whole: several models, a floor of their own, known changes of real showers."""

import json
import re

import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.evaluate import report, validation
from caloforge.evaluate.maps import Figure
from caloforge.evaluate.validation import Options, named_classifiers, validate
from caloforge.quickstart import shipped_reference
from caloforge.showers.formats import read_showers

QUICK = Options(neighbours=200, classifiers=())


@pytest.fixture
def undrawn(monkeypatch):
    """Draw one figure instead of all, where they are not the point."""
    figure = Figure("x", "X", "x (mm)", "<svg></svg>")
    monkeypatch.setattr(report, "figures", lambda *_: iter([figure]))
    monkeypatch.setattr(validation, "distance_metrics", lambda *_: [])


@pytest.fixture(scope="module")
def several(toy, tmp_path_factory):
    """Two models, one of them dim with holes, with a floor and a timing."""
    out = tmp_path_factory.mktemp("several")
    dim = toy(800, 5)
    kept = np.random.default_rng(0).random(len(dim.deposit)) < 0.6
    models = [toy(800, 2), dim.with_(deposit=dim.deposit * kept)]
    rows = [{"batch": 1, "ms": 12.5, "error": 0.5, "repeats": 10, "note": "12.5 +- 0.5 ms"},
            {"batch": 10_000, "ms": None, "error": 0.0, "repeats": 0, "note": "not measured"}]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        from caloforge.evaluate import contest, networks

        patch.setattr(contest, "EPOCHS", 12)
        patch.setattr(networks, "_BATCH", 100)
        patch.setattr(networks, "_WIDTH", 64)
        patch.setattr(networks, "_RATE", 2e-3)
        record = validate(
            toy(800, 1), models, out, toy(800, 4), labels=("Geant4", "good", "holes"),
            options=Options(neighbours=300, trainings=1),
            timings={"good": {"device": "cpu (x)", "threads": 1, "rows": rows}},
        )  # fmt: skip
    return record, (out / "report.html").read_text("utf-8")


def test_the_better_model_is_named_first_by_all(several):
    record, _ = several
    assert record["verdict"]["headline"].startswith("Closest to Geant4 of 2: good")
    posterior = {name: value["value"] for name, value in record["log_posterior"].items()}
    assert posterior["good"] > posterior["chance"] > posterior["holes"]
    assert "taken for those of good" in record["verdict"]["paragraph"]
    assert [m["label"] for m in record["models"]] == ["good", "holes"]
    assert record["floor"] == "file" and record["sample_size"] == 800


def test_each_model_has_everything(several):
    record, text = several
    json.dumps(record, allow_nan=False)
    for model in record["models"]:
        kinds = {m["kind"] for m in model["metrics"]}
        assert kinds == {"difference", "spread", "tail", "separation", "wasserstein", "distance",
                         "score", "classifier"}  # fmt: skip
        assert len(model["challenge_separations"]) == 2 + 12 * 8
        assert model["resolution_fit"]["generated"]["stochastic"]["error"] > 0
        assert len(model["trust"]["cells"]) == 12 and model["seconds"]
    assert all(text.count(f"<summary>{name}</summary>") == 3 for name in ("good", "holes"))
    assert "12.5 ± 0.5" in text and "not measured" in text
    assert 'id="glance"' in text and "Mean log-posterior for Geant4" in text


def test_missing_cells_are_called_hits_first(several):
    findings = several[0]["models"][1]["verdict"]["findings"]
    assert findings[0].startswith("hits per shower"), findings
    number = re.search(r"-(\d+\.\d+)", findings[0])
    assert number and abs(float(number[1]) - 40) < 2


@pytest.fixture(scope="module")
def geant4():
    """Real Geant4 showers: 500 to compare with, 500 others to change."""
    showers = read_showers(shipped_reference())
    return showers[:500], showers[500:]


def judged(geant4, change, out):
    reference, other = geant4
    return validate(reference, change(other), out, options=QUICK)["models"][0]


def named(model):
    return {m["name"]: m for m in model["metrics"]}


def test_geant4_is_not_told_from_itself(geant4, tmp_path, undrawn):
    reference, other = geant4
    model = validate(reference, other, tmp_path, options=Options(neighbours=200))["models"][0]
    assert model["verdict"]["headline"].startswith("No difference")
    auc = named(model)["classifier.auc"]
    assert abs(auc["value"] - 0.5) < 2.5 * auc["error"]
    # Of about 90 numbers none may be far off, and few beyond two standard deviations.
    sizes = [m["sigmas"] if m["ideal"] is None else abs(m["sigmas"]) for m in model["metrics"]]
    assert max(sizes) < 4 and np.mean(np.array(sizes) > 2) < 0.1


def test_a_scale_of_two_per_cent_is_called_response(geant4, tmp_path, undrawn):
    model = judged(geant4, lambda s: s.with_(deposit=s.deposit * np.float32(1.02)), tmp_path)
    assert model["verdict"]["findings"][0].startswith("mean response +")
    ratio = named(model)["response.ratio"]
    assert abs(ratio["value"] - 1.02) < 3 * ratio["error"] < 0.01


def test_layers_shifted_by_one_are_called_depth(geant4, tmp_path, undrawn):
    def shift(showers):
        layer = showers.cell.astype(int) % 45
        moved = np.where(layer < 44, showers.cell + 1, showers.cell).astype(showers.cell.dtype)
        return showers.with_(cell=moved, deposit=showers.deposit * (layer < 44))

    model = judged(geant4, shift, tmp_path)
    assert model["verdict"]["findings"][0].startswith("longitudinal first moment +")
    moved = named(model)["z_mean.shift"]
    assert abs(moved["value"] - 3.4) < 3 * moved["error"] < 1


def test_shuffled_sectors_are_called_azimuthal(geant4, tmp_path, undrawn):
    def shuffle(showers):
        order = np.random.default_rng(1).permutation(16)
        ring, rest = np.divmod(showers.cell.astype(int), 16 * 45)
        cell = ring * 720 + order[rest // 45] * 45 + rest % 45
        return showers.with_(cell=cell)

    model = judged(geant4, shuffle, tmp_path)
    assert "azimuthal" in model["verdict"]["findings"][0]
    assert named(model)["phi_link.shift"]["sigmas"] < -5
    assert abs(named(model)["response.ratio"]["sigmas"]) < 3


def test_dropped_cells_are_called_hits(geant4, tmp_path, undrawn):
    def drop(showers):
        kept = np.random.default_rng(1).random(len(showers.deposit)) > 0.02
        return showers.with_(deposit=showers.deposit * kept)

    model = judged(geant4, drop, tmp_path)
    ratio = named(model)["hits.ratio"]
    assert abs(ratio["value"] - 0.98) < 3 * ratio["error"] < 0.02
    assert named(model)["response.ratio"]["sigmas"] < -3


def test_another_state_of_the_physics_is_told(toy, tmp_path, undrawn):
    made = {"geant4": "11.4.1", "data": "tables 1", "physics": "option 0"}
    reference, other, floor = (
        toy(100, k).with_(provenance={**made, "data": f"tables {n}"})
        for k, n in ((3, 1), (5, 1), (6, 2))
    )
    record = validate(reference, other, tmp_path, floor, options=QUICK)
    assert record["warnings"] == [
        "The floor showers were made with data sets 'tables 2', the reference with 'tables 1'."
    ]


def test_classifiers_are_chosen_by_name():
    assert named_classifiers("all") == ("trees", "features", "voxels", "resnet")
    assert named_classifiers("none") == ()
    assert named_classifiers("voxels, trees") == ("voxels", "trees")
    with pytest.raises(RequestError, match="no classifier is called 'tree'"):
        named_classifiers("tree")
    with pytest.raises(RequestError, match="at least 1 training"):
        Options(trainings=0)


def test_labels_must_fit(toy, tmp_path):
    for labels in (("Geant4",), ("Geant4", "a", "b"), ("a", "a")):
        with pytest.raises(RequestError, match="different labels"):
            validate(toy(100, 3), toy(100, 5), tmp_path / "out", labels=labels)
    with pytest.raises(RequestError, match="at least one file"):
        validate(toy(100, 3), [], tmp_path / "out", labels=("Geant4",))
    assert not (tmp_path / "out").exists()
