"""Generated against Geant4: every observable, with its error and beside the floor.

Three samples of equal size are drawn: the reference, the generated, and the *floor*, a second
Geant4 sample. The floor comes from its own file, or the reference is cut in two disjoint halves and
generated against one half stands beside one half against the other. A distance (separation power,
Wasserstein, classifier) is judged by how far it lies beyond its floor; a difference whose true
value is known for equal laws (a ratio of 1, a shift of 0) uses all showers and is judged by its
own error, with the floor shown beside it.

The errors of the distances are cautious: both distances share the reference and a bootstrap sample
is rougher than the original, so that Geant4 against itself scatters by 0.5 to 0.7 sigmas, not 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import RequestError
from caloforge.evaluate import metrics
from caloforge.evaluate.classifier import classifier_auc, features
from caloforge.evaluate.differences import EnergyBin, Trend, energy_bins, in_bins, ratio_of_bins
from caloforge.evaluate.metrics import Estimate
from caloforge.evaluate.observables import QUANTITIES, SPECTRUM_EDGES, Observables, Quantity

__all__ = ["MIN_SHOWERS", "Comparison", "Metric", "compare"]

Array = NDArray[Any]

MIN_SHOWERS = 20
_SEPARATION = "half the sum of (h1 - h2)^2/(h1 + h2) over 30 bins, normalised histograms"
_DISTANCE = "area between the cumulative distributions"


@dataclass(frozen=True)
class Metric:
    """One number of the comparison, everything a reader or a machine needs to judge it.

    `value`, `error`, `floor`, `floor_error` are in `unit` ("1" where there is none); `kind` is
    separation, wasserstein, difference or classifier; `sigmas` is how far the value lies beyond
    what Geant4 does to itself, in standard deviations (|sigmas| <= 999): (value - floor) over both
    errors for a distance, (value - `ideal`) over the error where `ideal` is not None.
    """

    name: str
    observable: str
    title: str
    kind: str
    unit: str
    value: float
    error: float
    floor: float
    floor_error: float
    ideal: float | None
    sigmas: float
    definition: str


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    `metrics`: one `Metric` per number; `layers`: the same per slice of the mesh; `size`: showers in
    each sample of a distance; `floor_from`: "halves" or "file"; `bins`: pairs of `EnergyBin`,
    reference and generated.
    """

    metrics: list[Metric]
    layers: list[Metric]
    bins: list[tuple[EnergyBin, EnergyBin]]
    size: int
    floor_from: str


@dataclass(frozen=True, eq=False)
class _Trio:
    """Reference, generated and floor samples: of indices, of weights or of values."""

    reference: Array
    generated: Array
    floor: Array


@dataclass(frozen=True, eq=False)
class _Setting:
    """The three samples with their bootstrap weights (B, n); `pool` is where the floor is from."""

    reference: Observables
    generated: Observables
    pool: Observables
    chosen: _Trio
    weights: _Trio
    floor_from: str

    def values(self, of: Callable[[Observables], Array]) -> _Trio:
        """Values of the chosen showers: `of` gives (N, ...) of each sample's N showers."""
        first = of(self.reference)
        second = first if self.pool is self.reference else of(self.pool)
        index = self.chosen
        return _Trio(
            first[index.reference], of(self.generated)[index.generated], second[index.floor]
        )


def compare(
    reference: Observables,
    generated: Observables,
    floor: Observables | None = None,
    *,
    seed: int = 0,
    replicas: int = 200,
    folds: int = 5,
) -> Comparison:
    """Compare generated with reference showers beside the Geant4-against-Geant4 floor.

    `floor`: a second, independent Geant4 sample; without it the reference is halved. `seed` fixes
    subsets, bootstrap (`replicas`) and classifier (`folds`). Raises `RequestError` if a sample is
    too small (20 showers; the reference 40 if it must be halved) or the meshes differ.
    """
    setting = _setting(reference, generated, floor, seed, replicas)
    layer_metrics, layer_summary = _layers(setting)
    bins = energy_bins(reference, generated)
    found = [*_classifier(setting, folds, seed), *_energy(setting, bins)]
    for quantity in QUANTITIES.values():
        found += _quantity(setting, quantity)
    found += [*layer_summary, *_profiles(setting)]
    size = len(setting.chosen.reference)
    return Comparison(found, layer_metrics, bins, size, setting.floor_from)


