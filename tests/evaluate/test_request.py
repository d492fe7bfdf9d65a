import pytest

from caloforge.errors import RequestError
from caloforge.evaluate.request import validate_files
from caloforge.evaluate.validation import Options
from caloforge.showers.formats import write_showers


@pytest.fixture(scope="module")
def files(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for k, name in enumerate(("geant4", "a", "b")):
        paths.append(folder / f"{name}.h5")
        write_showers(toy(100, 20 + k), paths[-1])
    return paths


@pytest.fixture
def unworked(monkeypatch):
    """See what a request becomes without doing the work."""
    from caloforge.evaluate import request

    monkeypatch.setattr(request, "validate", lambda *files, **given: {"n": len(files[1]), **given})


def test_names_come_from_files_or_are_given(files, tmp_path, unworked):
    geant4, first, second = files
    assert validate_files(geant4, [first], tmp_path)["labels"] == ["Geant4", "generated"]
    assert validate_files(geant4, [first, second], tmp_path)["labels"] == ["Geant4", "a", "b"]
    named = validate_files(geant4, [first, second], tmp_path, labels=["x", "y"])
    assert named["labels"] == ["Geant4", "x", "y"] and named["n"] == 2
    twice = validate_files(geant4, [first, first.parent / "." / "a.h5"], tmp_path)
    assert len(twice["labels"]) == 3


def test_numbers_that_do_not_fit_are_refused(files, tmp_path):
    geant4, first, second = files
    for given in ({"labels": ["x"]}, {"timings": [tmp_path / "t.json"]}):
        with pytest.raises(RequestError, match="2 generated files need as many"):
            validate_files(geant4, [first, second], tmp_path, **given)
    with pytest.raises(RequestError, match="there is no file"):
        validate_files(geant4, [tmp_path / "no.h5"], tmp_path / "out", options=Options())
    assert not (tmp_path / "out").exists()
