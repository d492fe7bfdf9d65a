"""What scoring costs: time per event with scoring over bare Geant4, in one run on the same seeds.

Every event is simulated twice in one process, bare (the sensitive detector switched off, so Geant4
returns before any Python) and scored (steps collected, turned into a sparse shower), in alternating
order, so that whatever else the machine does weighs on both alike. Run it as

    python benchmarks/simulate.py [DETECTOR] [-n EVENTS] [--energy GEV]
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np

from caloforge.detector.detector import load_detector
from caloforge.simulate.beam import Beam
from caloforge.simulate.geant4 import Geant4Engine


def measure(detector: str, n: int, energy_mev: float) -> tuple[np.ndarray, np.ndarray]:
    """Processor time (N,) in s of each event, bare and scored."""
    engine = Geant4Engine(load_detector(detector))
    beam = Beam("e-", (energy_mev, energy_mev), (np.pi / 2, np.pi / 2))
    primaries = beam.primaries(seed=1, start=0, n=n)
    engine.run(primaries[:2])  # the first events build Geant4's tables
    seconds = np.zeros((2, n))
    for i in range(n):
        for scored in (i % 2, 1 - i % 2):
            engine.score(bool(scored))
            seconds[scored, i] = engine.run(primaries[i : i + 1])[1]["seconds"][0]
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector", nargs="?", default="par04-siw")
    parser.add_argument("-n", type=int, default=50, help="events (default 50)")
    parser.add_argument("--energy", type=float, default=10.0, help="GeV (default 10)")
    given = parser.parse_args()
    bare, scored = measure(given.detector, given.n, given.energy * 1e3)
    rng = np.random.default_rng(0)
    picks = rng.integers(given.n, size=(1000, given.n))
    error = np.std(scored[picks].sum(1) / bare[picks].sum(1))
    print(f"{given.detector}, {given.n} electrons of {given.energy:g} GeV")
    print(f"bare Geant4   {1e3 * bare.mean():8.1f} ms/event")
    print(f"with scoring  {1e3 * scored.mean():8.1f} ms/event")
    print(
        f"ratio         {scored.sum() / bare.sum():8.3f} +- {error:.3f}  (at most 1.25 is wanted)"
    )
    sys.stdout.flush()
    os._exit(0)  # Geant4's own clean-up is of no use here


if __name__ == "__main__":
    main()
