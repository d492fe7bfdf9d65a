import base64
import gzip
import json

import numpy as np

from caloforge.evaluate.gallery import packed_plotly, showers_3d
from caloforge.evaluate.observables import measure


def test_showers_are_where_their_cells_are(toy):
    first, second = toy(800, 1), toy(300, 2)
    samples = [measure(first), measure(second)]
    made = showers_3d(["Geant4", "other"], [first, second], samples, 5e-4)
    assert [panel["label"] for panel in made["panels"]] == ["Geant4", "other"]
    assert all(len(panel["showers"]) == len(made["names"]) == 4 for panel in made["panels"])
    chosen = np.argsort(first.energy)[80]
    shower = first[chosen : chosen + 1]
    points = made["panels"][0]["showers"][0]
    energy = 10 ** np.array(points["c"])
    assert energy.sum() == np.float64(energy.sum())
    np.testing.assert_allclose(energy.sum(), shower.visible()[0], rtol=0.02)
    depth = (energy * points["z"]).sum() / energy.sum()
    np.testing.assert_allclose(depth, measure(shower).z_mean[0], rtol=0.02)
    assert np.hypot(points["x"], points["y"]).max() < made["radius"]
    json.dumps(made, allow_nan=False)


def test_the_partner_is_the_nearest_primary(toy):
    first = toy(800, 1)
    samples = [measure(first), measure(first)]
    made = showers_3d(["a", "b"], [first, first], samples, 5e-4)
    assert made["panels"][0]["showers"] == made["panels"][1]["showers"]


def test_empty_showers_can_be_shown(toy):
    empty = toy(100, 3).with_(deposit=toy(100, 3).deposit * 0)
    made = showers_3d(["a"], [empty], [measure(empty)], 5e-4)
    assert made["panels"][0]["showers"][0]["c"] == []


def test_the_script_is_whole_after_unpacking():
    script = gzip.decompress(base64.b64decode(packed_plotly())).decode("utf-8")
    assert "Plotly" in script and "scatter3d" in script
    assert "</script" not in packed_plotly()
