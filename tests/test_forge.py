"""forge: killed at any moment it goes on where it was, and refuses what would fail hours later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from caloforge import forge as module
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError, WorkError
from caloforge.forge import STAGES, Order, forge
from caloforge.learn.checkpoint import Model, load_model, save_model
from caloforge.simulate.beam import Beam


@pytest.fixture
def order(tiny_model: Model, small_detector: Detector, tmp_path: Path) -> Order:
    save_model(tiny_model, tmp_path / "base")
    detector = small_detector.model_copy(update={"name": "never-seen"})
    beam = Beam("e-", (1e3, 1e5), (1.2, 1.9))
    return Order(
        detector.to_toml(), 80, 60, str(tmp_path / "base"), "full", 12, beam, "parametric", 3
    )


def stages(out: Path) -> dict[str, Any]:
    path = out / "forge.json"
    return dict(json.loads(path.read_text())["stages"]) if path.is_file() else {}


def begun(order: Order, out: Path, until: str) -> None:
    """Run it in another process, and kill that with signal 9 as soon as a stage is done."""
    values = asdict(order) | {"beam": asdict(order.beam)}
    code = (
        "import json, sys; from pathlib import Path; from caloforge.forge import Order, forge;"
        "from caloforge.simulate.beam import Beam; v = json.loads(sys.argv[1]);"
        "b = v.pop('beam'); b = {k: tuple(x) if isinstance(x, list) else x for k, x in b.items()};"
        "forge(Order(**v, beam=Beam(**b)), Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(values), str(out)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while until not in stages(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_it_goes_on_where_it_was(order: Order, tmp_path: Path) -> None:
    out = tmp_path / "forged"
    begun(order, out, "simulate")
    before, made = stages(out), (out / "train.h5").stat().st_mtime_ns
    with pytest.raises(RequestError, match="holds a forge; add --resume"):
        forge(order, out)
    result = forge(order, out, resume=True)
    after = stages(out)
    assert (out / "train.h5").stat().st_mtime_ns == made
    assert {name: after[name] for name in before} == before
    assert list(after) == list(STAGES) == list(result["seconds"])
    page = (out / "index.html").read_text()
    assert result["headline"] in page and "report/report.html" in page and "never-seen" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    assert all(
        (out / link).is_file() for link in ("report/report.html", "model/card.md", "model.onnx")
    )
    card = (out / "model" / "card.md").read_text()
    assert "Adapted from" in card and "never-seen, 60 showers" in card
    assert "never-seen" in load_model(out / "model").valid.detectors


def test_a_failed_stage_is_the_only_one_that_is_done_again(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def stage(name: str, fails: bool) -> Any:
        def work(*_: object) -> dict[str, Any]:
            calls.append(name)
            if fails and calls.count(name) == 1:
                raise WorkError("the machine is gone")
            return {"headline": "done"}

        return work

    monkeypatch.setattr(module, "STAGES", {n: stage(n, n == "adapt") for n in STAGES})
    monkeypatch.setattr(module, "_page", lambda *_: "page")
    with pytest.raises(WorkError, match="gone"):
        forge(order, tmp_path / "out")
    assert forge(order, tmp_path / "out", resume=True)["headline"] == "done"
    names = list(STAGES)
    at = names.index("adapt")
    assert calls == names[: at + 1] + names[at:]
    forge(order, tmp_path / "out", resume=True)
    assert len(calls) == len(names) + 1
    with pytest.raises(RequestError, match="begun with another seed"):
        forge(replace(order, seed=4), tmp_path / "out", resume=True)


def test_wrong_orders_are_refused_before_any_work(order: Order, tmp_path: Path) -> None:
    wrong = {
        "there is no model": replace(order, model="bass"),
        "unknown method": replace(order, method="all"),
        "showers to adapt to must be at least": replace(order, showers=3),
        "showers to validate against must be at least": replace(order, judged=3),
        "the number of steps must be": replace(order, steps=0),
        "models know no 'mu-'": replace(order, beam=Beam("mu-", (1e3, 1e4))),
    }
    for message, bad in wrong.items():
        with pytest.raises(RequestError, match=message):
            forge(bad, tmp_path / "out")
    outside = replace(order, beam=Beam("e-", (1e3, 1e4), (0.01, 0.02)))
    with pytest.raises(RequestError, match="theta"):  # which the simulation says
        forge(outside, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="workers"):
        forge(order, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_a_prior_is_forged_up_to_its_validation(
    order: Order, tiny_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upto = {name: stage for name, stage in STAGES.items() if name != "export"}
    monkeypatch.setattr(module, "STAGES", upto)
    monkeypatch.setattr(module, "_page", lambda *_: "page")
    out = tmp_path / "out"
    result = forge(replace(order, model=str(tiny_prior), method="head"), out)
    assert list(result["seconds"]) == list(upto) and result["headline"]
    assert load_model(out / "model").family == "prior"
    assert "Adapted from" in (out / "model" / "card.md").read_text()
    tokens = replace(order, model=str(tiny_prior.parent / "tokens"))
    with pytest.raises(RequestError, match="is of kind 'vqvae', which cannot be adapted"):
        forge(tokens, tmp_path / "never")
