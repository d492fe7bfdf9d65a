"""Validation of voxels that lie on no mesh: dataset 1 of the CaloChallenge, or any binning XML.

There are no rings and slices here to take profiles and moments of, so a generated sample is judged
by the challenge's own numbers, by response and resolution against energy (MeV), and by classifiers;
everything else is as in `validation`: floors, errors, a verdict, two files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.evaluate.binning import DATASET_1, Binning, read_binning
from caloforge.evaluate.challenge import ChallengeFeatures, challenge_features, voxel_edges
from caloforge.evaluate.classifier import classifier_auc
from caloforge.evaluate.compare import MIN_SHOWERS, Comparison, classifier_metric, response_metrics
from caloforge.evaluate.contest import network_metrics, posterior
from caloforge.evaluate.maps import Figure
from caloforge.evaluate.metric import Key, Metric
from caloforge.evaluate.plots import response_figures
from caloforge.evaluate.resolution import energy_bins, fit_resolution
from caloforge.evaluate.samples import Trio
from caloforge.evaluate.scoreboard import (
    Board,
    distance_metrics,
    neighbour_metrics,
    separation_metrics,
)
from caloforge.evaluate.validation import FORMAT, Clock, Judged, Options, model_record, write
from caloforge.evaluate.verdict import THRESHOLD, judge, judge_all
from caloforge.files import claimed_folder
from caloforge.progress import progress
from caloforge.showers.dialects import VoxelFile

__all__ = ["binning_of", "validate_voxels"]

Array = NDArray[Any]


def binning_of(path: Path, xml: Path | None = None) -> Binning | None:
    """Binning of a challenge file whose voxels are on no mesh (edges in mm); None for other files.

    `xml`: a binning of the user's, which then must fit. Raises `RequestError` if it does not.
    """
    if xml is None:
        try:
            file = VoxelFile(path)
        except RequestError:
            return None  # another dialect, or a fault that its reader names
        n = file.n_voxels
        file.close()
        return DATASET_1.get(n)
    binning = read_binning(xml)
    file = VoxelFile(path)
    n = file.n_voxels
    file.close()
    if n != binning.n_voxels:
        raise RequestError(
            f"'{path}' has {n} voxels a shower, the binning '{xml}' {binning.n_voxels}; "
            "take the binning that belongs to the file"
        )
    return binning


def validate_voxels(
    reference: VoxelFile,
    generated: Sequence[VoxelFile],
    binning: Binning,
    out: Path,
    floor: VoxelFile | None = None,
    *,
    labels: Sequence[str] = ("Geant4", "generated"),
    options: Options | None = None,
    timings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare files of voxels on no mesh; write ``metrics.json`` and ``report.html`` into `out`.

    As `validate`, energies in MeV as the challenge stores them; the cut is the binning's.
    """
    from caloforge.evaluate.report import rendered

    wanted = options or Options()
    files = [reference, *generated, *([floor] if floor is not None else [])]
    _check(files, binning, floor is not None, wanted)
    with claimed_folder(Path(out)):
        names = [*labels, f"{labels[0]} (floor)"][: len(files)]
        edges = voxel_edges(reference, binning)
        features = [
            _featured(f, binning, edges, name) for f, name in zip(files, names, strict=True)
        ]
        work = _Samples(files, features, list(labels), floor is not None, wanted)
        judged = [work.judge(k) for k in range(1, len(labels))]
        contest = posterior(features, labels, wanted) if len(judged) > 1 else {}
        warnings = work.warnings()
        judged = [_with_verdict(j, labels[0], bool(warnings)) for j in judged]
        first = judged[0].comparison
        record = {
            "format": FORMAT, "verdict": asdict(judge_all(judged, labels[0], contest)),
            "warnings": warnings, "seed": wanted.seed, "cut_mev": binning.cut,
            "sample_size": first.size, "floor": first.floor_from, "threshold_sigmas": THRESHOLD,
            "tolerances": {}, "log_posterior": {k: asdict(v) for k, v in contest.items()},
            "models": [model_record(j, (timings or {}).get(j.label)) for j in judged],
            "files": [_file(*row) for row in zip(names, files, features, strict=True)],
        }  # fmt: skip
        page = rendered(record, list(labels), judged, _figures(labels, judged), None)
        write(Path(out), record, page)
    return record


def _check(files: Sequence[VoxelFile], binning: Binning, own: bool, options: Options) -> None:
    for file in files:
        if file.n_voxels != binning.n_voxels:
            raise RequestError(
                f"'{file.path}' has {file.n_voxels} voxels a shower, the reference's binning "
                f"{binning.n_voxels}; compare files of one binning"
            )
    least = [MIN_SHOWERS if own else 2 * MIN_SHOWERS, *[MIN_SHOWERS] * (len(files) - 1)]
    for file, n in zip(files, least, strict=True):
        if len(file) < n:
            raise RequestError(f"'{file.path}' has {len(file)} showers; give at least {n}")
    if "resnet" in options.classifiers:
        raise RequestError("the residual network needs voxels on a mesh; choose other classifiers")