def _setting(
    reference: Observables, generated: Observables, floor: Observables | None, seed: int, b: int
) -> _Setting:
    _require(reference, "reference", MIN_SHOWERS if floor is not None else 2 * MIN_SHOWERS)
    _require(generated, "generated", MIN_SHOWERS)
    rng = np.random.default_rng(seed)
    if floor is None:
        order = rng.permutation(len(reference))
        n = min(len(reference) // 2, len(generated))
        first, second = order[:n], order[n : 2 * n]
    else:
        _require(floor, "floor", MIN_SHOWERS)
        n = min(len(reference), len(generated), len(floor))
        first, second = rng.permutation(len(reference))[:n], rng.permutation(len(floor))[:n]
    chosen = _Trio(first, rng.permutation(len(generated))[:n], second)
    weights = _Trio(*(metrics.resample(n, b, rng) for _ in range(3)))
    origin = "halves" if floor is None else "file"
    pool = reference if floor is None else floor
    return _Setting(reference, generated, pool, chosen, weights, origin)


def _require(sample: Observables, name: str, least: int) -> None:
    if len(sample) < least:
        raise RequestError(
            f"the {name} file has {len(sample)} showers, too few to compare; "
            f"give at least {least} (hundreds to see per-cent effects)"
        )


# --- distances: beside the floor --------------------------------------------------------------


def _distance(distance: Callable[[Array, Array], Array], data: _Trio) -> tuple[Array, Array]:
    """Distance to the reference of the generated and of the floor, from arrays (..., n_bins)."""
    return (
        distance(data.generated, data.reference),
        distance(data.floor, data.reference),
    )


def _metric(key: tuple[str, str, str], unit: str, value: Array, floor: Array, text: str) -> Metric:
    """Build a distance's metric from (1 + B,) arrays: the value, then its replicas."""
    observable, title, kind = key
    here, there = Estimate.of(value[0], value[1:]), Estimate.of(floor[0], floor[1:])
    sigmas = metrics.deviation(here.value - there.value, float(np.hypot(here.error, there.error)))
    return Metric(
        f"{observable}.{kind}", observable, title, kind, unit, here.value, here.error, there.value,
        there.error, None, sigmas, text,
    )  # fmt: skip


def _histograms(trio: _Trio, weights: _Trio, edges: Array) -> _Trio:
    """Histograms (1 + B, n_bins) of the three samples: the sample itself, then its replicas."""
    return _Trio(
        *(
            metrics.histogram(values, edges, _with_original(rows))
            for values, rows in _pairs(trio, weights)
        )
    )


def _pairs(values: _Trio, weights: _Trio) -> Iterator[tuple[Array, Array]]:
    yield values.reference, weights.reference
    yield values.generated, weights.generated
    yield values.floor, weights.floor


def _with_original(weights: Array) -> Array:
    return np.concatenate([np.ones((1, weights.shape[1]), weights.dtype), weights])


def _separation(values: _Trio, weights: _Trio, edges: Array) -> tuple[Array, Array]:
    return _distance(metrics.separation_power, _histograms(values, weights, edges))


def _wasserstein(values: _Trio, weights: _Trio, spread: float) -> tuple[Array, Array]:
    """Wasserstein distances (1 + B,) of generated and floor, in units of `spread`."""
    scale = spread or 1.0
    reference = _with_original(weights.reference)
    pairs = ((values.generated, weights.generated), (values.floor, weights.floor))
    first, second = (
        metrics.wasserstein(v, values.reference, _with_original(w), reference) / scale
        for v, w in pairs
    )
    return first, second


def _quantity(setting: _Setting, quantity: Quantity) -> list[Metric]:
    """Separation power, Wasserstein distance and difference of the means of one observable."""
    name, title = quantity.name, quantity.title
    whole = quantity.of(setting.reference)
    values = setting.values(quantity.of)
    edges = metrics.bin_edges(whole, log=quantity.log)
    found = [
        _metric((name, title, "separation"), "1",
                *_separation(values, setting.weights, edges), f"{title}: {_SEPARATION}"),
        _metric((name, title, "wasserstein"), "1",
                *_wasserstein(values, setting.weights, float(whole.std())),
                f"{title}: {_DISTANCE}, over the standard deviation of the reference"),
    ]  # fmt: skip
    if name not in ("visible", "response"):  # theirs is the response ratio in energy bins
        found.append(_difference(setting, quantity))
    return found


def _layers(setting: _Setting) -> tuple[list[Metric], list[Metric]]:
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
            found.append(_metric((name, title, kind), "1", value, floor, _layer_text(kind)))
    summary = []
    for kind, rows in sums.items():
        value, floor = np.mean(rows, axis=0)
        text = f"mean over the layers of: {_layer_text(kind)}"
        summary.append(_metric(("layer_energy", "Layer energies", kind), "1", value, floor, text))
    return found, summary


def _layer_text(kind: str) -> str:
    if kind == "separation":
        return f"energy in a layer: {_SEPARATION}, equal in log10"
    return f"energy in a layer: {_DISTANCE}, over the standard deviation of the reference"


def _profiles(setting: _Setting) -> Iterator[Metric]:
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
        ("cell_spectrum", "Cell-energy spectrum", "decades", decades,
         "mean number of cells in bins of log10(E_cell)", lambda o: o.spectrum.astype(float)),
    )  # fmt: skip
    for name, title, unit, size, what, of in table:
        values = setting.values(of)
        means = _Trio(*(_with_original(w) @ v for v, w in _pairs(values, setting.weights)))
        kinds = {
            "separation": ("1", metrics.separation_power),
            "wasserstein": (unit, _earth(size, circular=unit == "rad")),
        }
        for kind, (in_unit, distance) in kinds.items():
            text = f"{title} ({what}), normalised: {_profile_text(kind)}"
            yield _metric((name, title, kind), in_unit, *_distance(distance, means), text)


