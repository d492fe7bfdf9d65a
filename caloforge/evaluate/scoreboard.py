"""The numbers of the CaloChallenge for one generated sample, with errors and floors.

What `challenge`, `distances` and `networks` compute, put together: separation powers of all
histograms and of the voxel spectrum, Frechet and kernel distance of the features, precision,
recall, density and coverage of the voxels, and the neural classifiers. Values are those of whole
files, to stand beside published ones; they are judged at the size of the floor
(`Metric.matched`). Energies are in MeV over the sampling fraction 0.033.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.challenge import (
    ChallengeFeatures,
    Histogram,
    Source,
    histograms,
    voxel_blocks,
)
from caloforge.evaluate.distances import (
    Neighbours,
    frechet_distance,
    kernel_distance,
    neighbour_scores,
)
from caloforge.evaluate.metric import Key, Metric, beside_floor
from caloforge.evaluate.metrics import Estimate, separation_power
from caloforge.evaluate.samples import Trio, draw

if TYPE_CHECKING:
    from caloforge.evaluate.binning import Binning

__all__ = ["FAMILIES", "Board", "distance_metrics", "neighbour_metrics", "separation_metrics"]

Array = NDArray[Any]
FAMILIES = {
    "etot_einc": "Total over incident energy", "layer": "Energy of a layer",
    "x": "Centre of energy in x", "y": "Centre of energy in y", "x_width": "Width in x",
    "y_width": "Width in y", "r": "Radial centre", "r_width": "Radial width",
    "sparsity": "Sparsity of a layer", "voxel": "Voxel energies",
}  # fmt: skip
_PAIR = "half the sum of (h1 - h2)^2/(h1 + h2), the CaloChallenge's bins"
_EMPTY = 0.1  # MeV: stands for an empty voxel under the logarithm of the neighbour scores


@dataclass(frozen=True, eq=False)
class Board:
    """Features of the three samples and how they are drawn; `memo` keeps floors between models.

    `floor` is None where the reference is halved. Energies in MeV as the challenge stores them.
    """

    reference: ChallengeFeatures
    generated: ChallengeFeatures
    floor: ChallengeFeatures | None
    seed: int = 0
    replicas: int = 200
    memo: dict[tuple[str, int], Any] = field(default_factory=dict)

    @cached_property
    def chosen(self) -> Trio:
        """Indices (n,) of the three samples of one size, those of the other comparisons."""
        floor = None if self.floor is None else len(self.floor)
        rng = np.random.default_rng(self.seed)
        return draw(rng, len(self.reference), len(self.generated), floor)

    @cached_property
    def whole(self) -> bool:
        """Whether the samples of the floor's size are the whole files."""
        n = len(self.chosen.reference)
        return n == len(self.reference) == len(self.generated)

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the floor called `name`, made once for all models of one size."""
        key = name, len(self.chosen.reference)
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


# --- separation powers ------------------------------------------------------------------------


def separation_metrics(board: Board) -> tuple[list[Metric], list[dict[str, Any]]]:
    """Separation powers by family, the mean over the layers, and every single one as plain values.

    Bins are in MeV or mm. The error of a mean takes the layers as fully correlated.
    """
    rng = np.random.default_rng(board.seed)
    index = board.chosen
    families: dict[str, list[tuple[Estimate, Estimate, Estimate]]] = {}
    single = []
    for histogram in histograms(board.reference):
        trio = _separations(board, histogram, index, rng)
        families.setdefault(histogram.family, []).append(trio)
        single.append(_plain(histogram.name, histogram.family, histogram.layer, trio))
    if board.reference.voxels.size:
        trio = _voxel_separations(board, rng)
        families["voxel"] = [trio]
        single.append(_plain("voxel", "voxel", None, trio))
    return [_family(name, trios) for name, trios in families.items()], single


def _separations(
    board: Board, histogram: Histogram, index: Trio, rng: np.random.Generator
) -> tuple[Estimate, Estimate, Estimate]:
    """Separation power of whole files, of samples of the floor's size, and of the floor."""
    first, second = histogram.counts(board.reference), histogram.counts(board.generated)
    whole = _separation(first, second, board.replicas, rng)
    half = histogram.counts(board.reference, index.reference)
    other = board.floor or board.reference
    floor = _separation(half, histogram.counts(other, index.floor), board.replicas, rng)
    if board.whole:
        return whole, whole, floor
    drawn = histogram.counts(board.generated, index.generated)
    return whole, _separation(half, drawn, board.replicas, rng), floor