def _featured(file: VoxelFile, binning: Binning, edges: Array, name: str) -> ChallengeFeatures:
    with progress(f"features of {name}", len(file), "showers") as advance:
        return challenge_features(file, binning, edges, advance)


class _Samples:
    """All samples with their features: the reference first, the floor last."""

    def __init__(
        self, files: Sequence[VoxelFile], features: Sequence[ChallengeFeatures],
        labels: list[str], own: bool, options: Options,
    ) -> None:  # fmt: skip
        self.files, self.features, self.labels, self.own = files, features, labels, own
        self.options, self.memo = options, dict[tuple[str, int], Any]()

    def judge(self, k: int) -> Judged:
        """Compare the k-th sample with the reference."""
        options, clock = self.options, Clock()
        floor = self.features[-1] if self.own else None
        board = Board(self.features[0], self.features[k], floor, options.seed, memo=self.memo)
        files = self.files[0], self.files[k], self.files[-1] if self.own else None
        with progress(f"comparing {self.labels[k]}", 4, "parts") as advance:
            comparison = self._compared(board)
            clock.lap("response and trees", advance)
            found, single = separation_metrics(board)
            clock.lap("histograms of the challenge", advance)
            found += distance_metrics(board)
            clock.lap("FPD and KPD", advance)
            if options.neighbours:
                found += neighbour_metrics(board, files, options.neighbours)
            clock.lap("neighbours", advance)
        for name in options.classifiers:
            if name != "trees":
                found += network_metrics(name, board, files, options.trainings)
                clock.lap(f"classifier on {name}")
        return Judged(self.labels[k], comparison, None, [], found, single, clock.seconds)

    def _compared(self, board: Board) -> Comparison:
        index, other = board.chosen, board.floor or board.reference
        bins = energy_bins(board.reference, board.generated)
        found: list[Metric] = []
        if "trees" in self.options.classifiers:
            found.append(_trees(board, other, index, self.options.seed))
        pairs = (
            ((other.energy, other.response), (board.reference.energy, board.reference.response))
            if self.own
            else tuple((board.reference.energy[i], board.reference.response[i])
                       for i in (index.floor, index.reference))
        )  # fmt: skip
        found += response_metrics(bins, *pairs)
        fits = tuple(fit_resolution([pair[k] for pair in bins]) for k in (0, 1))
        how = "file" if self.own else "halves"
        return Comparison(found, [], bins, [], (fits[0], fits[1]), len(index.reference), how)

    def warnings(self) -> list[str]:
        """Sentences on incident energies (MeV) that differ."""
        from scipy.stats import ks_2samp

        first = self.features[0].energy
        return [
            f"The incident energy of the {name} showers differs from the reference."
            for name, sample in zip(self.labels[1:], self.features[1:], strict=False)
            if ks_2samp(first, sample.energy).pvalue < 1e-3
        ]


def _trees(board: Board, other: ChallengeFeatures, index: Trio, seed: int) -> Metric:
    x = board.reference.matrix(index.reference).astype(np.float32)
    value, floor = (
        classifier_auc(x, sample.matrix(rows).astype(np.float32), seed=seed)
        for sample, rows in ((board.generated, index.generated), (other, index.floor))
    )
    text = (
        f"area under the ROC curve of gradient-boosted trees on the {x.shape[1]} high-level "
        "features of the CaloChallenge, mean of 5 seeded folds"
    )
    key = Key("classifier", "Classifier AUC", "classifier", suffix="auc")
    return classifier_metric(key, value, floor, text)


def _with_verdict(judged: Judged, reference: str, warned: bool) -> Judged:
    # The challenge's histograms stand in for the observables of a mesh.
    seen = [m for m in judged.challenge if m.kind in ("separation", "distance")]
    comparison = judged.comparison
    wide = replace(comparison, metrics=[*comparison.metrics, *seen])
    rest = [m for m in judged.challenge if m not in seen]
    verdict = judge(wide, (reference, judged.label), None, rest, warned=warned)
    return replace(judged, verdict=verdict)


def _file(name: str, file: VoxelFile, features: ChallengeFeatures) -> dict[str, Any]:
    binning, energy = features.binning, features.energy
    return {
        "label": name, "file": file.path.name, "showers": len(file), "detector": binning.name,
        "mesh": f"{binning.n_voxels} in {len(binning.layers)} layers",
        "energy_mev": [float(energy.min()), float(energy.max())], "theta_rad": [], "pdg": [],
        "mean_sparsity": float(_sparsity(features).mean()), "provenance": file.provenance,
    }  # fmt: skip


def _sparsity(features: ChallengeFeatures) -> Array:
    sizes = np.array([layer.size for layer in features.binning.layers])
    return np.asarray(features.sparsity @ (sizes / sizes.sum()))


def _figures(labels: Sequence[str], judged: Sequence[Judged]) -> list[Figure]:
    rows = zip(*[j.comparison.bins for j in judged], strict=True)
    bins = [(pairs[0][0], *(pair[1] for pair in pairs)) for pairs in rows]
    fits = [judged[0].comparison.fits[0], *(j.comparison.fits[1] for j in judged)]
    return list(response_figures(labels, bins, "energy", fits))
