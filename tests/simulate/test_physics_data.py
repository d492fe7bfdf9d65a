"""The tables for Geant4: complete, physical, safe to write from many processes, honest about source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xraylib

from caloforge.errors import RequestError
from caloforge.simulate import physics_data
from caloforge.simulate.physics_data import (
    DATA_VARIABLES,
    find_data,
    require_packages,
    write_elements,
)
from caloforge.simulate.tables import element_files


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and no official data."""
    for name in (*DATA_VARIABLES, "GEANT4_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CALOFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tables(z):
    return element_files(z, physics_data._bremsstrahlung_folder())


def vector(text, power):
    """Energies (MeV) and cross sections of a file that G4PhysicsVector reads."""
    low, high, n, again, *pairs = (float(word) for word in text.split())
    energy, scaled = np.array(pairs).reshape(-1, 2).T
    assert len(energy) == n == again
    assert (energy[0], energy[-1]) == (low, high)
    assert (np.diff(energy) > 0).all()
    return energy, scaled / energy**power


@pytest.mark.parametrize("z", [1, 6, 14, 26, 74, 82, 92])
def test_every_file_has_the_shape_that_geant4_reads(z):
    files = tables(z)
    assert len(files) == 7
    for name, power in (("phot/pe-cs", 3), ("phot/pe-le-cs", 3), ("rayl/re-cs", 2)):
        energy, sigma = vector(files[f"epics2017/{name}-{z}.dat"], power)
        assert (sigma > 0).all() and np.isfinite(sigma).all()
        assert energy[-1] > energy[0]
    head, rest = files[f"brem_SB/br{z}"].split("\n", 1)
    assert head == "3 32 57"
    numbers = np.array(rest.split(), dtype=float)
    assert numbers.size == 32 + 57 + 57 * 32
    assert (numbers[89:] > 0).all()


@pytest.mark.parametrize("z", [14, 74, 82])
def test_photoelectric_tables_follow_xraylib_and_jump_at_the_k_edge(z):
    files = tables(z)
    high, above = vector(files[f"epics2017/phot/pe-cs-{z}.dat"], 3)
    low, below = vector(files[f"epics2017/phot/pe-le-cs-{z}.dat"], 3)
    edge = xraylib.EdgeEnergy(z, 0) / 1e3
    assert high[0] == pytest.approx(edge, rel=1e-6) and low[-1] == pytest.approx(edge, rel=1e-5)
    assert above[0] / below[-1] > 3
    at = 0.3
    assert np.exp(np.interp(np.log(at), np.log(high), np.log(above))) == pytest.approx(
        xraylib.CSb_Photo(z, at * 1e3), rel=5e-3
    )


@pytest.mark.parametrize(("z", "mev", "barn"), [(74, 1.0, 4.1), (82, 10.0, 0.33)])
def test_photoelectric_continuation_is_near_nist(z, mev, barn):
    """NIST XCOM beyond the end of xraylib's tables; a few per mille of the photons there."""
    energy, sigma = vector(tables(z)[f"epics2017/phot/pe-cs-{z}.dat"], 3)
    scaled = np.interp(mev, energy, sigma * energy**3)  # as Geant4 interpolates
    assert scaled / mev**3 == pytest.approx(barn, rel=0.08)


def test_shells_share_out_the_total_and_no_more():
    z = 82
    words = tables(z)[f"epics2017/phot/pe-ss-cs-{z}.dat"].split()
    total = 0.0
    while words:
        n = int(words[2])
        pairs = np.array(words[4 : 4 + 2 * n], dtype=float).reshape(-1, 2)
        total += np.interp(0.2, pairs[:, 0], pairs[:, 1])
        words = words[4 + 2 * n :]
    assert 0.95 < total / 0.2**3 / xraylib.CSb_Photo(z, 200.0) < 1.01


def test_elements_are_written_once(cache):
    data = find_data()
    assert data.is_open and "xraylib" in data.source and "xpecgen" in data.source
    assert write_elements(data, [14, 74]) == 14
    assert write_elements(data, [14, 74]) == 0
    assert write_elements(data, [1]) == 7


def test_many_processes_write_the_same_tables(cache):
    code = (
        "from caloforge.simulate.physics_data import *\n"
        "write_elements(find_data(), range(1, 30))\n"
        "import sys; assert 'xpecgen' not in sys.modules and 'geant4_pybind' not in sys.modules"
    )
    crew = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in crew] == [0, 0, 0]
    folder = find_data().folders["G4LEDATA"]
    assert not list(folder.rglob("*.tmp"))
    for name, text in tables(14).items():
        assert (folder / name).read_text() == text
    assert write_elements(find_data(), range(1, 30)) == 0


def test_official_data_is_preferred_and_named(cache, tmp_path, monkeypatch):
    official = tmp_path / "geant4"
    (official / "G4EMLOW8.8" / "livermore").mkdir(parents=True)
    monkeypatch.setenv("GEANT4_DATA_DIR", str(official))
    data = find_data()
    assert not data.is_open
    assert data.folders["G4LEDATA"] == official / "G4EMLOW8.8"
    assert "official" in data.source and "G4EMLOW8.8" in data.source
    assert "G4PARTICLEXSDATA" in data.missing_for_hadrons
    assert write_elements(data, [14]) == 0
    assert all(folder.is_dir() for folder in data.folders.values())


def test_our_own_tables_are_never_taken_for_official(cache, monkeypatch):
    data = find_data()
    write_elements(data, [1])
    for name, folder in data.folders.items():
        monkeypatch.setenv(name, str(folder))
    assert find_data().official == frozenset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GEANT4_DATA_DIR": "/nowhere/at/all"}, "GEANT4_DATA_DIR"),
        ({"G4LEDATA": "/nowhere/at/all"}, "G4LEDATA"),
        ({"CALOFORGE_CACHE": "/dev/null/cache"}, "CALOFORGE_CACHE"),
    ],
)
def test_wrong_folders_are_one_clear_line(cache, monkeypatch, change, message):
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=message) as caught:
        find_data()
    assert "\n" not in str(caught.value)


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(physics_data.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'caloforge\[geant4\]'"):
        require_packages("geant4_pybind", "xraylib")


def test_transuranic_elements_are_refused(cache):
    with pytest.raises(RequestError, match="92"):
        write_elements(find_data(), [94])


def test_cache_follows_the_usual_variables(monkeypatch):
    monkeypatch.delenv("CALOFORGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert physics_data.cache_folder() == Path("/xdg/caloforge")
