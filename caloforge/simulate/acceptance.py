"""Which primaries a simulated calorimeter can take: the polar angles that its cylinders cover.

The cylinders of a stack are built long enough for primaries of polar angle `STEEPEST` to
pi - `STEEPEST` (rad). A GDML geometry decides for itself, event by event.
"""

from __future__ import annotations

import math

from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.simulate.beam import Beam

__all__ = ["STEEPEST", "check_acceptance"]

STEEPEST = 0.3  # rad, a pseudorapidity of 1.9


def check_acceptance(detector: Detector, beam: Beam) -> None:
    """Raise `RequestError` if some primaries of `beam` could miss the detector's cylinders."""
    if detector.gdml is not None:
        return
    low, high = beam.theta
    if low < STEEPEST or high > math.pi - STEEPEST:
        raise RequestError(
            f"theta {low:g}:{high:g} is outside what the cylinders of '{detector.name}' cover; "
            f"keep it within {STEEPEST:g}:{math.pi - STEEPEST:.4f} rad"
        )
