"""The card of a model: what it saw, where it is valid, how far it is from Geant4, what it cost.

The numbers of the comparison come from the ``metrics.json`` of a validation, each with its
uncertainty and the Geant4-against-Geant4 floor; a card without one says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from caloforge.learn.checkpoint import Model

__all__ = ["KEY_METRICS", "model_card", "trust_sentence"]

KEY_METRICS: tuple[str, ...] = (
    "classifier.auc", "response.ratio", "resolution.ratio", "hits.ratio", "hit_energy.ratio",
    "z_mean.shift", "z_width.shift", "r_mean.shift", "r_width.shift", "phi_link.shift",
    "phi_cos.spread", "hits.spread", "longitudinal_profile.separation",
    "radial_profile.separation", "cell_spectrum.separation", "layer_correlation.distance",
    "fpd.distance", "kpd.distance",
)  # fmt: skip


def model_card(
    name: str, model: Model, validations: Mapping[str, Mapping[str, Any]] | None = None,
    remarks: Sequence[str] = (),
) -> str:  # fmt: skip
    """Write the card of a model as Markdown; energies in GeV, angles in rad.

    `validations` holds records as `caloforge validate` writes them to ``metrics.json``, by a title;
    `remarks` are paragraphs for the end of the first section.
    """
    notes = model.notes
    parts = [
        f"# {name}",
        "",
        "## Trained on",
        "",
        *_adapted_to(notes),
        _trained_on(notes, model),
        "",
    ]
    parts += [line for remark in remarks for line in (remark, "")]
    parts += ["## Valid range", "", _valid_range(model), "", "## Measured against Geant4", ""]
    for title, record in (validations or {}).items():
        parts += [f"### {title}", "", *_table(record), ""]
    if not validations:
        parts += ["Not yet: `caloforge validate GEANT4.h5 GENERATED.h5` says how far it is.", ""]
    parts += ["## Cost", "", _cost(notes, model), ""]
    return "\n".join(parts)


def _adapted_to(notes: Mapping[str, Any]) -> list[str]:
    """What a model was adapted to, and what that cost on its old detectors."""
    found = notes.get("adaptation")
    if found is None:
        return []
    lost = "; ".join(
        f"{old['detector']} {old['before']:.4f} before, {old['after']:.4f} after"
        for old in found["guarded"]
    )
    return [
        f"Adapted from '{found['model']}' to {found['showers']} Geant4 showers of "
        f"{', '.join(found['detectors'])} by the method '{found['method']}', in "
        f"{found['seconds']:.0f} s: {found['step']} steps, the weights after {found['best_step']} "
        "kept, and what is fitted without steps. Loss of the network before and after the steps "
        f"on the validation split {found['before']:.4f} and {found['after']:.4f}"
        + (f"; on old detectors: {lost}." if lost else "; old detectors were not looked at."),
        "",
        f"What it was adapted from ('{found['model']}'):",
        "",
    ]


def _trained_on(notes: Mapping[str, Any], model: Model) -> str:
    notes = notes["start"] if "adaptation" in notes else notes
    recipe, known = notes.get("recipe", {}), notes.get("detectors", model.valid.detectors)
    seen = notes.get("step", 0) * recipe.get("batch", 0)
    named = sorted(d for d in known if not d.startswith("rand"))
    others = len(known) - len(named)
    detectors = ", ".join(named) + (f" and {others} detectors drawn at random" if others else "")
    return (
        f"{notes.get('showers', 0)} Geant4 showers of {detectors}; {notes.get('step', 0)} steps of "
        f"{recipe.get('batch', 0)} showers ({seen} in all), mirrored at random. Loss on the "
        f"validation split: {_number(notes.get('validation_loss'))}."
        + "".join(f" {name}: {value:.4g}." for name, value in notes.get("measured", {}).items())
    )


def _valid_range(model: Model) -> str:
    valid, shape = model.valid, model.network.config.shape
    low, high = (e / 1e3 for e in valid.energy_mev)
    return (
        f"Incident energy {low:g} to {high:g} GeV, theta {valid.theta[0]:g} to {valid.theta[1]:g} "
        f"rad, particles with PDG code {', '.join(map(str, valid.pdg))}, meshes of "
        f"{' x '.join(map(str, shape))} cells. Detectors that were not trained on are taken where "
        "every descriptor lies within the trained ones. Leakage out of the mesh is not modelled."
    )


def _table(record: Mapping[str, Any]) -> list[str]:
    """Headline, numbers and map of trust of the first model of a record; energies in GeV."""
    model = record["models"][0]
    lines = [
        f"{model['verdict']['headline']}. Samples of {record['sample_size']} for distances; where "
        "whole files give another number, it is the one at the size of the floor.",
        "",
        "| observable | value | Geant4 against Geant4 | beyond it |",
        "|---|---|---|---|",
    ]
    known = {metric["name"]: metric for metric in model["metrics"]}
    for metric in (known[name] for name in KEY_METRICS if name in known):
        unit = "" if metric["unit"] == "1" else f" {metric['unit']}"
        best = metric["value"] if metric["matched"] is None else metric["matched"]
        value = f"{best:.4g} ± {metric['error']:.2g}{unit}"
        floor = f"{metric['floor']:.4g} ± {metric['floor_error']:.2g}{unit}"
        lines.append(
            f"| {metric['title']}{_WORDS.get(metric['kind'], '')} | {value} | {floor} | "
            f"{metric['sigmas']:+.1f} sigma |"
        )
    return [*lines, "", trust_sentence(model["trust"])]


_WORDS = {"separation": ", separation power", "spread": ", fluctuations"}


def trust_sentence(trust: Mapping[str, Any]) -> str:
    """Say where it may be used: what is within its tolerance over the whole range, and in cells."""
    words = {"yes": "within tolerance", "no": "out of tolerance", "open": "not decided"}
    parts = []
    for answer, word in words.items():
        checks = [c for c in trust["whole"]["checks"] if c["answer"] == answer]
        if checks:
            listed = ", ".join(f"{c['title']} ({100 * c['tolerance']:g} %)" for c in checks)
            parts.append(f"{word}: {listed}")
    counts = {a: sum(c["answer"] == a for c in trust["cells"]) for a in words}
    return (
        f"Over the whole range, at 95 % confidence, {'; '.join(parts) or 'nothing is decided'}. Of "
        f"{len(trust['cells'])} cells in energy and angle {counts['yes']} are shown to be within "
        f"all tolerances, {counts['no']} not to be, {counts['open']} are open for want of showers."
    )


# Drawn by one busy core or one card, with its share of the rest: to be read as an estimate.
WATTS: Mapping[str, float] = MappingProxyType({"cpu": 10.0, "cuda": 500.0})


def _cost(notes: Mapping[str, Any], model: Model) -> str:
    parameters = sum(p.numel() for p in model.network.parameters())
    device, hours = str(notes.get("device", "cpu")), notes.get("seconds", 0) / 3600
    watts = WATTS.get(device.partition(":")[0], 10.0) * notes.get("threads", 1)
    return (
        f"{parameters / 1e6:.2f} million parameters. Trained for {hours:.2f} hours on {device} "
        f"({notes.get('threads', 1)} threads) with torch {notes.get('torch', '?')}, caloforge "
        f"{notes.get('caloforge', '?')}: about {hours * watts / 1000:.2g} kWh, estimated at "
        f"{watts:g} W." + (f" Generation: {notes['speed']}." if "speed" in notes else "")
    )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