def _separation(first: Array, second: Array, replicas: int, rng: np.random.Generator) -> Estimate:
    """Separation power of counts (n_bins,), with the error of resampled showers.

    One entry a shower: to resample the showers is to draw the counts from a multinomial law.
    """
    value = float(separation_power(first, second))
    if first.sum() == 0 or second.sum() == 0:
        return Estimate(value, 0.0)
    drawn = (rng.multinomial(int(h.sum()), h / h.sum(), replicas) for h in (first, second))
    return Estimate.of(value, separation_power(*drawn))


def _voxel_separations(
    board: Board, rng: np.random.Generator
) -> tuple[Estimate, Estimate, Estimate]:
    """As `_separations` for the voxel spectrum, whose halves are alternate parts of the file."""
    reference, generated = board.reference.voxels, board.generated.voxels
    whole = _grouped(reference, generated, board.replicas, rng)
    if board.floor is not None:
        floor = _grouped(reference, board.floor.voxels, board.replicas, rng)
        return whole, whole, floor
    if min(len(reference), len(generated)) < 4:
        return whole, whole, Estimate(0.0, 0.0)
    half = _grouped(reference[::2], generated[::2], board.replicas, rng)
    return whole, half, _grouped(reference[::2], reference[1::2], board.replicas, rng)


def _grouped(first: Array, second: Array, replicas: int, rng: np.random.Generator) -> Estimate:
    """Separation power of counts (G, n_bins) summed over groups, which are resampled."""
    value = float(separation_power(first.sum(axis=0), second.sum(axis=0)))
    drawn = (
        np.stack([h[rng.integers(0, len(h), len(h))].sum(axis=0) for _ in range(replicas)])
        for h in (first, second)
    )
    return Estimate.of(value, separation_power(*drawn))


def _plain(
    name: str, family: str, layer: int | None, trio: tuple[Estimate, Estimate, Estimate]
) -> dict[str, Any]:
    whole, matched, floor = trio
    return {
        "name": name, "family": family, "layer": layer, "value": whole.value, "error": whole.error,
        "matched": matched.value, "floor": floor.value, "floor_error": floor.error,
    }  # fmt: skip


def _family(name: str, trios: list[tuple[Estimate, Estimate, Estimate]]) -> Metric:
    whole, matched, floor = (_mean([trio[k] for trio in trios]) for k in range(3))
    text = _PAIR if len(trios) == 1 else f"mean over {len(trios)} layers of: {_PAIR}"
    key = Key(f"challenge_{name}", FAMILIES[name], "separation")
    return beside_floor(key, whole, floor, f"{FAMILIES[name]}: {text}", matched=matched)


def _mean(parts: list[Estimate]) -> Estimate:
    return Estimate(
        float(np.mean([p.value for p in parts])), float(np.mean([p.error for p in parts]))
    )


# --- distances of the features ----------------------------------------------------------------

_DISTANCES: tuple[tuple[str, str, Callable[[Array, Array], Estimate], str], ...] = (
    ("fpd", "Frechet physics distance", frechet_distance,
     "Frechet distance of the high-level features over their largest magnitude, from bootstrap "
     "batches of 10,000 to 50,000 showers extrapolated to infinite size; published times 1,000"),
    ("kpd", "Kernel physics distance", kernel_distance,
     "squared mean discrepancy of the high-level features over their largest magnitude with the "
     "kernel (x.y/F + 1)^4, median of ten batches of 10,000 showers; published times 1,000"),
)  # fmt: skip


