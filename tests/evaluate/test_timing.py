import json

import pytest

from caloforge.detector.detector import load_detector
from caloforge.errors import RequestError
from caloforge.evaluate.timing import read_timing, time_generation, time_into
from caloforge.simulate.beam import Beam


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    from caloforge.learn.checkpoint import save_model

    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(tiny_model, path)
    return path


@pytest.fixture(scope="module")
def detector(toy_files):
    from caloforge.showers.formats import open_showers

    source = open_showers(toy_files[0])
    source.close()
    return source.detector


def test_every_size_has_its_row_and_the_file_comes_back(folder, detector, tmp_path):
    made = time_into(
        tmp_path / "t.json",
        folder,
        detector,
        Beam(theta=(1.2, 1.4)),
        batches=[4, 1],
        repeats=3,
        steps=2,
    )
    assert [row["batch"] for row in made["rows"]] == [1, 4]
    for row in made["rows"]:
        assert row["ms"] > 0 and row["repeats"] == 3 and 0 < row["error"] < row["ms"]
    assert made["threads"] == 1 and made["device"].startswith("cpu")
    assert read_timing(tmp_path / "t.json") == json.loads(json.dumps(made))


def test_what_takes_too_long_is_said_not_waited_for(folder, detector):
    made = time_generation(folder, detector, Beam(theta=(1.2, 1.4)), batches=[1, 10**7], repeats=2,
                           seconds=1.0, steps=1)  # fmt: skip
    last = made["rows"][1]
    assert last["ms"] is None and last["repeats"] == 0 and "not measured" in last["note"]


def test_the_number_of_threads_is_put_back(folder, detector):
    import torch

    before = torch.get_num_threads()
    time_generation(
        folder, detector, Beam(theta=(1.2, 1.4)), batches=[1], repeats=1, threads=2, steps=1
    )
    assert torch.get_num_threads() == before


def test_wrong_requests_are_one_line(folder, tmp_path):
    with pytest.raises(RequestError, match="above 0"):
        time_generation(folder, load_detector("par04-siw"), Beam(), batches=[0])
    (tmp_path / "x.json").write_text('{"rows": [1]}')
    with pytest.raises(RequestError, match="was not written by"):
        read_timing(tmp_path / "x.json")
    with pytest.raises(RequestError, match="there is no file"):
        read_timing(tmp_path / "absent.json")
