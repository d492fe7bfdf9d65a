"""Geant4 itself, each time in a process of its own: independent events, honest scoring, GDML."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from caloforge.detector.detector import load_detector, parse_detector
from caloforge.errors import RequestError
from caloforge.simulate.beam import Beam
from caloforge.simulate.geant4 import Geant4Engine
from caloforge.simulate.physics_data import DATA_VARIABLES
from caloforge.simulate.production import simulate

PRELUDE = """
import json, os, sys
import numpy as np
from caloforge.detector.detector import load_detector, parse_detector
from caloforge.simulate.beam import Beam
from caloforge.simulate.geant4 import Geant4Engine

def say(**values):
    sys.stdout.flush()
    os.write(2, (json.dumps(values) + "\\n").encode())
    os._exit(0)

def arrays(showers):
    return {k: getattr(showers, k).tolist() for k in ("offsets", "cell", "deposit", "leakage")}
"""

GDML = """<?xml version="1.0"?>
<gdml xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <define/>
 <solids>
  <box name="WorldBox" x="4" y="4" z="4" lunit="m"/>
  <box name="CaloBox" x="300" y="600" z="600" lunit="mm"/>
  <box name="SlabBox" x="150" y="600" z="600" lunit="mm"/>
 </solids>
 <structure>
  <volume name="Front"><materialref ref="G4_PbWO4"/><solidref ref="SlabBox"/></volume>
  <volume name="Back"><materialref ref="G4_PbWO4"/><solidref ref="SlabBox"/></volume>
  <volume name="Calo"><materialref ref="G4_Galactic"/><solidref ref="CaloBox"/>
   <physvol name="p1"><volumeref ref="Front"/><position name="a" x="-75" unit="mm"/></physvol>
   <physvol name="p2"><volumeref ref="Back"/><position name="b" x="75" unit="mm"/></physvol>
  </volume>
  <volume name="World"><materialref ref="G4_Galactic"/><solidref ref="WorldBox"/>
   <physvol name="TheCalo"><volumeref ref="Calo"/><position name="c" x="650" unit="mm"/></physvol>
  </volume>
 </structure>
 <setup name="Default" version="1.0"><world ref="World"/></setup>
</gdml>
"""

HEAD_ON = dict(energy_mev=(300.0, 300.0), theta=(np.pi / 2, np.pi / 2), phi=(0.0, 0.0))


def run(code):
    """Run code in a fresh process; what it says last on standard error, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stderr.strip().splitlines()[-1])


@pytest.fixture
def box(tmp_path):
    """Two slabs of lead tungstate from x = 500 mm on, described in GDML."""
    (tmp_path / "box.gdml").write_text(GDML)
    return box_detector(tmp_path)


def box_detector(folder, sensitive="Front|Back", entrance="Calo", file="box.gdml"):
    return parse_detector(
        f"""
        name = "box"
        [gdml]
        file = "{folder / file}"
        sensitive = ["{sensitive}"]
        entrance = "{entrance}"
        [mesh]
        n_r = 6
        n_phi = 8
        n_z = 30
        cell_r_mm = 10
        cell_z_mm = 10
        """
    )


def test_an_event_depends_on_its_seed_alone():
    said = run(
        """
        engine = Geant4Engine(load_detector("par04-scipb"))
        primaries = Beam("e-", (500.0, 800.0)).primaries(3, 0, 5)
        together = arrays(engine.run(primaries)[0])
        alone = [arrays(engine.run(primaries[i : i + 1])[0]) for i in (4, 2, 0, 1, 3)]
        cells = [alone[j]["cell"] for j in (2, 3, 1, 4, 0)]
        deposits = [alone[j]["deposit"] for j in (2, 3, 1, 4, 0)]
        say(cell=sum(cells, []) == together["cell"], n=len(together["cell"]),
            deposit=sum(deposits, []) == together["deposit"])
        """
    )
    assert said["n"] > 100
    assert said["cell"] and said["deposit"]


