"""The physicist's whole day as one command: simulate, adapt, generate, validate, sum up.

A folder holds all of it: ``train.h5`` and ``reference.h5`` (Geant4), ``model/`` (the checkpoint),
``generated.h5``, ``report/`` (the validation), ``forge.json`` (what was asked, and what each stage
took and found) and ``index.html`` (the summary). A stage is done when ``forge.json`` says so, which
is written whole after each; a run that was killed at any moment goes on at the stage it was in, and
Geant4 and the training within it where they were.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from caloforge.detector.descriptors import descriptors, facts_of
from caloforge.detector.detector import Detector, parse_detector
from caloforge.errors import RequestError
from caloforge.files import atomic_path, claimed_folder, locked
from caloforge.generate import generate_file
from caloforge.learn.adapt import LEAST, METHODS, adapt, described
from caloforge.learn.card import model_card, trust_sentence
from caloforge.learn.checkpoint import load_model, save_model
from caloforge.learn.condition import PARTICLES
from caloforge.learn.models.family import Manner, family
from caloforge.showers.formats import open_showers
from caloforge.simulate.beam import PDG, Beam
from caloforge.simulate.parts import parts_folder
from caloforge.simulate.production import simulate

__all__ = ["STAGES", "Order", "forge"]

LEAST_JUDGED = 40  # Showers that a validation can halve.
RECORD = "forge.json"


@dataclass(frozen=True)
class Order:
    """What to forge.

    detector: text of a detector file; showers: Geant4 showers to adapt to; judged: more of them to
    validate against; model: a shipped one or a folder; method, steps: of `caloforge.learn.adapt`;
    beam: energies in MeV, angles in rad; engine: ``geant4`` or ``parametric``; seed: of everything.
    """

    detector: str
    showers: int = 1000
    judged: int = 400
    model: str = "codes"
    method: str = "full"
    steps: int | None = None
    beam: Beam = field(default_factory=Beam)
    engine: str = "geant4"
    seed: int = 1

    def parsed(self) -> Detector:
        """Return the detector."""
        return parse_detector(self.detector)


@dataclass(frozen=True)
class _Site:
    """Where the work is done, with how many processes, asked for by which command."""

    out: Path
    workers: int
    command: str


def forge(
    order: Order, out: Path, *, workers: int = 1, resume: bool = False, command: str = ""
) -> dict[str, Any]:
    """Do all of it into the folder `out`; returns headline, page and the seconds of each stage.

    Raises `RequestError` for what cannot be forged, and if `out` holds another run or, without
    `resume`, any; `WorkError` if a stage fails, after which `resume` goes on.
    """
    _check(order, workers)
    with claimed_folder(out):
        record = _record(order, out, resume)
        with locked(out):
            _work(order, _Site(out, workers, command), record)
    stages = record["stages"]
    return {
        "headline": stages["validate"]["headline"], "page": str(out / "index.html"),
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
    }  # fmt: skip


def _work(order: Order, site: _Site, record: dict[str, Any]) -> None:
    """Do the stages that are not done; a request refused by the first of them leaves nothing."""
    try:
        for name, work in STAGES.items():
            if name in record["stages"]:
                continue
            began = time.monotonic()
            found = work(order, site)
            seconds = round(time.monotonic() - began, 1)
            record["stages"][name] = {"seconds": seconds, **found}
            with atomic_path(site.out / RECORD) as path:
                path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    except RequestError:
        if not record["stages"]:
            (site.out / "lock").unlink(missing_ok=True)
        raise
    with atomic_path(site.out / "index.html") as path:
        path.write_text(_page(order, record), "utf-8")


def _check(order: Order, workers: int) -> None:
    """Refuse what would fail hours later."""
    from caloforge.deploy.export import require

    require("onnx")
    descriptors(order.parsed())  # a GDML detector needs a describing stack
    model = load_model(order.model)
    family(model.family).tuning(model, order.model, order.parsed().mesh.shape)
    if order.method not in METHODS:
        raise RequestError(f"unknown method '{order.method}'; known are {', '.join(METHODS)}")
    for name, number, least in (
        ("showers to adapt to", order.showers, LEAST),
        ("showers to validate against", order.judged, LEAST_JUDGED),
        ("steps", 1 if order.steps is None else order.steps, 1),
        ("workers", workers, 1),
    ):
        if number < least:
            raise RequestError(f"the number of {name} must be at least {least}, not {number}")
    unknown = [name for name in order.beam.particle.split(",") if PDG[name] not in PARTICLES]
    if unknown:
        raise RequestError(f"models know no '{unknown[0]}'; take electrons, positrons or photons")


def _record(order: Order, out: Path, resume: bool) -> dict[str, Any]:
    """What was done before, or nothing yet."""
    asked = json.loads(json.dumps(asdict(order)))
    path = out / RECORD
    if not path.is_file():
        return {"order": asked, "stages": {}}
    if not resume:
        raise RequestError(f"'{out}' holds a forge; add --resume, or choose another folder")
    before = dict(json.loads(path.read_text("utf-8")))
    for key, value in asked.items():
        if before["order"].get(key) != value:
            raise RequestError(f"'{out}' was begun with another {key}; keep it, or begin elsewhere")
    return before


# --- the stages -------------------------------------------------------------------------------


def _simulated(order: Order, site: _Site, path: Path, n: int, seed: int) -> dict[str, Any]:
    beam = order.beam
    made = simulate(
        order.parsed(), path, n, particle=beam.particle, energy_mev=beam.energy, theta=beam.theta,
        phi=beam.phi, seed=seed, workers=site.workers, engine=order.engine,
        resume=parts_folder(path).exists() or path.is_file(), command=site.command,
    )  # fmt: skip
    return {"showers": n, "cpu_s_per_shower": round(made.seconds_per_event, 4)}


def _train(order: Order, site: _Site) -> dict[str, Any]:
    return _simulated(order, site, site.out / "train.h5", order.showers, order.seed)


def _reference(order: Order, site: _Site) -> dict[str, Any]:
    # Seeds of events are hashes of the run's seed: the two files share no event.
    return _simulated(order, site, site.out / "reference.h5", order.judged, order.seed + 1)


def _adapt(order: Order, site: _Site) -> dict[str, Any]:
    out = site.out / "model"
    found = adapt(
        order.model, [site.out / "train.h5"], out, method=order.method, steps=order.steps,
        seed=order.seed, resume=(out / "recipe.json").is_file(),
    )  # fmt: skip
    return described(found)


def _generate(order: Order, site: _Site) -> dict[str, Any]:
    done = generate_file(
        site.out / "model", site.out / "generated.h5", like=site.out / "reference.h5",
        seed=order.seed + 2, manner=_manner(site), command=site.command,
    )  # fmt: skip
    return {"showers": done["showers"], "s_per_shower": round(1 / done["showers_per_second"], 4)}


def _manner(site: _Site) -> Manner:
    """How showers are drawn: what is validated is what is exported."""
    from caloforge.deploy.export import draws_of

    model = load_model(site.out / "model")
    return Manner(draws_of(model), "beliefs") if model.family == "diffusion" else Manner()


def _validate(order: Order, site: _Site) -> dict[str, Any]:
    """Judge the model, and put the judgement into its card."""
    from caloforge.evaluate.validation import validate

    reference, generated = site.out / "reference.h5", site.out / "generated.h5"
    with closing(open_showers(reference)) as first, closing(open_showers(generated)) as second:
        result = validate(
            first, second, site.out / "report", labels=(ENGINES[order.engine], "model")
        )
    name = order.parsed().name
    model = load_model(site.out / "model")
    card = model_card(name, model, {f"{name}, {order.judged} showers": result})
    save_model(model, site.out / "model", card=card)
    verdict = result["verdict"]
    return {
        "headline": verdict["headline"], "paragraph": verdict["paragraph"],
        "warnings": result["warnings"],
        "trust": trust_sentence(result["models"][0]["trust"]),
    }  # fmt: skip


def _export(order: Order, site: _Site) -> dict[str, Any]:
    """Write the model as it was validated; the detector was trained on, so it is in range."""
    from caloforge.deploy.export import export

    return export(
        site.out / "model", site.out / "model.onnx", detector=order.parsed(),
        steps=_manner(site).steps, extrapolate=True,
    )  # fmt: skip


ENGINES: Mapping[str, str] = MappingProxyType({"geant4": "Geant4", "parametric": "parametrised"})
STAGES: Mapping[str, Callable[[Order, _Site], dict[str, Any]]] = MappingProxyType(
    {
        "simulate": _train, "reference": _reference, "adapt": _adapt, "generate": _generate,
        "validate": _validate, "export": _export,
    }
)  # fmt: skip
_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "simulate": "showers to adapt to ({})", "reference": "showers to validate with ({})",
        "adapt": "adaptation", "generate": "generation", "validate": "validation",
        "export": "export",
    }
)  # fmt: skip


def _page(order: Order, record: Mapping[str, Any]) -> str:
    """The summary: verdict, trust, timeline, what is where; energies in GeV, angles in rad."""
    from jinja2 import Environment, StrictUndefined

    stages = record["stages"]
    whole = sum(stage["seconds"] for stage in stages.values())
    timeline = [
        (
            _TITLES[name].format(order.engine),
            stage["seconds"],
            100 * stage["seconds"] / max(whole, 1e-9),
        )
        for name, stage in stages.items()
    ]
    beam = order.beam
    template = Path(__file__).with_name("forge.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        name=order.parsed().name, facts=facts_of(order.parsed()), order=order, stages=stages,
        timeline=timeline, engine=ENGINES[order.engine], minutes=whole / 60,
        beam=(beam.particle, *(e / 1e3 for e in beam.energy), *beam.theta),
    )  # fmt: skip
