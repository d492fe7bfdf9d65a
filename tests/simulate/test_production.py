"""One file from many processes: the same whatever their number, and after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.detector.detector import load_detector
from caloforge.errors import RequestError, WorkError
from caloforge.showers.native import ShowerFile
from caloforge.simulate import pool, production
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.production import simulate
from caloforge.simulate.worker import shard_path

SHORT = dict(energy_mev=(150.0, 300.0), seed=7)
LONG = dict(energy_mev=(1000.0, 1000.0), seed=7)

SCRIPT = """
import sys
from caloforge.detector.detector import load_detector
from caloforge.simulate.production import simulate
simulate(load_detector("par04-siw"), sys.argv[1], {n}, energy_mev=(1000.0, 1000.0), seed=7,
         workers=2, resume=sys.argv[2] == "resume")
"""


@pytest.fixture(scope="module")
def siw():
    return load_detector("par04-siw")


def arrays(path):
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def same(a, b):
    a, b = arrays(a), arrays(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def start(path, n, resume="new"):
    # A shell's background job ignores Ctrl-C, and so would its children.
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(n=n), str(path), resume],
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def children(pid):
    """Processes whose parent is `pid`, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def shards(path):
    return len(list(parts_folder(path).glob("events-*.npz")))


@pytest.mark.parametrize("engine", ["geant4", "parametric"])
def test_the_file_does_not_depend_on_the_number_of_workers(tmp_path, siw, engine):
    one, three = tmp_path / "one.h5", tmp_path / "three.h5"
    beam = SHORT if engine == "geant4" else {**SHORT, "energy_mev": (5e3, 6e3)}
    simulate(siw, one, 25, workers=1, engine=engine, **beam)
    summary = simulate(siw, three, 25, workers=3, engine=engine, **beam)
    assert same(one, three)
    assert len(arrays(one)["cell"]) > 100
    assert summary.events == summary.new_events == 25
    assert summary.seconds_per_event > 0 and 0.01 < summary.visible_fraction < 0.06
    assert summary.size_bytes == three.stat().st_size
    assert sorted(tmp_path.iterdir()) == [one, three]


def test_a_run_killed_twice_and_resumed_gives_the_same_arrays(tmp_path, siw):
    n = 60
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    simulate(siw, whole, n, workers=2, **LONG)
    for resume, least in (("new", 2), ("resume", 6)):
        parent = start(broken, n, resume)
        wait_for(lambda least=least: shards(broken) >= least)
        workers = children(parent.pid)
        parent.kill()
        parent.wait()
        parent.stderr.close()
        wait_for(lambda workers=workers: not any(map(alive, workers)), 20)
    assert not broken.exists()
    before = shards(broken)
    assert before < n // 3
    summary = simulate(siw, broken, n, workers=2, resume=True, **LONG)
    assert 0 < summary.new_events < n
    assert same(whole, broken)
    assert not parts_folder(broken).exists()


def test_a_dead_worker_is_reported_and_its_work_kept(tmp_path):
    path = tmp_path / "showers.h5"
    parent = start(path, 1500)
    wait_for(lambda: shards(path) >= 1)
    os.kill(children(parent.pid)[0], signal.SIGKILL)
    _, stderr = parent.communicate(timeout=60)
    last = stderr.decode().strip().splitlines()[-1]
    assert "WorkError" in last and "signal 9" in last and "--resume" in last
    assert shards(path) >= 1 and not path.exists()


def test_ctrl_c_keeps_the_showers_made(tmp_path):
    path = tmp_path / "showers.h5"
    parent = start(path, 1500)
    wait_for(lambda: shards(path) >= 1)
    workers = children(parent.pid)
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=60)
    assert "interrupted" in stderr.decode().strip().splitlines()[-1]
    assert shards(path) >= 1 and not any(map(alive, workers))


@pytest.fixture
def interrupted(tmp_path, siw, monkeypatch):
    """A run stopped by Ctrl-C after its second shard."""
    path = tmp_path / "showers.h5"
    work = production.work

    def twice(*arguments):
        done = 0
        for message in work(*arguments):
            yield message
            done += "done" in message
            if done == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(production, "work", twice)
        with pytest.raises(WorkError, match="--resume"):
            simulate(siw, path, 10, engine="parametric", seed=1)
    return path