def test_no_shortcut_of_the_scoring_changes_a_shower():
    """Passing over hard photons and reading memory, against every step asked of the binding."""
    code = """
        from caloforge.simulate.physics_data import activate, find_data
        activate(find_data())
        import caloforge.simulate.useraction as useraction
        from caloforge.simulate.livestep import KNOWN
        from caloforge.simulate.scoring import Scorer
        from importlib.metadata import version
        full = FULL
        if full:
            useraction.Scorer = lambda every_step: Scorer(every_step=True, direct=False)
        engine = Geant4Engine(load_detector("par04-siw"))
        showers = engine.run(Beam("e-", (2000.0, 2000.0)).primaries(5, 0, 4))[0]
        parts = engine.run_state.construction.scorer._parts
        quick = "ProcessHits" in vars(parts[0])
        assert quick == (version("geant4-pybind") in KNOWN and not full)
        say(parts=len(parts), **arrays(showers))
        """
    quick, full = run(code.replace("FULL", "False")), run(code.replace("FULL", "True"))
    assert (quick.pop("parts"), full.pop("parts")) == (2, 1)
    assert len(full["cell"]) > 100
    assert quick == full


def test_volumes_fill_the_stack_and_deposits_their_cells():
    said = run(
        """
        from caloforge.simulate.physics_data import activate, find_data
        activate(find_data())
        from caloforge.simulate.geometry import build, direction
        from caloforge.simulate.scoring import voxelise
        siw = load_detector("par04-siw")
        stack, mesh = siw.stack, siw.mesh
        built = build(siw)
        tubes = [v.GetSolid() for v in built.sensitive]
        point = built.entrance(1.0, 2.0)
        axis = direction(1.0, 2.0)
        # One deposit in the middle of each layer of the mesh, on the axis, and one behind it.
        depth = np.append(mesh.centres_z, mesh.edges_z[-1] + 1.0)
        energies = np.arange(1.0, len(depth) + 1)
        cell, deposit, leakage = voxelise(depth[:, None] * axis, energies, mesh, 1.0, 2.0)
        say(layers=len(tubes), radius=float(np.hypot(*point[:2])), norm=float(axis @ axis),
            along=float(point @ axis / np.linalg.norm(point)),
            inner=[t.GetInnerRadius() for t in tubes], outer=[t.GetOuterRadius() for t in tubes],
            z=(cell % mesh.n_z).tolist(), deposit=deposit.tolist(), leakage=leakage)
        """
    )
    stack, mesh = load_detector("par04-siw").stack, load_detector("par04-siw").mesh
    assert said["layers"] == stack.layers
    assert said["radius"] == pytest.approx(stack.inner_radius_mm)
    assert said["norm"] == pytest.approx(1) and said["along"] == pytest.approx(1)
    outer = stack.inner_radius_mm + stack.pitch_mm * np.arange(1, stack.layers + 1)
    assert np.allclose(said["outer"], outer)
    assert np.allclose(said["inner"], outer - stack.active.thickness_mm)
    by_layer = dict(zip(said["z"], said["deposit"], strict=True))
    assert by_layer == {z: z + 1.0 for z in range(mesh.n_z)}
    assert said["leakage"] == mesh.n_z + 1


def test_a_process_runs_geant4_once_and_says_what_it_is():
    said = run(
        """
        from caloforge.errors import RequestError
        engine = Geant4Engine(load_detector("par04-siw"))
        try:
            Geant4Engine(load_detector("par04-siw"))
        except RequestError as error:
            say(error=str(error), **engine.info)
        """
    )
    assert "once per process" in said["error"]
    assert said["geant4"].startswith("11.")
    assert said["cut_mm"] == 0.7
    assert "option 0" in said["physics"]
    assert "data" in said["data"] or "tables" in said["data"]


