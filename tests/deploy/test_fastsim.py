"""The model in Geant4's event loop: nothing lost, nothing of Geant4's changed, the same file again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.deploy.against import totals
from caloforge.deploy.books import FATES, balanced
from caloforge.deploy.fastsim import Places, fastsim, lines
from caloforge.detector.detector import load_detector, parse_detector
from caloforge.errors import RequestError
from caloforge.showers.native import ShowerFile
from caloforge.simulate.beam import PDG, Beam
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.production import simulate

MIXED = Beam("e-,e+,gamma,mu-,pi0", (300.0, 3000.0))
N = 30
PI0_MASS = 134.977

SCRIPT = """
import sys
from pathlib import Path
from caloforge.deploy.fastsim import fastsim
from caloforge.detector.detector import load_detector
from caloforge.simulate.beam import Beam
fastsim(sys.argv[1], load_detector(sys.argv[2]), Path(sys.argv[3]), 96,
        Beam("e-,gamma", (700.0, 1e4)), seed=7, steps=1, workers=2)
"""


def arrays(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def same(a: Path, b: Path) -> bool:
    first, second = arrays(a), arrays(b)
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fastsim")


@pytest.fixture(scope="module")
def mixed(folder, model, small_detector):
    """A run of mixed particles on one worker: its summary; the file is mixed.h5."""
    return fastsim(model, small_detector, folder / "mixed.h5", N, MIXED, seed=3, steps=1)


@pytest.fixture(scope="module")
def compared(mixed, folder, small_detector):
    """The same events in full and fast: `Totals`."""
    beam = dict(particle=MIXED.particle, energy_mev=MIXED.energy, theta=MIXED.theta, phi=MIXED.phi)
    simulate(small_detector, folder / "full.h5", N, seed=3, **beam)
    with ShowerFile(folder / "mixed.h5") as fast, ShowerFile(folder / "full.h5") as full:
        return totals(fast, full)


def test_the_same_seed_gives_the_same_file_on_any_number_of_workers(
    mixed, folder, model, small_detector
):
    again = fastsim(model, small_detector, folder / "two.h5", N, MIXED, seed=3, steps=1, workers=2)
    assert same(folder / "mixed.h5", folder / "two.h5")
    assert again["books"] == pytest.approx(mixed["books"], rel=1e-12)
    fastsim(model, small_detector, folder / "other.h5", N, MIXED, seed=4, steps=1)
    assert not same(folder / "mixed.h5", folder / "other.h5")


def test_what_the_model_has_no_part_in_is_geant4s_bit_for_bit(mixed, compared):
    left = (compared.pdg == PDG["mu-"]) | ((compared.incident < 990) & (compared.pdg != 111))
    taken = np.isin(compared.pdg, [11, -11, 22]) & (compared.incident > 1e3)
    assert left.sum() > 5 and taken.sum() > 5
    assert not compared.differ[left].any()
    assert compared.differ[taken].all()
    assert compared.differ.sum() == mixed["books"]["touched"]
    assert (compared.full[left] > 0).any()


def test_nothing_is_lost(mixed, compared):
    books = mixed["books"]
    assert balanced(books)
    assert books["entered"] == sum(books[fate] for fate in FATES)
    assert all(books[fate] > 0 for fate in ("taken", "species", "energy", "returned"))
    # Everything that is shot enters once, or never: a pi0 as the photons into which it decays.
    shot = compared.incident.sum() + PI0_MASS * (compared.pdg == PDG["pi0"]).sum()
    told = books["entered_mev"] - books["returned_mev"] + books["missed_mev"]
    assert told == pytest.approx(shot, abs=1.1)  # a Dalitz pair would keep its mass


def test_visible_energy_of_the_model_is_in_the_file(mixed, compared):
    """What was placed is what events hold in which Geant4 had nothing to do, and no more."""
    books = mixed["books"]
    alone = np.isin(compared.pdg, [11, -11, 22]) & (compared.incident > 1001)
    held = (compared.fast + compared.fast_leakage)[alone].sum()
    with_pi0 = (compared.fast + compared.fast_leakage)[alone | (compared.pdg == 111)].sum()
    assert held - 1e-3 <= books["placed_mev"] <= with_pi0 + 1e-3
    assert compared.fast_leakage[alone].sum() == 0
    assert books["active_mev"] > 0.5 * books["placed_mev"]


def test_both_photons_of_a_pi0_are_taken_in_one_event(folder, model, small_detector):
    pi0 = Beam("pi0", (2e4, 2e4), (1.5, 1.6))
    found = fastsim(model, small_detector, folder / "pi0.h5", 8, pi0, seed=2, steps=1)
    books = found["books"]
    assert books["touched"] == 8 and 13 <= books["taken"] <= 16
    assert books["entered"] == books["taken"] + books["energy"] + books["returned"]
    shot = 8 * (2e4 + PI0_MASS)
    assert books["entered_mev"] - books["returned_mev"] == pytest.approx(shot, abs=1.1)
    with ShowerFile(folder / "pi0.h5") as file:
        showers = file.read(0, 8)
    inside, beside = showers.visible().sum(), showers.leakage.sum()
    by_geant4 = inside + beside - books["placed_mev"]
    assert -1e-3 < by_geant4 < books["energy_mev"]  # of photons below 1 GeV
    assert books["outside_mev"] < beside + 1e-3


def test_a_threshold_leaves_everything_to_geant4(folder, compared, model, small_detector):
    none = fastsim(
        model, small_detector, folder / "none.h5", N, MIXED, seed=3, steps=1, above_mev=1e5
    )
    assert none["books"]["taken"] == none["books"]["touched"] == 0
    assert same(folder / "none.h5", folder / "full.h5")


def test_an_exported_file_does_as_well(folder, exported, small_detector):
    electrons = Beam("e-", (5e3, 5e4), (1.2, 1.9))
    found = fastsim(exported, small_detector, folder / "onnx.h5", 6, electrons, seed=1, workers=2)
    assert found["books"]["taken"] == found["books"]["touched"] == 6
    with ShowerFile(folder / "onnx.h5") as file:
        showers = file.read(0, 6)
    assert np.allclose(showers.visible() / showers.energy, 0.03 * np.exp(0.045), rtol=0.2)
    assert showers.leakage.sum() == 0


def test_a_run_killed_and_resumed_gives_the_same_file(folder, model, small_detector, small_file):
    broken, whole = folder / "broken.h5", folder / "whole.h5"
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(model), str(small_file), broken],
                              stderr=subprocess.DEVNULL)  # fmt: skip
    end = time.monotonic() + 90
    while len(list(parts_folder(broken).glob("events-*.npz"))) < 2:
        assert time.monotonic() < end and parent.poll() is None, "no shard to be seen"
        time.sleep(0.005)
    parent.kill()
    parent.wait()
    assert not broken.exists()
    beam = Beam("e-,gamma", (700.0, 1e4))
    common = dict(seed=7, steps=1)
    with pytest.raises(RequestError, match="--resume, or delete it"):
        fastsim(model, small_detector, broken, 96, beam, **common)
    with pytest.raises(RequestError, match="other settings.*above_mev"):
        fastsim(model, small_detector, broken, 96, beam, resume=True, above_mev=2e3, **common)
    end = time.monotonic() + 30
    while True:  # the orphans' lock goes with them
        try:
            resumed = fastsim(model, small_detector, broken, 96, beam, resume=True, **common)
            break
        except RequestError:
            assert time.monotonic() < end
            time.sleep(0.1)
    fresh = fastsim(model, small_detector, whole, 96, beam, workers=2, **common)
    assert same(broken, whole)
    assert resumed["books"] == pytest.approx(fresh["books"], rel=1e-12)
    assert not parts_folder(broken).exists()


def test_full_and_fast_are_timed_and_compared(folder, model, small_detector):
    out, beam = folder / "both.h5", Beam("e-,mu-", (1500.0, 3000.0))
    found = fastsim(
        model, small_detector, out, 100, beam, seed=5, steps=1, workers=2, compare=True,
        command="caloforge fastsim",
    )  # fmt: skip
    part = found["compared"]
    assert part["events_that_differ"] == part["events_with_a_part_of_the_model"]
    assert 40 <= part["events_that_differ"] < 70
    fast, full = found["seconds_per_event"], part["seconds_per_event"]
    assert part["time_fast_over_full"]["value"] == pytest.approx(fast["value"] / full["value"])
    assert fast["error"] > 0 and full["error"] > 0
    assert part["visible_fast_over_full"]["mean"]["error"] > 0
    assert json.loads(Places(out).summary.read_text()) == found
    assert (Places(out).report / "metrics.json").is_file()
    text = "\n".join(lines(found))
    assert "fast / full" in text and "report" in text and part["verdict"]["headline"] in text
    with ShowerFile(out) as file:
        told = file.provenance
    assert told["engine"] == "fastsim" and told["geant4"].startswith("11.")
    assert told["model_sha256"] == found["model_sha256"] and told["command"] == "caloforge fastsim"
    again = fastsim(model, small_detector, out, 100, beam, seed=5, steps=1, resume=True)
    assert again == {key: value for key, value in found.items() if key != "compared"}


WRONG = {
    "mesh": (dict(detector=load_detector("par04-siw")), "does not fit the model"),
    "gdml": (
        dict(
            detector=parse_detector(
                'name = "g"\n[gdml]\nfile = "g.gdml"\nsensitive = ["a"]\nentrance = "a"\n[mesh]\n'
                "n_r = 3\nn_phi = 4\nn_z = 10\ncell_r_mm = 12\ncell_z_mm = 6"
            )
        ),
        "GDML",
    ),
    "model": (dict(model="nowhere"), "no model 'nowhere'"),
    "steps": (dict(steps=0), "at least 1"),
    "few": (dict(compare=True), "at least 40 events"),
    "threshold": (dict(above_mev=-1.0), "not be negative"),
    "events": (dict(n=0), "at least 1"),
    "workers": (dict(workers=0), "at least 1"),
    "physics": (dict(physics="em7"), "unknown physics list"),
    "steep": (dict(beam=Beam(theta=(0.1, 1.0))), "outside what the cylinders"),
    "ending": (dict(out="x.json"), "ending .h5"),
    "place": (dict(out="/dev/null/x.h5"), "cannot write"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, model, small_detector, wrong
):
    changes, message = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    request = dict(model=model, detector=small_detector, out="x.h5", n=4, beam=Beam()) | changes
    with pytest.raises(RequestError, match=message) as caught:
        fastsim(**{**request, "out": Path(request["out"])})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
