"""How fast each size trains, and which share of the machine's arithmetic that uses.

    python benchmarks/train.py SHOWERS.h5 [--sizes tiny small base] [--seconds 20] [--device cpu]

Showers per second of whole training steps (data, preprocessing, loss, backward, optimiser), their
arithmetic over that of a large matrix product on the same device (model-flop utilisation), and the
time relative to the first size.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from caloforge.learn.recipe import Recipe
from caloforge.learn.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("showers", nargs="+")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, {torch.get_num_threads()} threads, batch {asked.batch}")
    print("size    showers/s  share of peak  time per shower")
    first = None
    for size in asked.sizes:
        recipe = Recipe(
            size=size, data=asked.showers, steps=10**6, batch=asked.batch, scale_steps=50,
            precision=asked.precision, validate_every=10**6, checkpoint_minutes=60,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Path(folder) / "run", minutes=5 / 60)  # warms up
            done = train(recipe, Path(folder) / "run", resume=True, minutes=asked.seconds / 60)
        first = first or done.showers_per_second
        print(f"{size:7} {done.showers_per_second:9.1f}  {done.utilisation:13.3f}  "
              f"{first / done.showers_per_second:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
