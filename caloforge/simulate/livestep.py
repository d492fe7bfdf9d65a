"""Where Geant4's current step lies in memory, so that looking at it costs no call into Geant4.

Geant4 uses one ``G4Step`` object for all its steps, at one address. Asking it through the binding
costs some microseconds for a step that deposits energy, which is a good part of what Geant4 itself
needs for the step. `live_views` instead finds the two places, once, and gives windows on them.

This rests on how the binding lays out its objects (pybind11: the second word after the Python
header leads to the C++ object) and on the first members of two classes of Geant4 (``G4Step``: the
total energy deposit; ``G4StepPoint``: the position). So it is done only for the versions of the
binding in `KNOWN`, and only after what is read there has been seen to equal, bit for bit, what the
binding answers. Everywhere else the binding is asked; the showers are the same.
"""

from __future__ import annotations

import ctypes
from importlib import metadata
from typing import Any

__all__ = ["KNOWN", "live_views"]

KNOWN = frozenset({"0.1.3"})  # versions of geant4-pybind whose layout was checked


def live_views(step: Any) -> tuple[Any, Any] | None:
    """Give windows on the deposit (1 double, MeV) and the post-step point (3 doubles, mm).

    They show the current step at any later time. `step` must have deposited energy. Returns None
    when the layout is not known or does not show what `step` says of itself.
    """
    if metadata.version("geant4-pybind") not in KNOWN:
        return None
    deposit = _doubles(_address(step), 1)
    point = _doubles(_address(step.GetPostStepPoint()), 3)
    said = step.GetPostStepPoint().GetPosition()
    if deposit[0] != step.GetTotalEnergyDeposit() or not deposit[0]:
        return None
    if point.tolist() != [said.x, said.y, said.z]:
        return None
    return deposit, point


def _address(wrapped: Any) -> int:
    """Address of the C++ object behind one of the binding's objects."""
    header = object.__basicsize__
    place = ctypes.c_size_t.from_address(id(wrapped) + header).value
    return ctypes.c_size_t.from_address(place).value


def _doubles(address: int, n: int) -> Any:
    return memoryview((ctypes.c_double * n).from_address(address)).cast("B").cast("d")
