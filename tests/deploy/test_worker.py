"""The worker of the fast simulation, in a process of its own as it is run: one crossing, one fate."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, os, sys
import numpy as np
from caloforge.deploy.worker import NAME, FastEngine
from caloforge.detector.detector import load_detector
from caloforge.simulate.beam import Beam
from caloforge.simulate.worker import Job
detector = load_detector(sys.argv[2])
job = Job("", {}, 0, NAME, "em0", "", "",
          {"model": sys.argv[1], "steps": 1, "above_mev": 0.0})
engine = FastEngine(detector, job)
seen = []
gate = engine.gate
enter = gate.enter
gate.enter = lambda particle: seen.append(particle) or enter(particle)
primaries = Beam("e-,gamma", (2e3, 2e4)).primaries(3, 0, 5)
together, record = engine.run(primaries)
alone = [engine.run(primaries[i : i + 1])[0] for i in (3, 0, 4, 1, 2)]
stack = detector.described_stack()
sys.stdout.flush()
os.write(2, (json.dumps({
    "taken": record["taken"].tolist(), "events": len(record["seconds"]),
    "radius": max(abs(np.hypot(*p.position[:2]) - stack.inner_radius_mm) for p in seen),
    "energy": np.abs(np.array([p.energy for p in seen[:5]]) / primaries.energy - 1).max(),
    "theta": max(abs(p.theta - t) for p, t in zip(seen, primaries.theta.astype(float))),
    "phi": max(abs(p.phi - f) for p, f in zip(seen, primaries.phi.astype(float))),
    "same": all(np.array_equal(a.dense()[0], together.dense()[i])
                for i, a in zip((3, 0, 4, 1, 2), alone)),
    "gone": all(len(values) == 0 for values in gate.books.take().values()),
    "info": engine.info,
}) + "\\n").encode())
os._exit(0)
"""


def test_particles_are_stopped_at_the_surface_with_all_they_have(model, small_file) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(model), str(small_file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stderr.strip().splitlines()[-1])
    assert said["taken"] == [1] * 5 and said["events"] == 5
    assert said["radius"] < 1e-9
    assert said["energy"] < 1e-6 and said["theta"] < 1e-12 and said["phi"] < 1e-12
    assert said["same"] and said["gone"]
    assert said["info"]["geant4"].startswith("11.") and "model_sha256" in said["info"]
