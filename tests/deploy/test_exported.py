"""An exported file in the event loop: its own seeds, its own range, one clear line when it is bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caloforge.deploy.exported import Exported, noise
from caloforge.deploy.maker import open_maker
from caloforge.detector.detector import Detector, load_detector
from caloforge.errors import RequestError, WorkError
from caloforge.simulate.beam import Beam, Primaries, event_seeds


def asked(n: int = 6) -> Primaries:
    return Beam("e-,gamma", (2e3, 5e4)).primaries(3, 0, n)


def test_a_shower_follows_from_its_seed_whatever_the_batch(
    exported: Path, small_detector: Detector
) -> None:
    maker = Exported(exported)
    whole = maker.make(small_detector, asked()).dense()
    alone = [maker.make(small_detector, asked()[i : i + 1]).dense()[0] for i in range(6)]
    assert np.allclose(whole, alone, rtol=1e-5)
    assert len({a.sum() for a in alone}) == 6


def test_conditions_arrive_in_their_places(exported: Path, small_detector: Detector) -> None:
    showers = Exported(exported).make(small_detector, asked(50))
    assert np.allclose(showers.visible() / showers.energy, 0.03 * np.exp(0.045), rtol=0.2)
    for name in ("energy", "theta", "phi", "pdg", "seed"):
        assert np.array_equal(getattr(showers, name), getattr(asked(50), name))


def test_it_knows_its_range_and_detector(exported: Path, small_detector: Detector) -> None:
    maker = open_maker(exported)
    assert isinstance(maker, Exported)
    assert maker.valid.energy_mev == (1e3, 1e5) and maker.valid.theta == (0.87, 2.27)
    assert maker.valid.pdg == (11, -11, 22)
    maker.check(small_detector.model_copy(update={"name": "renamed"}), False)
    with pytest.raises(RequestError, match="mesh of 'par04-siw'"):
        maker.check(load_detector("par04-siw"), True)
    stack = small_detector.described_stack()
    other = small_detector.model_copy(update={"stack": stack.model_copy(update={"layers": 21})})
    with pytest.raises(RequestError, match="--extrapolate"):
        maker.check(other, False)
    maker.check(other, True)
    with pytest.raises(RequestError, match="fixed when it was exported"):
        open_maker(exported, steps=2)


def test_noise_is_standard_normal_and_its_rows_are_independent() -> None:
    rows = noise(event_seeds(1, 0, 20), 5000)
    assert rows.shape == (20, 5000) and rows.dtype == np.float32
    assert np.allclose(rows.mean(1), 0, atol=0.06) and np.allclose(rows.std(1), 1, atol=0.05)
    correlations = np.corrcoef(rows)[np.triu_indices(20, 1)]
    assert abs(correlations).max() < 0.07
    assert np.array_equal(noise(event_seeds(1, 3, 1), 5000)[0], rows[3])


def rewritten(exported: Path, folder: Path, **changes: str | None) -> Path:
    """The export with other metadata; None leaves a key out."""
    import onnx

    proto = onnx.load(exported)
    told = {p.key: p.value for p in proto.metadata_props} | changes
    del proto.metadata_props[:]
    for key, value in told.items():
        if value is not None:
            proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, folder / "changed.onnx")
    return folder / "changed.onnx"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(target="par04"), "no export of target 'plain'"),
        (dict(target=None), "no export of target 'plain'"),
        (dict(noise=None), "lack 'noise'"),
        (dict(energy_min_mev="low"), "export it anew"),
        (dict(detector="name = 3"), "name"),
    ],
)
def test_other_exports_are_refused(exported: Path, tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        Exported(rewritten(exported, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_damaged_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model"):
        Exported(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:200])
    with pytest.raises(RequestError, match="no ONNX model"):
        Exported(tmp_path / "cut.onnx")


def test_a_file_that_makes_no_showers_stops_the_work(
    exported: Path, tmp_path: Path, small_detector: Detector
) -> None:
    wrong = rewritten(exported, tmp_path, noise="7")
    with pytest.raises(WorkError, match="made no showers"):
        Exported(wrong).make(small_detector, asked())
