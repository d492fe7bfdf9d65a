"""What the numbers of a comparison say, in words.

Every sentence is computed: nothing is praised that was not measured, and a difference that the
sample is too small to show is said to be out of sight, not absent. "Beyond the floor" means more
than three standard deviations beyond what Geant4 does to itself at the same sample size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from caloforge.evaluate.compare import Comparison
from caloforge.evaluate.metric import Metric
from caloforge.evaluate.observables import Observables
from caloforge.evaluate.trust import Check, TrustMap

if TYPE_CHECKING:
    from caloforge.evaluate.metrics import Estimate
    from caloforge.evaluate.validation import Judged

__all__ = ["THRESHOLD", "Verdict", "conditions", "judge", "judge_all", "with_error",
           "worst_observables"]  # fmt: skip

THRESHOLD = 3.0  # standard deviations
_BY_CHANCE = 0.0027  # both tails of a normal law beyond three standard deviations


@dataclass(frozen=True)
class Verdict:
    """A headline, the paragraph behind it, one line to quote, and what differs, the worst first."""

    headline: str
    paragraph: str
    quote: str
    findings: list[str] = field(default_factory=list)


def with_error(value: float, error: float) -> str:
    """Write a number and its error, in one unit, to two digits of the error: ``0.036 +- 0.013``."""
    if error <= 0 or not np.isfinite(error):
        return f"{value:.4g}"
    power = int(np.floor(np.log10(error)))
    largest = max(abs(value), error)
    if largest < 1e-3 or largest >= 1e5:
        shift = int(np.floor(np.log10(largest)))
        digits = max(0, shift - power + 1)
        scale = 10.0**shift
        return f"({value / scale:.{digits}f} ± {error / scale:.{digits}f})e{shift:+d}"
    digits = max(0, 1 - power)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def worst_observables(comparison: Comparison) -> list[Metric]:
    """Find the observables beyond the floor, the worst first, each by its most significant metric.

    Causes come before what follows from them: cells that are missing before the energy that is
    missing with them, a response that is off before the mean energy of a hit. The classifier is
    left out: it tells that something differs, not what.
    """
    beyond = [m for m in comparison.metrics if _beyond(m) and m.kind != "classifier"]
    best: dict[str, Metric] = {}
    for metric in sorted(beyond, key=lambda m: (-m.size, m.ideal is None)):
        best.setdefault(metric.observable, metric)
    return _causes_first(list(best.values()), {m.name: m for m in comparison.metrics})


def _causes_first(worst: list[Metric], named: Mapping[str, Metric]) -> list[Metric]:
    if "hits.ratio" not in named:
        return worst
    response, hits, each = (named[f"{n}.ratio"] for n in ("response", "hits", "hit_energy"))
    fewer = (
        _beyond(hits)
        and not _beyond(each)
        and abs(hits.value - response.value)
        < (THRESHOLD * float(np.hypot(hits.error, response.error)))
    )
    order = ("hits", "response") if fewer else ("response", "hit_energy")
    places = [k for k, m in enumerate(worst) if m.observable in order]
    if len(places) == 2 and (fewer or _beyond(response)):
        pair = sorted((worst[k] for k in places), key=lambda m: order.index(m.observable))
        for place, metric in zip(places, pair, strict=True):
            worst[place] = metric
    return worst


def _beyond(metric: Metric) -> bool:
    return metric.size > THRESHOLD


def judge(
    comparison: Comparison,
    labels: tuple[str, str],
    trust: TrustMap | None = None,
    challenge: Sequence[Metric] = (),
    *,
    about: str = "",
    warned: bool = False,
) -> Verdict:
    """Put a comparison into words; `labels` name the reference and the generated showers.

    `trust`, `challenge`: the map of trust and the numbers of the CaloChallenge; `about`: what was
    simulated (energies in GeV); `warned`: the samples differ in their conditions, so the headline
    must not stand alone.
    """
    worst = worst_observables(comparison)
    everything = [*comparison.metrics, *challenge]
    auc = _classifier(everything)
    parts = [
        _count(comparison, labels),
        _worst_sentence(worst, comparison.metrics) if worst else _sensitivity(comparison),
        _classifier_sentence(auc) if auc else "",
        _energy_sentence(comparison.metrics),
        _trust_sentence(trust) if trust else "",
        _floor_sentence(comparison, labels),
    ]
    headline = _headline(worst, auc, comparison, labels)
    if warned:
        headline += "; but the files were not made alike, see the warnings"
    findings = [_effect(m, comparison.metrics) for m in worst]
    quote = _quote(everything, trust, labels, about)
    return Verdict(headline, " ".join(p for p in parts if p), quote, findings)


def _classifier(metrics: Sequence[Metric]) -> Metric | None:
    """Return the classifier to quote: that of the features, or the first there is."""
    found = [m for m in metrics if m.kind == "classifier"]
    return found[0] if found else None


def _headline(
    worst: list[Metric], auc: Metric | None, comparison: Comparison, labels: tuple[str, str]
) -> str:
    area = f"classifier AUC {auc.value:.2f}, floor {auc.floor:.2f}" if auc else "no classifier"
    seen = auc is not None and _beyond(auc)
    if not worst and not seen:
        return f"No difference from {labels[0]} found with {comparison.size} showers ({area})"
    if not worst:
        return f"Single observables agree with {labels[0]}, but a classifier sees more ({area})"
    effects = ", ".join(_effect(m, comparison.metrics) for m in worst[:2])
    return f"{_distance_word(auc, worst)} {labels[0]}: {effects}; {area}"


def judge_all(judged: Sequence[Judged], reference: str, contest: Mapping[str, Estimate]) -> Verdict:
    """Put several verdicts into one: the models in the order of their classifier's AUC.

    `contest`: mean log-posterior by label (natural logarithm, no unit).
    """
    if len(judged) == 1:
        return judged[0].verdict
    ranked = sorted(judged, key=_rank)
    first = ranked[0]
    names = ", then ".join(_ranked(j) for j in ranked)
    headline = f"Closest to {reference} of {len(judged)}: {names}"
    taken = max((n for n in contest if n != "chance"), key=lambda n: contest[n].value)
    parts = [
        f"Asked whose they are, {reference} showers are taken for those of {taken} (mean "
        f"log-posterior {with_error(contest[taken].value, contest[taken].error)}, where chance is "
        f"{contest['chance'].value:.3f}).",
        f"{first.label}: {first.verdict.paragraph}",
    ]
    return Verdict(headline, " ".join(parts), first.verdict.quote, first.verdict.findings)


def _rank(judged: Judged) -> tuple[float, float]:
    """Order by classifier; where it cannot tell, by how much lies beyond the floor."""
    auc = _classifier(judged.metrics)
    beyond = sum(_beyond(m) for m in judged.comparison.metrics)
    return (round(auc.value, 2) if auc else 0.0, float(beyond))


def _ranked(judged: Judged) -> str:
    auc = _classifier(judged.metrics)
    return judged.label + (f" (AUC {auc.value:.2f}, floor {auc.floor:.2f})" if auc else "")


def _distance_word(auc: Metric | None, worst: list[Metric]) -> str:
    area = auc.value if auc else 0.0
    if area >= 0.9:
        return "Easily told from"
    if area >= 0.7 or len(worst) > 6:
        return "Visibly different from"
    return "Slightly different from"


def _count(comparison: Comparison, labels: tuple[str, str]) -> str:
    total = len(comparison.metrics)
    number = sum(_beyond(m) for m in comparison.metrics)
    how_many = {0: "None", 1: "One"}.get(number, str(number))
    verb = "lies" if number < 2 else "lie"
    return (
        f"{how_many} of {total} numbers {verb} more than {THRESHOLD:.0f} sigma beyond what "
        f"{labels[0]} shows against itself (chance alone gives about {_BY_CHANCE * total:.1f})."
    )


def _worst_sentence(worst: list[Metric], metrics: Sequence[Metric]) -> str:
    effects = [_effect(m, metrics) for m in worst[:3]]
    more = len(worst) - 3
    tail = f"; {more} further observable{'s' * (more > 1)} differ{'s' * (more == 1)}"
    return f"The worst: {'; '.join(effects)}{tail if more > 0 else ''}."


def _effect(metric: Metric, metrics: Sequence[Metric]) -> str:
    """Say how much an observable differs: in per cent or its unit, else as a distance."""
    title, sigmas = metric.title.lower(), f"{abs(metric.sigmas):.1f} sigma"
    if metric.kind == "spread":
        return f"fluctuations of {title} {_signed(metric)} ({sigmas})"
    if metric.kind == "tail":
        share = with_error(metric.value, metric.error)
        return f"tails of {title} {share} % instead of {metric.ideal:g} % ({sigmas})"
    if metric.ideal is not None:
        return f"{title} {_signed(metric)} ({sigmas})"
    signed = [m for m in metrics if m.observable == metric.observable and m.kind == "difference"]
    aside = f", mean {_signed(signed[0])}" if signed else ""
    kind = "separation power" if metric.kind == "separation" else "distance"
    number = with_error(metric.value, metric.error)
    unit = "" if metric.unit == "1" else f" {metric.unit}"
    return f"{title} ({kind} {number}{unit}, floor {metric.floor:.2g}, {sigmas}{aside})"


def _signed(metric: Metric) -> str:
    """Write a difference with its sign: per cent for a ratio, else in the unit."""
    if metric.ideal == 1.0:
        text = with_error(100 * (metric.value - 1), 100 * metric.error)
        return f"{'+' * (metric.value >= 1)}{text} %"
    unit = "" if metric.unit == "1" else f" {metric.unit}"
    return f"{'+' * (metric.value >= 0)}{with_error(metric.value, metric.error)}{unit}"


def _sensitivity(comparison: Comparison) -> str:
    named = {m.name: m for m in comparison.metrics}
    parts = [
        f"{100 * THRESHOLD * named[name].error:.2g} % in {what}"
        for name, what in (
            ("response.ratio", "mean response"),
            ("resolution.ratio", "resolution"),
            ("hits.ratio", "hits"),
        )
        if name in named and named[name].error > 0
    ]
    listed = ", ".join(parts)
    return f"Differences below {listed} would not have been seen." if parts else ""


def _classifier_sentence(auc: Metric) -> str:
    if not _beyond(auc):
        word = "no better than it tells two samples of the reference apart"
    elif auc.value < 0.6:
        word = "a little better than chance"
    elif auc.value < 0.8:
        word = "clearly better than chance"
    else:
        word = "most of the time" if auc.value < 0.95 else "nearly always"
    return (
        f"A classifier on shower features tells them apart {word}: AUC "
        f"{with_error(auc.value, auc.error)}, floor {with_error(auc.floor, auc.floor_error)}."
    )


def _energy_sentence(metrics: Sequence[Metric]) -> str:
    named = {m.name: m for m in metrics}
    response, resolution = named["response.ratio"], named["resolution.ratio"]
    return (
        f"At equal incident energy the mean response is off by {_signed(response)}, "
        f"the energy resolution by {_signed(resolution)} (relative)."
    )


def _trust_sentence(trust: TrustMap) -> str:
    count = {a: sum(c.answer == a for c in trust.cells) for a in ("yes", "no", "open")}
    total = len(trust.cells)
    where = f"{total} cells of energy and angle" if total > 1 else "one cell"
    text = (
        f"Of {where}, {count['yes']} are shown to agree within the tolerances, {count['no']} not "
        f"to, and {count['open']} are open for want of showers."
    )
    undecided = [c for c in trust.whole.checks if c.answer == "open"]
    beyond = [c for c in trust.whole.checks if c.answer == "no"]
    if beyond:
        text += f" Taken together, out of tolerance: {', '.join(map(_checked, beyond))}."
    elif undecided:
        text += f" Taken together, undecided: {', '.join(map(_checked, undecided))}."
    elif trust.whole.checks:
        text += " Taken together, everything that was checked is within its tolerance."
    return text


def _checked(check: Check) -> str:
    text = with_error(100 * check.difference, 100 * check.error)
    sign = "+" * (check.difference >= 0)
    return f"{check.title} {sign}{text} % (tolerance {100 * check.tolerance:g} %)"


def _trusted(trust: TrustMap) -> str:
    """Say what has been shown over the whole range, and what has not."""
    words = {"yes": "within tolerance", "no": "out of tolerance", "open": "undecided"}
    parts = []
    for answer, word in words.items():
        found = [c for c in trust.whole.checks if c.answer == answer]
        if found:
            listed = ", ".join(f"{c.title} ({100 * c.tolerance:g} %)" for c in found)
            parts.append(f"{word} at 95 % confidence: {listed}")
    return "; ".join(parts) or "too few showers for the tolerances"


def _quote(
    metrics: Sequence[Metric], trust: TrustMap | None, labels: tuple[str, str], about: str
) -> str:
    """One line that can be quoted alone: what, against what, how close, beside which floor."""
    named = {m.name: m for m in metrics}
    parts = [f"response {_signed(named['response.ratio'])}",
             f"resolution {_signed(named['resolution.ratio'])}"]  # fmt: skip
    areas = [m for m in metrics if m.kind == "classifier"]
    for auc in areas:
        what = "trees" if auc.observable == "classifier" else auc.title.split(", ")[-1]
        value, floor = (
            with_error(*p) for p in ((auc.value, auc.error), (auc.floor, auc.floor_error))
        )
        parts.append(f"AUC ({what}) {value}, floor {floor}")
    if trust is not None:
        parts.append(_trusted(trust))
    what = f" ({about})" if about else ""
    return f"{labels[1]} against {labels[0]}{what}: {'; '.join(parts)}."


def _floor_sentence(comparison: Comparison, labels: tuple[str, str]) -> str:
    if comparison.floor_from == "file":
        return f"The floor is a second {labels[0]} file; distances use {comparison.size} showers."
    return (
        f"The floor is one half of the {labels[0]} file against the other; "
        f"distances use {comparison.size} showers, differences of means all of them."
    )


def conditions(
    reference: Observables, generated: Observables, name: str = "generated"
) -> list[str]:
    """Find conditions in which two samples differ before any physics is compared.

    Incident energy (MeV) and polar angle (rad) are compared by a Kolmogorov-Smirnov test at a
    probability of 0.001, particles as sets. Returns one sentence for each difference; `name` says
    in it which sample is not the reference.
    """
    from scipy.stats import ks_2samp

    found = []
    for what, unit, first, second in (
        ("incident energy", "MeV", reference.energy, generated.energy),
        ("polar angle", "rad", reference.theta, generated.theta),
    ):
        if ks_2samp(first, second).pvalue < 1e-3:
            found.append(
                f"The {what} of the {name} showers differs from the reference: "
                f"{_range(second, unit)} against {_range(first, unit)}."
            )
    kinds = [sorted({int(code) for code in np.unique(o.pdg)}) for o in (reference, generated)]
    if kinds[0] != kinds[1]:
        found.append(f"The {name} showers have PDG codes {kinds[1]}, the reference {kinds[0]}.")
    if _same_showers(reference, generated):
        found.append(f"The {name} showers are the reference showers: nothing is tested.")
    empty = int((generated.hits == 0).sum())
    if empty > 2 * max(1, (reference.hits == 0).mean() * len(generated)):
        found.append(f"{empty} of {len(generated)} {name} showers are empty after the cut.")
    return found


def _range(values: np.ndarray, unit: str) -> str:
    low, middle, high = (
        f"{v:.0f}" if v >= 1000 else f"{v:.4g}" for v in np.quantile(values, [0.0, 0.5, 1.0])
    )
    return f"{low} to {high} {unit} (median {middle})"


def _same_showers(first: Observables, second: Observables) -> bool:
    """Whether most showers are the very same: energy alone would call a shuffled copy so."""
    one, two = (
        o.visible + o.z_mean + o.r_mean + o.sector_link + o.phi_cos for o in (first, second)
    )
    shared = np.intersect1d(one, two).size
    return shared > 0.5 * min(len(first), len(second)) and shared > 1
