"""The calorimeter as Geant4 volumes: from a stack of cylinders or from a GDML file.

*Stack.* Tubes around the beam, absorber first and the active layer outside it, repeated outward
from the inner radius, so long that a primary of `ACCEPTANCE` crosses all of them. World and cavity
are vacuum (``G4_Galactic``), where Geant4's Par04 has air: a primary from the origin reaches the
inner surface with the energy and direction it is stored with, and the mesh frame starts exactly
there. The 800 mm of air left out are 0.3 % of a radiation length. About sqrt(layers) layers share
an (empty) mother tube: a track then asks some twenty volumes for their distance instead of all,
which makes Geant4 more than twice as fast and changes no boundary that a particle sees.

*GDML* (Chytracek et al., doi:10.1109/TNS.2006.881062), read by Geant4's own parser, without its
schema (which would be fetched over the network). A volume is sensitive when one of the detector's
regular expressions matches the whole name of its logical volume. The entrance is the point where
the straight line from the origin first enters the volume that `entrance` names (its logical or its
placed volume), asked of Geant4's navigator as it would be asked by a geantino. What lies before
that volume is there, and showers may begin in it.

Lengths are mm, angles rad. This module imports ``geant4_pybind``: activate the data first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.detector.detector import Detector, Gdml, Stack
from caloforge.errors import RequestError
from caloforge.simulate.acceptance import STEEPEST

__all__ = ["Geometry", "build", "direction"]

MARGIN_MM = 500.0  # beyond the last primary's crossing of the outer radius, for its shower
OUTSIDE_MM = 1e30  # Geant4 answers 9e99 for "leaves the world"


@dataclass
class Geometry:
    """Built volumes: the world, the sensitive logical volumes, and where a primary enters.

    `entrance(theta, phi)` is the point (3,) in mm. `kept` holds what Python must not collect.
    """

    world: Any
    sensitive: list[Any]
    entrance: Callable[[float, float], NDArray[np.float64]]
    kept: list[Any] = field(default_factory=list)


def direction(theta: float, phi: float) -> NDArray[np.float64]:
    """Unit vector (3,) of polar angle `theta` and azimuth `phi` in rad."""
    return np.array(
        [math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)]
    )


def build(detector: Detector) -> Geometry:
    """Build the volumes of a detector; its GDML where it has one, else its stack.

    Raises `RequestError` for a GDML file that cannot be read or does not have the volumes named.
    """
    if detector.gdml is not None:
        return _build_gdml(detector.gdml)
    return _build_stack(detector.described_stack())


def _build_stack(stack: Stack) -> Geometry:
    half = stack.outer_radius_mm / math.tan(STEEPEST) + MARGIN_MM
    side = stack.outer_radius_mm + 1.0
    box = g4.G4Box("world", side, side, half + 1.0)
    vacuum = _material("G4_Galactic")
    logical = g4.G4LogicalVolume(box, vacuum, "world")
    world = g4.G4PVPlacement(None, g4.G4ThreeVector(), logical, "world", None, False, 0)
    geometry = Geometry(world, [], lambda theta, phi: _on_cylinder(stack, theta, phi))
    geometry.kept += [box, logical, world]
    _fill(geometry, stack, half, logical)
    return geometry


def _fill(geometry: Geometry, stack: Stack, half: float, world: Any) -> None:
    group = math.ceil(math.sqrt(stack.layers))
    pitch, vacuum = stack.pitch_mm, _material("G4_Galactic")
    for first in range(0, stack.layers, group):
        last = min(first + group, stack.layers)
        inner = stack.inner_radius_mm + first * pitch
        outer = stack.inner_radius_mm + last * pitch
        mother = _tube(geometry, "group", (inner, outer, half), vacuum, world, first)
        for layer in range(first, last):
            _place_layer(geometry, stack, half, mother, layer)


def _place_layer(geometry: Geometry, stack: Stack, half: float, mother: Any, layer: int) -> None:
    inner = stack.inner_radius_mm + layer * stack.pitch_mm
    outer = stack.inner_radius_mm + (layer + 1) * stack.pitch_mm
    middle = inner
    if stack.absorber is not None:
        middle = inner + stack.absorber.thickness_mm
        size = (inner, middle, half)
        _tube(geometry, "absorber", size, _material(stack.absorber.material), mother, layer)
    active = _material(stack.active.material)
    geometry.sensitive.append(
        _tube(geometry, "active", (middle, outer, half), active, mother, layer)
    )


def _tube(
    geometry: Geometry,
    name: str,
    size: tuple[float, float, float],
    what: Any,
    mother: Any,
    copy: int,
) -> Any:
    """Place a tube of `size` (inner radius, outer radius, half length) in mm."""
    solid = g4.G4Tubs(name, *size, 0.0, 2 * math.pi)
    logical = g4.G4LogicalVolume(solid, what, name)
    placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), logical, name, mother, False, copy)
    geometry.kept += [solid, logical, placed]
    return logical


def _material(name: str) -> Any:
    found = g4.G4NistManager.Instance().FindOrBuildMaterial(name)
    if found is None:
        raise RequestError(f"Geant4 does not know the material '{name}'; use a NIST name, G4_...")
    return found


def _on_cylinder(stack: Stack, theta: float, phi: float) -> NDArray[np.float64]:
    return direction(theta, phi) * (stack.inner_radius_mm / math.sin(theta))


def _build_gdml(gdml: Gdml) -> Geometry:
    parser = _parse(gdml)
    world = parser.GetWorldVolume()
    tree = list(_descend(world, set()))
    logical = {lv.GetName(): lv for _, lv in tree}
    chosen = [
        lv for name, lv in logical.items() if any(re.fullmatch(p, name) for p in gdml.sensitive)
    ]
    if not chosen:
        raise RequestError(
            f"no logical volume of '{gdml.file}' is called like {gdml.sensitive}; "
            f"correct [gdml] sensitive, there are {_some(logical)}"
        )
    placed = {pv.GetName() for pv, _ in tree}
    if gdml.entrance not in placed | set(logical):
        raise RequestError(
            f"'{gdml.file}' has no volume '{gdml.entrance}'; "
            f"correct [gdml] entrance, there are {_some(logical)}"
        )
    entrance = _Entrance(world, gdml.entrance)
    kept = [parser, world, entrance, *(item for pair in tree for item in pair)]
    return Geometry(world, chosen, entrance, kept)


def _parse(gdml: Gdml) -> Any:
    """Read the file; what Geant4 would abort the process for is refused here first."""
    try:
        root = ElementTree.parse(gdml.file).getroot()
    except OSError as error:
        raise RequestError(f"cannot read GDML file '{gdml.file}': {error.strerror}") from None
    except ElementTree.ParseError as error:
        raise RequestError(f"'{gdml.file}' is no GDML: {error}") from None
    missing = [part for part in ("solids", "structure", "setup") if root.find(part) is None]
    if missing:
        raise RequestError(f"'{gdml.file}' is no GDML: it has no <{missing[0]}>")
    parser = g4.G4GDMLParser()
    parser.Read(str(gdml.file), False)  # the schema would be asked for over the network
    return parser


def _descend(placed: Any, seen: set[str]) -> Iterator[tuple[Any, Any]]:
    """Go through (placed, logical) volumes, each logical volume once."""
    logical = placed.GetLogicalVolume()
    if logical.GetName() in seen:
        yield placed, logical
        return
    seen.add(logical.GetName())
    yield placed, logical
    for number in range(logical.GetNoDaughters()):
        yield from _descend(logical.GetDaughter(number), seen)


def _some(names: dict[str, Any]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


class _Entrance:
    """Follows the straight line from the origin to the first point in the named volume."""

    def __init__(self, world: Any, name: str) -> None:
        self.name = name
        self.navigator = g4.G4Navigator()
        self.navigator.SetWorldVolume(world)

    def __call__(self, theta: float, phi: float) -> NDArray[np.float64]:
        """Return the entrance (3,) in mm; `RequestError` when the line misses the volume."""
        axis = g4.G4ThreeVector(*direction(theta, phi))
        point = g4.G4ThreeVector(0.0, 0.0, 0.0)
        self.navigator.ResetStackAndState()
        volume = self.navigator.LocateGlobalPointAndSetup(point, axis, False, False)
        while volume is not None:
            if self._inside():
                return np.array([point.x, point.y, point.z])
            step = self.navigator.ComputeStep(point, axis, 9e99, 0.0)
            if step > OUTSIDE_MM:
                break
            point = point + axis * step
            self.navigator.SetGeometricallyLimitedStep()
            volume = self.navigator.LocateGlobalPointAndSetup(point, axis, True, False)
        raise RequestError(
            f"a primary at theta {theta:.4f}, phi {phi:.4f} does not enter '{self.name}'; "
            "narrow --theta and --phi"
        )

    def _inside(self) -> bool:
        """Whether the named volume is the located one or one of its mothers."""
        history = self.navigator.CreateTouchableHistory()
        for depth in range(history.GetHistoryDepth() + 1):
            placed = history.GetVolume(depth)
            if self.name in (placed.GetName(), placed.GetLogicalVolume().GetName()):
                return True
        return False
