"""Campaigns: many detectors from one description, the same files however they are made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import RequestError
from caloforge.showers.formats import read_showers
from caloforge.simulate.campaign import Campaign, load_campaign, run_campaign

TEXT = """
particle = "e-,gamma"
energy = [0.2, 0.4]
seed = 3
[random]
count = 2
n = 6
[[sample]]
detector = "par04-siw"
n = 4
particle = "e+"
"""


def described(folder: Path, text: str = TEXT) -> Campaign:
    path = folder / "campaign.toml"
    path.write_text(text)
    return load_campaign(path)


def test_a_campaign_makes_every_file_with_its_card(tmp_path: Path) -> None:
    told = run_campaign(described(tmp_path), tmp_path / "data", workers=2)
    assert (told["files"], told["showers"]) == (3, 16)
    siw = read_showers(tmp_path / "data" / "par04-siw.h5")
    assert len(siw) == 4 and set(siw.pdg.tolist()) == {-11}
    drawn = read_showers(tmp_path / "data" / "random-1-0000.h5")
    assert drawn.detector is not None and drawn.detector.name == "random-1-0000"
    assert set(drawn.pdg.tolist()) <= {11, 22} and drawn.energy.max() <= 400
    card = (tmp_path / "data" / "random-1-0001.md").read_text()
    assert "processor seconds per shower" in card and 'name = "random-1-0001"' in card
    assert sorted(p.suffix for p in (tmp_path / "data").iterdir()) == [".h5"] * 3 + [".md"] * 3


def test_a_killed_campaign_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    text = TEXT.replace("n = 6", "n = 30").replace("n = 4", "n = 30")
    campaign = described(tmp_path, text)
    script = (
        "import sys; from pathlib import Path; from caloforge.simulate.campaign import *;"
        "run_campaign(load_campaign(sys.argv[1]), Path(sys.argv[2]))"
    )
    out = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "campaign.toml"), str(out)],
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("*.parts/*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RequestError, match="--resume"):
        run_campaign(campaign, out)
    run_campaign(campaign, out, workers=2, resume=True)
    run_campaign(campaign, tmp_path / "again")
    for name in ("par04-siw.h5", "random-1-0000.h5", "random-1-0001.h5"):
        one, two = read_showers(out / name), read_showers(tmp_path / "again" / name)
        assert np.array_equal(one.deposit, two.deposit) and np.array_equal(one.pdg, two.pdg)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("particle = 'e-'", "makes nothing"),
        ("[random]\ncount = 0\nn = 5", "random.count"),
        ("colour = 1", "colour"),
        ("[[sample]]\ndetector = 'nowhere'\nn = 1", "unknown detector"),
        ("[[sample]]\ndetector = 'pbwo4'\nn = 1\n" * 2, "twice"),
        ("particle = 'k0'\n[random]\ncount = 1\nn = 1", "unknown particle 'k0'"),
        ("= 3", "no valid TOML"),
    ],
)
def test_a_bad_description_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        run_campaign(described(tmp_path, text), tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_missing_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no campaign"):
        load_campaign(tmp_path / "none.toml")