def test_leftovers_need_resume_and_the_same_settings(interrupted, siw):
    with pytest.raises(RequestError, match="--resume, or delete it"):
        simulate(siw, interrupted, 10, engine="parametric", seed=1)
    for change in (dict(seed=2), dict(theta=(1.0, 2.0)), dict(particle="gamma")):
        with pytest.raises(RequestError, match=f"other settings.*{next(iter(change))}"):
            request = {"seed": 1, **change}
            simulate(siw, interrupted, 10, engine="parametric", resume=True, **request)
    with pytest.raises(RequestError, match="events was 10, is 11"):
        simulate(siw, interrupted, 11, engine="parametric", seed=1, resume=True)
    assert shards(interrupted) == 2
    assert simulate(siw, interrupted, 10, engine="parametric", seed=1, resume=True).new_events == 8
    again = simulate(siw, interrupted, 10, engine="parametric", seed=1, resume=True)
    assert (again.events, again.new_events) == (10, 0)
    with pytest.raises(RequestError, match="other showers"):
        simulate(siw, interrupted, 10, engine="parametric", seed=2, resume=True)


def test_two_processes_cannot_fill_one_folder(interrupted, siw):
    fcntl = pytest.importorskip("fcntl")
    with (parts_folder(interrupted) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match="another process"):
            simulate(siw, interrupted, 10, engine="parametric", seed=1, resume=True)


def test_a_damaged_shard_is_named(interrupted, siw):
    shard = shard_path(parts_folder(interrupted), 0)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(WorkError, match=shard.name):
        simulate(siw, interrupted, 10, engine="parametric", seed=1, resume=True)
    shard.unlink()
    assert simulate(siw, interrupted, 10, engine="parametric", seed=1, resume=True).events == 10


def test_provenance_tells_how_to_make_it_again(tmp_path, siw):
    path = tmp_path / "showers.h5"
    simulate(siw, path, 2, energy_mev=(100.0, 100.0), seed=4, command="caloforge simulate ...")
    file = ShowerFile(path)
    told = file.provenance
    assert told["geant4"].startswith("11.") and told["cut_mm"] == 0.7
    assert (told["seed"], told["particle"], told["energy"]) == (4, "e-", [100.0, 100.0])
    assert told["command"] == "caloforge simulate ..." and told["engine"] == "geant4"
    assert told["seconds_per_event"] > 0 and "caloforge" in told
    assert file.detector == siw
    json.dumps(told)


def test_an_old_file_is_replaced_only_by_a_whole_one(tmp_path, siw, monkeypatch):
    path = tmp_path / "showers.h5"
    path.write_text("old")

    def fail(*_):
        raise WorkError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(production, "work", fail)
        with pytest.raises(WorkError):
            simulate(siw, path, 3, engine="parametric")
    assert path.read_text() == "old"
    parts = parts_folder(path)
    for leftover in parts.iterdir():
        leftover.unlink()
    parts.rmdir()
    simulate(siw, path, 3, engine="parametric")
    assert len(ShowerFile(path)) == 3


def test_another_dialect_can_be_written(tmp_path, siw):
    path = tmp_path / "showers.h5"
    simulate(siw, path, 5, engine="parametric", dialect="lemurs")
    with h5py.File(path) as file:
        assert file["showers"].shape == (5, *siw.mesh.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n=0), "at least 1"),
        (dict(workers=0), "workers"),
        (dict(seed=-1), "seed"),
        (dict(energy_mev=(-1.0, 5.0)), "energy"),
        (dict(energy_mev=(50.0, 5.0)), "upside down"),
        (dict(energy_mev=(5.0, np.nan)), "finite"),
        (dict(theta=(0.1, 1.0)), "theta"),
        (dict(theta=(1.0, 3.3)), "theta"),
        (dict(particle="proton"), "particle"),
        (dict(engine="fluka"), "engine"),
        (dict(physics="em9"), "physics"),
        (dict(dialect="klingon"), "dialect"),
        (dict(path="/dev/null/showers.h5"), "cannot write"),
        (dict(path="."), "folder"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(tmp_path, siw, change, message):
    out = tmp_path / "out"
    request = {"path": out / "showers.h5", "n": 3, **change}
    with pytest.raises(RequestError, match=message) as caught:
        simulate(siw, **request)
    assert "\n" not in str(caught.value)
    assert not list(out.glob("*"))


def test_the_last_words_of_geant4_are_passed_on(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("hello\n*** G4Exception : em0003\n      issued by : A::B()\nno file br74\n***\n")
    assert "no file br74" in pool._last_words(log)
    assert pool._last_words(tmp_path / "none.log") == ""
