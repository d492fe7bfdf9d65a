"""What correcting the whitening alone gains, against showers: the second table of docs/adapt.md.

    python recipes/whitening_curve.py TRAIN.h5 TEST.h5 [--model base] [--showers 0 100 300] [-n 300]

Voxels add up to layers and layers to the total, so response, resolution, depth and hits of a shower
are settled by the energies, which are drawn first and cheaply. They are drawn once, for the
primaries of TEST, and turned into MeV by the whitening as it is and as it is corrected with the
first so many showers of TRAIN.
"""

from __future__ import annotations

import argparse
import copy
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch

from caloforge.detector.detector import Detector
from caloforge.learn.calibration import Draw, calibrate
from caloforge.learn.checkpoint import load_model
from caloforge.learn.condition import Conditions, conditions
from caloforge.learn.memory import keep_freed_memory
from caloforge.learn.models.family import family
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import CUT_MEV, ShowerScale
from caloforge.showers.formats import open_showers

Read = tuple[torch.Tensor, Conditions, Detector]
Seen = tuple[np.ndarray, np.ndarray]  # energies (N, Z) in MeV and hits (N, Z) of layers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--showers", type=int, nargs="+", default=[0, 100, 300])
    parser.add_argument("-n", type=int, default=300)
    asked = parser.parse_args()
    keep_freed_memory()
    model = load_model(asked.model)
    voxels, told, detector = read(asked.test, asked.n)
    truth = voxels.sum((1, 2)).numpy(), (voxels >= CUT_MEV).sum((1, 2)).numpy()
    shape = model.network.config.shape
    tuning = family(model.family).tuning(model, asked.model, shape)
    draw = partial(tuning.energies, model.network)
    white = drawn(draw, told)
    for showers in asked.showers:
        scale, seconds = copy.deepcopy(model.scale), 0.0
        if showers:
            began = time.process_time()
            calibrate(scale, draw, *read(asked.train, showers)[:2])
            seconds = time.process_time() - began
        cells = row(made(scale, white, told), truth, told.energy.numpy(), detector)
        print(f"| {detector.name} | {showers} | {seconds:.0f} | {' | '.join(cells)} |", flush=True)


def read(path: Path, n: int) -> Read:
    with closing(open_showers(path)) as source:
        showers = source.read(0, min(n, len(source)))
        detector = source.detector
    assert detector is not None
    number = np.zeros(len(showers), np.int64)
    told = conditions([detector], number, showers.energy, showers.theta, showers.pdg)
    return torch.from_numpy(showers.dense()), told, detector


@torch.inference_mode()
def drawn(draw: Draw, told: Conditions) -> torch.Tensor:
    """Whitened energies (N, K), always from the same noise."""
    seeds = np.arange(10**6, 10**6 + 2 * told.showers, 2, dtype=np.uint64)
    parts = []
    for start in range(0, told.showers, 64):
        some = Conditions(*(part[start : start + 64] for part in told))
        parts.append(draw(some, Noise(seeds[start : start + 64], some.energy.device)))
    return torch.cat(parts)


def made(scale: ShowerScale, white: torch.Tensor, told: Conditions) -> Seen:
    hits = scale.hits(white, told)
    return scale.layer_energies(white, told, hits > 0).numpy(), hits.numpy()


def row(ours: Seen, theirs: Seen, energy: np.ndarray, detector: Detector) -> list[str]:
    """Response, resolution, depth (mm), its spread and hits, relative to Geant4's, with errors."""
    z, draw, replicas = detector.mesh.centres_z, np.random.default_rng(0), []
    for replica in range(201):
        n = len(energy)
        rows = draw.integers(0, n, n) if replica else np.arange(n)
        one, other = (numbers(a[rows], b[rows], energy[rows], z) for a, b in (ours, theirs))
        replicas.append(np.where(np.arange(5) == 2, one - other, one / other))
    values, errors = replicas[0], np.std(replicas[1:], axis=0)
    digits = (3, 2, 2, 2, 3)
    return [f"{v:.{d}f} ± {e:.{d}f}" for v, e, d in zip(values, errors, digits, strict=True)]


def numbers(layers: np.ndarray, hits: np.ndarray, energy: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mean response, its spread about a parabola in log energy, mean depth and its spread, hits."""
    x, total = np.log(energy), layers.sum(1)
    response, depth = total / energy, (layers * z).sum(1) / total
    spreads = [y - np.polyval(np.polyfit(x, y, 2), x) for y in (np.log(response), depth)]
    return np.array(
        [response.mean(), spreads[0].std(), depth.mean(), spreads[1].std(), hits.sum(1).mean()]
    )


if __name__ == "__main__":
    main()
