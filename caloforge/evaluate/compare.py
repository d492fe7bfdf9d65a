"""Generated against Geant4: every observable, with its error and beside the floor.

Distances (separation power, Wasserstein, correlations, classifier) are taken between samples of
equal size and judged beside their floor; differences of means, spreads and tails use all showers
and are judged by their own error. Classifier features contain log10 of the energy in MeV.

The errors of the distances are cautious: both distances share the reference and a bootstrap sample
is rougher than the original, so that Geant4 against itself scatters by 0.5 to 0.7 sigmas, not 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.classifier import classifier_auc, features
from caloforge.evaluate.differences import TAILS, Trend, spread_ratio, tail_share
from caloforge.evaluate.metric import Key, Metric, against_ideal, beside_floor, beside_replicas
from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.observables import QUANTITIES, SPECTRUM_EDGES, Observables, Quantity
from caloforge.evaluate.resolution import (
    ResolutionFit,
    ResponseBin,
    angle_bins,
    energy_bins,
    fit_resolution,
    in_bins,
    ratio_of_bins,
)
from caloforge.evaluate.samples import MIN_SHOWERS, Setting, Trio, choose

__all__ = [
    "MIN_SHOWERS",
    "Comparison",
    "classifier_metric",
    "compare",
    "response_metrics",
    "trees_metric",
]

Array = NDArray[Any]
Bins = list[tuple[ResponseBin, ResponseBin]]
_SEPARATION = "half the sum of (h1 - h2)^2/(h1 + h2) over 30 bins, normalised histograms"
_DISTANCE = "area between the cumulative distributions"
_MIN_FOR_TAILS = 100


@dataclass(frozen=True)
class Comparison:
    """What `compare` found for one generated sample.

    `metrics`: one `Metric` per number; `layers`: the same per slice of the mesh; `size`: showers in
    each sample of a distance; `floor_from`: "halves" or "file"; `bins`, `angles`: pairs of
    `ResponseBin`, reference and generated, in energy (MeV) and theta (rad); `fits`: the resolution
    fitted to both. `extra`: what others add, such as scores of the CaloChallenge.
    """

    metrics: list[Metric]
    layers: list[Metric]
    bins: Bins
    angles: Bins
    fits: tuple[ResolutionFit | None, ResolutionFit | None]
    size: int
    floor_from: str
    extra: dict[str, Any] = field(default_factory=dict)


def compare(
    reference: Observables,
    generated: Observables,
    floor: Observables | None = None,
    *,
    seed: int = 0,
    replicas: int = 200,
    folds: int = 5,
    trees: bool = True,
) -> Comparison:
    """Compare generated with reference showers beside the Geant4-against-Geant4 floor.

    `floor`: a second, independent Geant4 sample; without it the reference is halved. `seed` fixes
    subsets, bootstrap (`replicas`) and classifier (`folds`; none without `trees`). Raises
    `RequestError` if a sample is too small (20 showers; the reference 40 if it must be halved).
    """
    setting = choose(reference, generated, floor, seed, replicas)
    layer_metrics, layer_summary = _layers(setting)
    bins = energy_bins(reference, generated)
    found = [trees_metric(setting, folds, seed)] if trees else []
    found += _energy(setting, bins)
    for quantity in QUANTITIES.values():
        found += _quantity(setting, quantity)
    found += [*layer_summary, *_profiles(setting), _correlations(setting)]
    fits = tuple(fit_resolution([pair[k] for pair in bins]) for k in (0, 1))
    return Comparison(
        found, layer_metrics, bins, angle_bins(reference, generated), (fits[0], fits[1]),
        setting.size, "file" if setting.from_file else "halves",
    )  # fmt: skip


# --- distances: beside the floor --------------------------------------------------------------


def _distance(distance: Callable[[Array, Array], Array], data: Trio) -> tuple[Array, Array]:
    """Distance to the reference of the generated and of the floor, from arrays (..., n_bins)."""
    return distance(data.generated, data.reference), distance(data.floor, data.reference)


def _with_original(weights: Array) -> Array:
    return np.concatenate([np.ones((1, weights.shape[1]), weights.dtype), weights])


def _separation(values: Trio, weights: Trio, edges: Array) -> tuple[Array, Array]:
    """Separation powers (1 + B,) of generated and floor: the samples themselves, then replicas."""
    rows = (metrics.histogram(v, edges, _with_original(w)) for v, w in values.pairs(weights))
    return _distance(metrics.separation_power, Trio(*rows))


def _wasserstein(values: Trio, weights: Trio, spread: float) -> tuple[Array, Array]:
    """Wasserstein distances (1 + B,) of generated and floor, in units of `spread`."""
    scale = spread or 1.0
    reference = _with_original(weights.reference)
    pairs = ((values.generated, weights.generated), (values.floor, weights.floor))
    first, second = (
        metrics.wasserstein(v, values.reference, _with_original(w), reference) / scale
        for v, w in pairs
    )
    return first, second


def _quantity(setting: Setting, quantity: Quantity) -> list[Metric]:
    """All numbers of one observable: two distances, and what its residuals say."""
    name, title = quantity.name, quantity.title
    whole = quantity.of(setting.reference)
    values = setting.values(quantity.of)
    edges = metrics.bin_edges(whole, log=quantity.log)
    found = [
        beside_replicas(Key(name, title, "separation"),
                        *_separation(values, setting.weights, edges), f"{title}: {_SEPARATION}"),
        beside_replicas(Key(name, title, "wasserstein"),
                        *_wasserstein(values, setting.weights, float(whole.std())),
                        f"{title}: {_DISTANCE}, over the standard deviation of the reference"),
    ]  # fmt: skip
    return [*found, *_residuals(setting, quantity)]


def _layers(setting: Setting) -> tuple[list[Metric], list[Metric]]:
    """Distances of the energy in every slice of the mesh, and their means over the slices."""
    found: list[Metric] = []
    sums: dict[str, list[tuple[Array, Array]]] = {"separation": [], "wasserstein": []}
    for layer in range(setting.reference.mesh.n_z):
        whole = setting.reference.layer_energy[:, layer]
        values = setting.values(lambda o, k=layer: o.layer_energy[:, k])  # type: ignore[misc]
        name, title = f"layer_energy_{layer:02d}", f"Energy in layer {layer}"
        pair = {
            "separation": _separation(values, setting.weights, metrics.bin_edges(whole, log=True)),
            "wasserstein": _wasserstein(values, setting.weights, float(whole.std())),
        }
        for kind, (value, floor) in pair.items():
            sums[kind].append((value, floor))
            found.append(beside_replicas(Key(name, title, kind), value, floor, _layer_text(kind)))
    summary = []
    for kind, rows in sums.items():
        value, floor = np.mean(rows, axis=0)
        text = f"mean over the layers of: {_layer_text(kind)}"
        summary.append(
            beside_replicas(Key("layer_energy", "Layer energies", kind), value, floor, text)
        )
    return found, summary


def _layer_text(kind: str) -> str:
    if kind == "separation":
        return f"energy in a layer: {_SEPARATION}, equal in log10"
    return f"energy in a layer: {_DISTANCE}, over the standard deviation of the reference"


def _profiles(setting: Setting) -> Iterator[Metric]:
    """Separation power and Wasserstein distance of the mean profiles and the cell spectrum."""
    mesh = setting.reference.mesh
    per_energy = "mean over showers of energy in the bin over incident energy"
    decades = float(np.log10(SPECTRUM_EDGES[1] / SPECTRUM_EDGES[0]))
    width = 2 * np.pi / mesh.n_phi
    table: tuple[tuple[str, str, str, float, str, Callable[[Observables], Array]], ...] = (
        ("longitudinal_profile", "Longitudinal profile", "mm", mesh.cell_z_mm, per_energy,
         lambda o: o.layer_energy / o.energy[:, None]),
        ("radial_profile", "Radial profile", "mm", mesh.cell_r_mm, per_energy,
         lambda o: o.ring_energy / o.energy[:, None]),
        ("azimuthal_profile", "Azimuthal profile", "rad", width, per_energy,
         lambda o: o.sector_energy / o.energy[:, None]),
        ("occupancy", "Occupancy in depth", "mm", mesh.cell_z_mm,
         "mean number of cells above the cut in a slice", lambda o: o.layer_hits.astype(float)),
        ("cell_spectrum", "Cell-energy spectrum", "decades", decades,
         "mean number of cells in bins of log10(E_cell)", lambda o: o.spectrum.astype(float)),
    )  # fmt: skip
    for name, title, unit, size, what, of in table:
        values = setting.values(of)
        means = Trio(*(_with_original(w) @ v for v, w in values.pairs(setting.weights)))
        kinds = {
            "separation": ("1", metrics.separation_power),
            "wasserstein": (unit, _earth(size, circular=unit == "rad")),
        }
        for kind, (in_unit, distance) in kinds.items():
            text = f"{title} ({what}), normalised: {_profile_text(kind)}"
            yield beside_replicas(
                Key(name, title, kind, in_unit), *_distance(distance, means), text
            )


def _profile_text(kind: str) -> str:
    return "half the sum of (h1 - h2)^2/(h1 + h2)" if kind == "separation" else _DISTANCE


def _earth(width: float, circular: bool) -> Callable[[Array, Array], Array]:
    function = metrics.circular_wasserstein if circular else metrics.binned_wasserstein
    return lambda first, second: function(first, second, width)


def _correlations(setting: Setting) -> Metric:
    """Mean difference of the correlation coefficients of all pairs of layers."""
    values = setting.values(lambda o: o.layer_energy / o.energy[:, None])
    rows = Trio(
        *(
            np.stack([metrics.correlation(v, row) for row in _with_original(w)])
            for v, w in values.pairs(setting.weights)
        )
    )
    text = (
        "mean over all pairs of layers of |difference of the correlation coefficients| of the "
        "layer energies over the incident energy"
    )
    key = Key("layer_correlation", "Correlations between layers", "distance")
    return beside_replicas(key, *_distance(_mean_gap, rows), text)


def _mean_gap(first: Array, second: Array) -> Array:
    """Mean (...) over pairs of layers of |first - second|, both (..., Z, Z)."""
    upper = np.triu_indices(first.shape[-1], 1)
    gap = np.abs(first - second)[(..., *upper)]
    return np.asarray(gap.mean(axis=-1)) if gap.shape[-1] else np.zeros(gap.shape[:-1])


def trees_metric(setting: Setting, folds: int = 5, seed: int = 0) -> Metric:
    """Area under the ROC curve, no unit, of trees on the features of the drawn showers."""
    x = setting.values(features)
    primaries = setting.values(_primaries)
    same = np.concatenate([primaries.reference, primaries.generated])
    value = classifier_auc(x.reference, x.generated, folds, seed, same)
    floor = classifier_auc(x.reference, x.floor, folds, seed)
    text = (
        f"area under the ROC curve of gradient-boosted trees on {x.reference.shape[1]} shower "
        f"features (with log10 of the incident energy and angle), mean of {folds} seeded folds; "
        "sigmas beyond the floor or 0.5, whichever is larger"
    )
    key = Key("classifier", "Classifier AUC", "classifier", suffix="auc")
    return classifier_metric(key, value, floor, text)


def _primaries(obs: Observables) -> Array:
    """One number (N,) for each primary, equal for showers of one energy (MeV) and direction."""
    return np.asarray(obs.energy + 1e3j * obs.theta + 1e6j * obs.phi)


def classifier_metric(key: Key, value: Estimate, floor: Estimate, text: str) -> Metric:
    """Make the metric of an area under the ROC curve, no unit, judged beyond its floor or 0.5."""
    # A floor below a half is luck, and no one can do worse than guess.
    judged = beside_floor(key, value, Estimate(max(floor.value, 0.5), floor.error), text)
    return Metric(**{**vars(judged), "floor": floor.value})


# --- differences: against what equal laws would give ------------------------------------------


def _residuals(setting: Setting, quantity: Quantity) -> Iterator[Metric]:
    """Mean, spread and tails at equal incident energy and angle, from all showers."""
    trend = Trend(setting.reference, quantity)
    pair = trend.residual(setting.generated), trend.residual(setting.reference)
    floors = setting.floor_pair(trend.residual)
    name, title = quantity.name, quantity.title
    what = f"{title} ({quantity.formula})"
    if name not in ("visible", "response"):  # theirs are the ratios in energy bins
        if quantity.relative:
            key, ideal, how = Key(name, title, "difference", suffix="ratio"), 1.0, "ratio"
        else:
            unit = quantity.unit or "1"
            key, ideal, how = Key(name, title, "difference", unit, "shift"), 0.0, "difference"
        text = f"{what}: {how} of the means, generated to reference, at equal energy and angle"
        value, floor = trend.difference(*pair), trend.difference(*floors)
        yield against_ideal(key, value, floor, ideal, text)
        text = f"{what}: ratio of the standard deviations at equal incident energy and angle"
        ratios = spread_ratio(*pair), spread_ratio(*floors)
        yield against_ideal(Key(name, title, "spread"), *ratios, 1.0, text)
    if name != "visible" and min(map(len, (*pair, *floors))) >= _MIN_FOR_TAILS:
        share = 100 * TAILS
        text = f"{what}: per cent of showers outside the central {100 - share:g} % of the reference"
        tails = tail_share(*pair), tail_share(*floors)
        yield against_ideal(Key(name, title, "tail", "%"), *tails, share, text)


def _energy(setting: Setting, bins: Bins) -> Iterator[Metric]:
    energy, response = (setting.floor_pair(of) for of in (lambda o: o.energy, lambda o: o.response))
    return response_metrics(bins, (energy[0], response[0]), (energy[1], response[1]))


def response_metrics(
    bins: Bins, floor: tuple[Array, Array], beside: tuple[Array, Array]
) -> Iterator[Metric]:
    """Ratio of mean response and of resolution, averaged over bins of incident energy.

    `floor`, `beside`: energies (n,) in MeV and responses (n,) of two Geant4 samples.
    """
    edges = np.array([bins[0][0].low, *(pair[0].high for pair in bins)])
    both = (in_bins(*sample, edges) for sample in (beside, floor))
    own = list(zip(*both, strict=True))
    for kind, title in (("response", "Mean response"), ("resolution", "Energy resolution")):
        what = "visible over incident energy" if kind == "response" else "sigma/mean of E_vis/E_inc"
        text = f"{title} ({what}): generated over reference, weighted mean over energy bins"
        value, ratio = (ratio_of_bins(pairs, kind) for pairs in (bins, own))
        key = Key(kind, title, "difference", suffix="ratio")
        yield against_ideal(key, value, ratio, 1.0, text)