def _profile_text(kind: str) -> str:
    return "half the sum of (h1 - h2)^2/(h1 + h2)" if kind == "separation" else _DISTANCE


def _earth(width: float, circular: bool) -> Callable[[Array, Array], Array]:
    function = metrics.circular_wasserstein if circular else metrics.binned_wasserstein
    return lambda first, second: function(first, second, width)


def _classifier(setting: _Setting, folds: int, seed: int) -> Iterator[Metric]:
    x = setting.values(features)
    value = classifier_auc(x.reference, x.generated, folds, seed)
    floor = classifier_auc(x.reference, x.floor, folds, seed)
    # A floor below a half is luck, and no one can do worse than guess.
    excess = value.value - max(floor.value, 0.5)
    sigmas = metrics.deviation(excess, float(np.hypot(value.error, floor.error)))
    text = (
        f"area under the ROC curve of gradient-boosted trees on {x.reference.shape[1]} shower "
        f"features (with log10 of the incident energy and angle), mean of {folds} seeded folds; "
        "sigmas beyond the floor or 0.5, whichever is larger"
    )
    yield Metric(
        "classifier.auc", "classifier", "Classifier AUC", "classifier", "1", value.value,
        value.error, floor.value, floor.error, None, sigmas, text,
    )  # fmt: skip


# --- differences: against what equal laws would give ------------------------------------------


def _signed(
    key: tuple[str, str, str, str], value: Estimate, floor: Estimate, ideal: float, text: str
) -> Metric:
    name, observable, title, unit = key
    sigmas = metrics.deviation(value.value - ideal, value.error)
    return Metric(
        name, observable, title, "difference", unit, value.value, value.error, floor.value,
        floor.error, ideal, sigmas, text,
    )  # fmt: skip


def _difference(setting: _Setting, quantity: Quantity) -> Metric:
    """Difference of the means at equal incident energy: a ratio, or a shift in the unit."""
    trend = Trend(setting.reference, quantity)
    everything = setting.generated, setting.reference
    value = trend.difference(*(trend.residual(o) for o in everything))
    floor = trend.difference(*_floor_samples(setting, trend.residual))
    if quantity.relative:
        name, unit, ideal, how = "ratio", "1", 1.0, "ratio of the means, generated over reference"
    else:
        name, unit, ideal = "shift", quantity.unit or "1", 0.0
        how = "difference of the means, generated minus reference"
    text = f"{quantity.title} ({quantity.formula}): {how}, at equal incident energy and angle"
    key = (f"{quantity.name}.{name}", quantity.name, quantity.title, unit)
    return _signed(key, value, floor, ideal, text)


def _floor_samples(setting: _Setting, of: Callable[[Observables], Array]) -> tuple[Array, Array]:
    """Values of the floor and of what it is compared with: all showers if it has its own file."""
    if setting.pool is not setting.reference:
        return of(setting.pool), of(setting.reference)
    whole, index = of(setting.reference), setting.chosen
    return whole[index.floor], whole[index.reference]


def _energy(setting: _Setting, bins: list[tuple[EnergyBin, EnergyBin]]) -> Iterator[Metric]:
    """Ratio of mean response and of resolution, averaged over bins of incident energy."""
    response, energy = (
        _floor_samples(setting, of) for of in (lambda o: o.response, lambda o: o.energy)
    )
    edges = np.array([bins[0][0].low, *(pair[0].high for pair in bins)])
    floor = list(
        zip(
            in_bins(energy[1], response[1], edges),
            in_bins(energy[0], response[0], edges),
            strict=True,
        )
    )
    for kind, title in (("response", "Mean response"), ("resolution", "Energy resolution")):
        what = "visible over incident energy" if kind == "response" else "sigma/mean of E_vis/E_inc"
        text = f"{title} ({what}): generated over reference, weighted mean over energy bins"
        value, beside = (ratio_of_bins(pairs, kind) for pairs in (bins, floor))
        yield _signed((f"{kind}.ratio", kind, title, "1"), value, beside, 1.0, text)
