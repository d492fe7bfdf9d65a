"""Milliseconds a shower, as an event loop pays them: Geant4, PyTorch and ONNX Runtime in one run.

    python benchmarks/latency.py student [--detector par04-siw] [--steps K] [-n 100]

The same primaries (electrons, 1-100 GeV log-uniform) for all. Geant4 is timed event by event on one
core; the mean over energies that are uniform from 1 to 100 GeV is that of the same events weighted
with their energy. The model is timed in batches of 1, 10 and 100 on one core and on all; the share
of peak is its arithmetic over that of a large matrix product on as many threads. Memory is what a
process holds at most, libraries included. Ratios are to Geant4's mean, log-uniform.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.simulate.beam import Beam, Primaries

BATCHES = (1, 10, 100)
Floats = NDArray[np.float32]


def beam(n: int) -> Primaries:
    return Beam().primaries(1, 0, n)


def columns(n: int) -> Floats:
    p = beam(n)
    return np.stack([p.energy, p.theta, p.phi, p.pdg.astype(np.float32)], axis=1)


def torch_run(asked: argparse.Namespace) -> tuple[Callable[[Floats, Floats], object], int, float]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from caloforge.deploy.export import one_call
    from caloforge.detector.detector import load_detector
    from caloforge.learn.checkpoint import load_model
    from caloforge.learn.throughput import peak_flops

    inner = one_call(load_model(asked.model), load_detector(asked.detector), asked.steps)

    @torch.inference_mode()
    def run(conditions: Floats, noise: Floats) -> object:
        return inner(torch.from_numpy(conditions), torch.from_numpy(noise))

    with FlopCounterMode(display=False) as counter:
        run(columns(1), np.zeros((1, inner.noise), np.float32))
    share = counter.get_total_flops() / peak_flops(torch.device("cpu"))  # seconds at the peak
    return run, inner.noise, 1e3 * share


def onnx_run(asked: argparse.Namespace) -> tuple[Callable[[Floats, Floats], object], int, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(asked.file, options)
    width = session.get_inputs()[1].shape[1]
    return lambda c, n: session.run(None, {"conditions": c, "noise": n}), width, 0.0


def held() -> float:
    """Largest memory of this process in MB; getrusage would give that of its parent, if larger."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def measure(asked: argparse.Namespace) -> None:
    """In a process of its own: print the milliseconds and the memory of one engine."""
    if asked.engine == "geant4":
        from caloforge.detector.detector import load_detector
        from caloforge.simulate.geant4 import Geant4Engine

        _, record = Geant4Engine(load_detector(asked.detector)).run(beam(asked.n))
        found: dict[str, object] = {"ms": (1e3 * record["seconds"]).tolist()}
    else:
        run, width, ideal = {"torch": torch_run, "onnx": onnx_run}[asked.engine](asked)
        rng, times = np.random.default_rng(0), {}
        for batch in BATCHES:
            calls = max(4, asked.n // batch)
            conditions = np.resize(columns(asked.n), (calls, batch, 4))
            spent = []
            for part in (conditions[0], conditions[0], *conditions):  # two to warm up
                noise = rng.standard_normal((batch, width), np.float32)
                began = time.perf_counter()
                run(part, noise)
                spent.append(1e3 * (time.perf_counter() - began) / batch)
            times[batch] = spent[2:]
        found = {"ms": times, "ideal": ideal}
    found["megabytes"] = held()
    sys.__stdout__.write("\n" + json.dumps(found) + "\n")


def apart(asked: argparse.Namespace, engine: str, threads: int, file: Path) -> dict[str, object]:
    options = {"--detector": asked.detector, "-n": asked.n, "--engine": engine, "--file": file}
    if asked.steps is not None:
        options["--steps"] = asked.steps
    command = [sys.executable, __file__, asked.model]
    command += [str(word) for option in options.items() for word in option]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, object] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--detector", default="par04-siw")
    parser.add_argument("--steps", type=int)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--engine", choices=["geant4", "torch", "onnx"])
    parser.add_argument("--file", default="")
    asked = parser.parse_args()
    if asked.engine:
        measure(asked)
        return
    from caloforge.deploy.export import export

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        written = export(asked.model, file, detector=asked.detector, steps=asked.steps)
        geant4 = apart(asked, "geant4", 1, file)
        ms, energy = np.array(geant4["ms"]), beam(asked.n).energy
        log, error = ms.mean(), ms.std() / len(ms) ** 0.5
        print(f"{asked.model}, {written['steps']} steps, {asked.detector}, {asked.n} electrons")
        uniform = np.average(ms, weights=energy)
        line = f"Geant4, one core: {log:.1f} +- {error:.1f} ms log-uniform, {uniform:.1f} uniform, "
        print(line + f"{geant4['megabytes']:.0f} MB")
        print("engine  threads  batch  ms/shower (median)  Geant4/model  share of peak  MB")
        ideal: dict[int, float] = {}
        for threads in sorted({1, os.cpu_count() or 1}):
            for engine in ("torch", "onnx"):
                found = apart(asked, engine, threads, file)
                times: dict[str, list[float]] = found["ms"]  # type: ignore[assignment]
                if engine == "torch":
                    ideal[threads] = float(found["ideal"])  # type: ignore[arg-type]
                for batch, spent in times.items():
                    middle = float(np.median(spent))
                    line = f"{engine:7} {threads:7} {batch:>6} {middle:19.2f} {log / middle:13.0f} "
                    line += f"{ideal[threads] / middle:14.2f} {found['megabytes']:5.0f}"
                    print(line, flush=True)


if __name__ == "__main__":
    main()
