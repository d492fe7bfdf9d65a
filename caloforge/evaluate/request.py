"""A validation of files by their paths: opened in any dialect, named, and sent the right way.

Files of showers on a mesh go to `validation`, voxels of the CaloChallenge on none to `irregular`.
Timings are in ms per shower.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from caloforge.errors import RequestError
from caloforge.evaluate.irregular import binning_of, validate_voxels
from caloforge.evaluate.timing import read_timing
from caloforge.evaluate.validation import Options, validate
from caloforge.showers.dialects import VoxelFile
from caloforge.showers.formats import open_showers

__all__ = ["validate_files"]


def validate_files(
    reference: Path,
    generated: Sequence[Path],
    out: Path,
    floor: Path | None = None,
    *,
    labels: Sequence[str] | None = None,
    options: Options | None = None,
    timings: Sequence[Path] | None = None,
    binning: Path | None = None,
) -> dict[str, Any]:
    """Compare files with a reference file of Geant4 showers; returns what ``metrics.json`` holds.

    `labels`: of the generated files, in their order; by default "generated", or the names of the
    files if there are several. `timings`: what `caloforge timing` wrote (ms per shower), in the
    same order. `binning`: XML (mm) of a CaloChallenge file on no mesh; that of dataset 1 is known.
    Raises `RequestError` for files that are missing or do not belong together.
    """
    names = _names(generated, labels or [])
    given: dict[str, Any] = {
        "labels": ["Geant4", *names], "options": options, "timings": _timed(names, timings or []),
    }  # fmt: skip
    paths = [reference, *generated, *([floor] if floor else [])]
    layers = binning_of(reference, binning)
    with ExitStack() as stack:
        if layers is not None:
            voxels = [stack.enter_context(closing(VoxelFile(path))) for path in paths]
            last = voxels.pop() if floor else None
            return validate_voxels(voxels[0], voxels[1:], layers, out, last, **given)
        opened = [stack.enter_context(closing(open_showers(path))) for path in paths]
        more = opened.pop() if floor else None
        return validate(opened[0], opened[1:], out, more, **given)


def _names(generated: Sequence[Path], given: Sequence[str]) -> list[str]:
    if given and len(given) != len(generated):
        raise RequestError(
            f"{len(generated)} generated files need as many labels, not {len(given)}"
        )
    if given or len(generated) == 1:
        return list(given) or ["generated"]
    stems = [path.stem for path in generated]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in generated]


def _timed(names: Sequence[str], paths: Sequence[Path]) -> dict[str, Any]:
    if paths and len(paths) != len(names):
        raise RequestError(f"{len(names)} generated files need as many timings, not {len(paths)}")
    return {name: read_timing(path) for name, path in zip(names, paths, strict=False)}