@pytest.mark.parametrize("particle", ["e-", "e+", "gamma", "mu-", "mu+", "pi0"])
def test_every_particle_deposits_what_it_can(tmp_path, particle):
    """A homogeneous block takes a shower nearly whole, of a muon only its ionisation."""
    detector = load_detector("pbwo4")
    path = tmp_path / "showers.h5"
    beam = dict(particle=particle, energy_mev=(400.0, 400.0), theta=(1.5, 1.6))
    summary = simulate(detector, path, 8, **beam)
    if particle.startswith("mu"):
        # 230 mm of lead tungstate at 1 to 1.3 MeV/mm (PDG 2024: minimum 1.03 MeV/mm)
        assert 200 < 400 * summary.visible_fraction < 330
    elif particle == "pi0":  # its photons are 39 degrees apart: they leave the mesh
        assert 0.02 < summary.visible_fraction < 0.9
    else:
        assert 0.85 < summary.visible_fraction < 1


def test_energy_is_conserved(tmp_path):
    """Everything an electron has stays in a deep block: mesh and leakage add up to it."""
    from caloforge.showers.native import ShowerFile

    path = tmp_path / "showers.h5"
    simulate(load_detector("pbwo4"), path, 8, energy_mev=(1000.0, 1000.0), theta=(1.5, 1.6))
    showers = ShowerFile(path).read(0, 8)
    held = (showers.visible() + showers.leakage) / showers.energy
    assert (held < 1.0001).all()
    assert held.mean() > 0.97


def test_gdml_block_holds_a_shower_that_begins_at_its_face(tmp_path, box):
    from caloforge.showers.native import ShowerFile

    path = tmp_path / "showers.h5"
    simulate(box, path, 6, **HEAD_ON)
    showers = ShowerFile(path).read(0, 6)
    held = (showers.visible() + showers.leakage) / showers.energy
    assert held.mean() > 0.95
    layers = showers.layer_energies().sum(0)
    assert layers[0] > 0 and 1 <= layers.argmax() <= 8  # the face is at z' = 0


def test_only_the_volumes_asked_for_are_sensitive(tmp_path, box):
    from caloforge.showers.native import ShowerFile

    path = tmp_path / "showers.h5"
    simulate(box_detector(tmp_path, sensitive="Back"), path, 6, **HEAD_ON)
    layers = ShowerFile(path).read(0, 6).layer_energies().sum(0)
    assert layers[:14].sum() == 0  # the front slab is 150 mm deep
    assert layers[15:].sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(sensitive="Crystal.*"), "sensitive.*Back"),
        (dict(entrance="Door"), "entrance.*Calo"),
        (dict(file="none.gdml"), "no GDML file"),
        (dict(file="broken.gdml"), "no GDML"),
    ],
)
def test_gdml_that_does_not_fit_is_refused(tmp_path, box, change, message):
    (tmp_path / "broken.gdml").write_text("<gdml><solids>")
    out = tmp_path / "out"
    with pytest.raises(RequestError, match=message):
        simulate(box_detector(tmp_path, **change), out / "showers.h5", 2, **HEAD_ON)
    assert not list(out.glob("*"))


def test_a_primary_that_misses_the_entrance_is_refused(tmp_path, box):
    with pytest.raises(RequestError, match="does not enter 'Calo'"):
        simulate(box, tmp_path / "showers.h5", 2, **{**HEAD_ON, "phi": (3.0, 3.0)})


def test_hadronic_physics_needs_official_data(tmp_path, monkeypatch):
    for name in (*DATA_VARIABLES, "GEANT4_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RequestError, match="GEANT4_DATA_DIR"):
        Geant4Engine(load_detector("par04-siw"), "FTFP_BERT")
    with pytest.raises(RequestError, match="unknown physics list"):
        Geant4Engine(load_detector("par04-siw"), "FTFP")
    assert "geant4_pybind" not in sys.modules


def test_beam_is_what_is_stored(tmp_path):
    from caloforge.showers.native import ShowerFile

    path = tmp_path / "showers.h5"
    simulate(load_detector("par04-siw"), path, 5, energy_mev=(100.0, 200.0), seed=9)
    asked = Beam("e-", (100.0, 200.0)).primaries(9, 0, 5)
    showers = ShowerFile(path).read(0, 5)
    for name in ("energy", "theta", "phi", "pdg", "seed"):
        assert np.array_equal(getattr(showers, name), getattr(asked, name))