def distance_metrics(board: Board, advance: Callable[[int], None] | None = None) -> list[Metric]:
    """FPD and KPD, no unit, of the features; `advance(1)` after each of up to six distances."""
    index, other = board.chosen, board.floor or board.reference
    reference, generated = board.reference.matrix(), board.generated.matrix()
    half, drawn = reference[index.reference], generated[index.generated]

    def known(make: Callable[[], Estimate]) -> Estimate:
        found = make()
        if advance is not None:
            advance(1)
        return found

    found = []
    for name, title, distance, text in _DISTANCES:
        whole = known(lambda d=distance: d(reference, generated))  # type: ignore[misc]
        floor = board.remembered(
            name,
            lambda d=distance: known(lambda: d(half, other.matrix(index.floor))),  # type: ignore[misc]
        )
        matched = whole
        if not board.whole:
            matched = known(lambda d=distance: d(half, drawn))  # type: ignore[misc]
        found.append(
            beside_floor(Key(name, title, "distance"), whole, floor, text, matched=matched)
        )
    return found


# --- neighbours -------------------------------------------------------------------------------

_SCORES = {
    "precision": "share of the generated showers within the k-th neighbour of a Geant4 shower",
    "recall": "share of the Geant4 showers within the k-th neighbour of a generated one",
    "density": "Geant4 neighbourhoods that hold a generated shower, mean, over k",
    "coverage": "share of the Geant4 showers with a generated one within their k-th neighbour",
}


def neighbour_metrics(
    board: Board, sources: tuple[Source, Source, Source | None], most: int
) -> list[Metric]:
    """Precision, recall, density and coverage, no unit, of log10 voxels with k = 5.

    `sources`: files of reference, generated and floor. At most `most` showers of each are taken,
    drawn by the seed: the work grows with the square.
    """
    index, binning = board.chosen, board.reference.binning
    first, second, third = sources
    rng = np.random.default_rng(board.seed)
    whole_rows = [_some(len(s), most, rng) for s in (first, second)]
    n = min(most, len(index.reference))
    half = _log_voxels(first, binning, index.reference[:n])
    floor = board.remembered(
        f"neighbours {n}",
        lambda: neighbour_scores(half, _log_voxels(third or first, binning, index.floor[:n])),
    )
    matched = neighbour_scores(half, _log_voxels(second, binning, index.generated[:n]))
    whole = matched
    if not board.whole and len(whole_rows[0]) > n:
        whole = neighbour_scores(
            _log_voxels(first, binning, whole_rows[0]), _log_voxels(second, binning, whole_rows[1])
        )
    return list(_scores(whole, matched, floor, max(n, len(whole_rows[0]))))


def _some(n: int, most: int, rng: np.random.Generator) -> Array:
    return np.arange(n) if n <= most else np.sort(rng.permutation(n)[:most])


def _log_voxels(source: Source, binning: Binning, rows: Array) -> Array:
    """Logarithms (n, V), f4, of the voxels in MeV of some showers."""
    parts = [
        np.log10(np.where(v == 0, _EMPTY, v)).astype(np.float32)
        for _, v in voxel_blocks(source, binning, np.sort(rows))
    ]
    return np.concatenate(parts)


def _scores(
    whole: Neighbours, matched: Neighbours, floor: Neighbours, most: int
) -> Iterator[Metric]:
    parts = [{k: Estimate(**v) for k, v in asdict(s).items()} for s in (whole, matched, floor)]
    for name, what in _SCORES.items():
        values = [part[name] for part in parts]
        text = f"{what} (k = 5, Euclidean distance of log10 of the voxels, up to {most} showers)"
        yield beside_floor(
            Key(name, name.capitalize(), "score"), values[0], values[2], text, matched=values[1],
        )  # fmt: skip
