"""The figures of a task: linearity and resolution against energy, ROC curves; errors as bars.

Every figure is an SVG that stands inside the page (`caloforge.evaluate.drawing`). Energies in GeV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate.drawing import COLOURS, drawn, linear_axis, log_axis
from caloforge.evaluate.maps import Figure
from caloforge.tasks.scores import Roc

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

__all__ = ["figures"]

Array = NDArray[Any]
MARKS = "os^Dvp"
Scores = Mapping[str, Mapping[str, Any]]


def figures(question: str, scores: Scores, rocs: Mapping[str, Sequence[Roc]]) -> Iterator[Figure]:
    """Draw what belongs to a question: `scores`, `rocs` of each method, the model's own first."""
    if question == "energy":
        yield _against_energy(
            "linearity", "Linearity", "mean of reconstructed over true energy, in bins of the true "
            "energy; an ideal answer is 1.", r"mean $E_\mathrm{reco}/E$", scores, "response", 1e3,
        )  # fmt: skip
        yield _against_energy(
            "resolution", "Resolution", "standard deviation over mean of reconstructed over true "
            "energy, in bins of the true energy. Lines: fits of a/sqrt(E) \u2295 b.",
            r"$\sigma/\mu$ of $E_\mathrm{reco}/E$", scores, "resolution", 1e3,
        )  # fmt: skip
    elif question == "theta":
        yield _against_energy(
            "theta_resolution", "Angular resolution", "standard deviation of reconstructed minus "
            "true theta (rad), in bins of the true energy.",
            r"$\sigma$ of $\theta_\mathrm{reco} - \theta$ [rad]", scores, "spread", 1e3,
        )  # fmt: skip
        yield _against_energy(
            "theta_bias", "Angular bias", "mean of reconstructed minus true theta (rad), in bins "
            "of the true energy.", r"mean $\theta_\mathrm{reco} - \theta$ [rad]", scores, "bias",
            1e3,
        )  # fmt: skip
    else:
        for number, roc in enumerate(next(iter(rocs.values()))):
            yield _roc(number, roc, {name: found[number] for name, found in rocs.items()})


def _against_energy(
    name: str, title: str, caption: str, label: str, scores: Scores, kind: str, unit: float
) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        ends: list[float] = []
        for number, (method, found) in enumerate(scores.items()):
            bins = [b for b in found["bins"] if b["n"] >= 4]
            centre = np.array([np.sqrt(b["low"] * b["high"]) for b in bins]) / unit
            ends += [bins[0]["low"] / unit, bins[-1]["high"] / unit]
            value, error = (np.array([b[kind][k] for b in bins]) for k in ("value", "error"))
            shift = 1 + 0.02 * (number - (len(scores) - 1) / 2)  # bars that do not hide each other
            colour = COLOURS[number % 6]
            axes.errorbar(centre * shift, value, error, fmt=MARKS[number % 6], ms=4.5, lw=1.2,
                          color=colour, label=method)  # fmt: skip
            if kind == "resolution" and found.get("fit"):
                a, b = (found["fit"][k]["value"] for k in ("stochastic", "constant"))
                x = np.geomspace(min(ends), max(ends), 60)
                axes.plot(x, np.hypot(a / np.sqrt(x), b), lw=1.0, color=colour)
        if kind in ("response", "bias"):
            axes.axhline(float(kind == "response"), color=COLOURS[0], lw=0.6, ls=":")
        log_axis(axes, np.array([min(ends) * 0.93, max(ends) * 1.07]))
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.3 * (high - low))
        axes.set_xlabel(r"true energy $E$ [GeV]")
        axes.set_ylabel(label)
        axes.legend(loc="upper right")

    return Figure(name, title, caption, drawn(name, 3.7, draw, "constrained"))


def _roc(number: int, first: Roc, rocs: Mapping[str, Roc]) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for k, (method, roc) in enumerate(rocs.items()):
            text = f"{method}: {roc.area.value:.3f}"
            axes.plot(roc.efficiency, roc.passing, color=COLOURS[k % 6], label=text)
        axes.plot([0, 1], [0, 1], color=COLOURS[0], lw=0.6, ls=":")
        linear_axis(axes, np.array([0.0, 1.0]))
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"efficiency for {first.signal}")
        axes.set_ylabel(f"share of {first.background} that passes")
        axes.legend(loc="upper left", title="area under the curve")

    name = f"roc_{number}"
    title = f"{first.signal} against {first.background}"
    caption = (
        f"share of {first.background} that passes against the efficiency for {first.signal}; the "
        "area is that above the curve, which is the usual area under the ROC curve."
    )
    return Figure(name, title, caption, drawn(name, 3.7, draw, "constrained"))
