import numpy as np
import pytest

from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.evaluate.binning import DATASET_1, Binning, read_binning

MESH = Mesh(n_r=9, n_phi=16, n_z=45, cell_r_mm=4.65, cell_z_mm=3.4)


def test_a_mesh_becomes_layers_in_the_order_of_the_challenge():
    binning = Binning.of_mesh(MESH, 5e-4)
    assert binning.n_voxels == 6480 and binning.offsets[1] == 144
    assert binning.cut == pytest.approx(0.01515, rel=1e-3)  # 15.15 keV
    x, y, r = binning.layers[0].centres()
    # The ring is fastest; sector 0 starts at -pi, so the first voxel lies at x < 0 and y < 0.
    np.testing.assert_allclose(r[:9], MESH.centres_r)
    np.testing.assert_allclose(np.arctan2(y, x)[::9], MESH.centres_phi)
    np.testing.assert_allclose(np.hypot(x, y), r)


def test_published_histograms_of_dataset_2_and_their_growth():
    limits = Binning.of_mesh(MESH, 5e-4).limits(0)
    assert (limits.centre, limits.width, limits.radius, limits.radial_width) == (30, 30, 42, 20)
    wide = Binning.of_mesh(MESH.model_copy(update={"cell_r_mm": 9.3}), 5e-4).limits(0)
    assert wide.centre == pytest.approx(60)


@pytest.mark.parametrize(("size", "layers", "in_alpha"), [(368, 5, 2), (533, 7, 4)])
def test_dataset_1_has_its_voxels(size, layers, in_alpha):
    binning = DATASET_1[size]
    assert binning.n_voxels == size and binning.cut == 1.0
    assert len(binning.layers) == layers and len(binning.in_alpha) == in_alpha
    assert [layer.number for layer in binning.layers][:5] == [0, 1, 2, 3, 12]
    assert binning.limits(layers - 1).radius == 1500


XML = """<Bins><Bin pid="22" name="photon">
<Layer id="0" r_edges="0,5,10" n_bin_alpha="1" /><Layer id="1" r_edges="0" n_bin_alpha="1" />
<Layer id="2" r_edges="0,2,4,8" n_bin_alpha="10" /></Bin></Bins>"""


def test_a_binning_xml_is_read_and_empty_layers_are_left_out(tmp_path):
    (tmp_path / "b.xml").write_text(XML)
    binning = read_binning(tmp_path / "b.xml")
    assert [(layer.number, layer.size) for layer in binning.layers] == [(0, 2), (2, 30)]
    assert binning.in_alpha == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Bins>", "no binning XML"),
        ("<Bins></Bins>", "no layer"),
        (XML.replace("0,5,10", "0,5,x"), "no binning XML"),
        (XML.replace("0,5,10", "0,5,4"), "no binning XML"),
    ],
)
def test_what_is_no_binning_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "b.xml").write_text(text)
    with pytest.raises(RequestError, match=words) as caught:
        read_binning(tmp_path / "b.xml")
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="there is no binning"):
        read_binning(tmp_path / "absent.xml")
