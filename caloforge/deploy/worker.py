"""A worker process of the fast simulation: Geant4 with a gate before its calorimeter.

The same worker as the full simulation's (`caloforge.simulate.worker`), with one engine of its own;
started as ``python -m caloforge.deploy.worker``. Energies in MeV.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caloforge.deploy.gate import Gate
from caloforge.deploy.maker import open_maker
from caloforge.detector.detector import Detector
from caloforge.showers.showers import Showers
from caloforge.simulate.beam import Primaries
from caloforge.simulate.geant4 import Geant4Engine
from caloforge.simulate.worker import Job, Record, serve

__all__ = ["NAME", "FastEngine"]

NAME = "fastsim"


class FastEngine:
    """Geant4 in which a model makes the showers; once per process.

    `job.options`: ``model``, ``steps``, ``above_mev``. Raises `RequestError` as `Geant4Engine`.
    """

    def __init__(self, detector: Detector, job: Job) -> None:
        maker = open_maker(job.options["model"], job.options["steps"])
        self.gate = Gate(detector, maker, job.options["above_mev"])
        self.engine = Geant4Engine(detector, job.physics, self.gate)
        self.info: dict[str, Any] = {**self.engine.info, **maker.info}

    def run(
        self, primaries: Primaries, on_event: Callable[[], None] = lambda: None
    ) -> tuple[Showers, Record]:
        """Simulate the primaries, the model's share by the model.

        Returns the showers and the record of the events: ``seconds`` (N,), and their books (N,),
        see `caloforge.deploy.books`.
        """
        showers, record = self.engine.run(primaries, on_event)
        return showers, {**record, **self.gate.books.take()}


if __name__ == "__main__":
    serve({NAME: FastEngine})
