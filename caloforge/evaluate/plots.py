"""The figures of a validation: Geant4 and generated, their ratio below, errors as bands.

How they are drawn, and that they are SVG to stand inside a page, is in `drawing`.
Samples come as a list of (label, observables), the reference first; nothing assumes just two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.drawing import (
    COLOURS,
    Curve,
    draw_curves,
    draw_ratio,
    drawn,
    linear_axis,
    log_axis,
    with_ratio,
)
from caloforge.evaluate.maps import (
    Figure,
    Sample,
    average_figure,
    correlation_figure,
    fraction,
    layer_figure,
)
from caloforge.evaluate.observables import QUANTITIES, SPECTRUM_EDGES, Quantity
from caloforge.evaluate.resolution import ResolutionFit, ResponseBin

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from caloforge.evaluate.observables import Observables

__all__ = ["figures", "response_figures"]

Array = NDArray[Any]
Rows = Sequence[tuple[ResponseBin, ...]]


def figures(
    samples: Sequence[Sample], bins: Rows, angles: Rows, fits: Sequence[ResolutionFit | None] = ()
) -> Iterator[Figure]:
    """Draw every figure of (label, observables) pairs, the reference first.

    `bins`, `angles`: per bin of incident energy (MeV) and of theta (rad) one `ResponseBin` of each
    sample; `fits`: of the resolution of each. All samples must be on one mesh. Figures are made one
    at a time: hold what you need.
    """
    for name in ("visible", "response"):
        yield _quantity_figure(samples, QUANTITIES[name])
    yield from response_figures(_labels(samples), bins, "energy", fits)
    yield from response_figures(_labels(samples), angles, "theta")
    yield from _profile_figures(samples)
    for name in ("z_mean", "z_width", "z_max", "z_90", "r_mean", "r_width", "r_50", "r_90",
                 "phi_cos", "phi_cos2", "phi_link"):  # fmt: skip
        yield _quantity_figure(samples, QUANTITIES[name])
    yield _spectrum_figure(samples)
    for name in ("hits", "hit_energy"):
        yield _quantity_figure(samples, QUANTITIES[name])
    yield layer_figure(samples)
    yield average_figure(samples)
    yield correlation_figure(samples)


def _axis(symbol: str, unit: str) -> str:
    return f"{symbol} [{unit}]" if unit else symbol


def _labels(samples: Sequence[Sample]) -> list[str]:
    return [label for label, _ in samples]


# --- one number per shower --------------------------------------------------------------------


def _quantity_figure(samples: Sequence[Sample], quantity: Quantity) -> Figure:
    values = [quantity.of(obs) for _, obs in samples]
    edges = _edges(values, quantity.log)
    curves = [fraction(v, edges) for v in values]

    def draw(canvas: Canvas) -> None:
        main, below = with_ratio(canvas)
        draw_curves(main, _labels(samples), edges, curves)
        draw_ratio(below, edges, curves, log=quantity.log)
        if quantity.log:
            log_axis(main, edges)
        else:
            linear_axis(main, edges)
        main.set_ylim(0, 1.3 * max(float((c.value + c.error).max()) for c in curves))
        main.set_ylabel("fraction of showers")
        below.set_xlabel(_axis(quantity.symbol, quantity.unit))
        main.legend(loc="upper right")

    steps = "log10" if quantity.log else "linear"
    unit = f" ({quantity.unit})" if quantity.unit else ""
    caption = f"{quantity.formula}{unit}; fraction of showers in bins of equal {steps} width."
    return Figure(quantity.name, quantity.title, caption, drawn(quantity.name, 4.3, draw))


def _edges(values: Sequence[Array], log: bool) -> Array:
    """Make common edges, in the unit of the values, that hold 99 % of each sample."""
    bins = 40 if min(len(v) for v in values) > 2000 else 24
    each = [metrics.bin_edges(v, bins, log=log) for v in values]
    low, high = min(e[0] for e in each), max(e[-1] for e in each)
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


# --- response and resolution against energy and angle -----------------------------------------

_AXES = {
    "energy": (_axis(r"$E_\mathrm{inc}$", "MeV"), "incident energy", "MeV"),
    "theta": (_axis(r"$\theta$", "rad"), "polar angle", "rad"),
}


def response_figures(
    labels: Sequence[str], bins: Rows, against: str, fits: Sequence[ResolutionFit | None] = ()
) -> Iterator[Figure]:
    """Draw response and resolution against "energy" (MeV) or "theta" (rad), with fits if given."""
    low, high = bins[0][0].low, bins[-1][0].high
    edges = np.array([b[0].low for b in bins] + [high])
    if low == high:
        edges = np.array([low * 0.9, low * 1.1])
    _, words, unit = _AXES[against]
    table = (
        ("response", f"Response against {words}", r"mean $E_\mathrm{vis}/E_\mathrm{inc}$",
         "mean of visible over incident energy"),
        ("resolution", f"Resolution against {words}", r"$\sigma/\mu$ of $E_\mathrm{vis}$",
         "standard deviation over mean of visible over incident energy"),
    )  # fmt: skip
    for kind, title, label, formula in table:
        curves = [
            Curve(
                np.array([getattr(row[k], kind).value for row in bins]),
                np.array([getattr(row[k], kind).error for row in bins]),
            )
            for k in range(len(labels))
        ]
        lines = fits if kind == "resolution" else ()
        caption = f"{formula}, in bins of {words} ({unit})."
        if any(lines):
            caption += f" Lines: fits of a/sqrt(E) \u2295 b. {_fitted(labels, lines)}"
        name = f"{kind}_vs_{against}"
        svg = _response_drawing(name, labels, edges, curves, (label, against), lines)
        yield Figure(name, title, caption, svg)


def _fitted(labels: Sequence[str], fits: Sequence[ResolutionFit | None]) -> str:
    """Terms of the fits in per cent (times sqrt(GeV) for the stochastic one)."""
    texts = []
    for label, fit in zip(labels, fits, strict=True):
        if fit is not None:
            a, b = fit.stochastic, fit.constant
            texts.append(
                f"{label}: a = {100 * a.value:.2f} ± {100 * a.error:.2f} % √GeV, "
                f"b = {100 * b.value:.2f} ± {100 * b.error:.2f} %, χ²/ndf {fit.chi2:.1f}/{fit.ndf}"
            )
    return "; ".join(texts) + "."


def _response_drawing(
    name: str, labels: Sequence[str], edges: Array, curves: Sequence[Curve],
    axes: tuple[str, str], fits: Sequence[ResolutionFit | None],
) -> str:  # fmt: skip
    log = axes[1] == "energy"
    centres = np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])

    def draw(canvas: Canvas) -> None:
        main, below = with_ratio(canvas)
        for number, (text, curve) in enumerate(zip(labels, curves, strict=True)):
            known = curve.value > 0
            main.errorbar(
                centres[known], curve.value[known], curve.error[known], label=text, lw=1.3,
                fmt="os^Dvp"[number % 6], ms=5, color=COLOURS[number % 6],
            )  # fmt: skip
        for number, fit in enumerate(fits):
            if fit is not None:
                x = np.geomspace(edges[0], edges[-1], 60)
                y = np.hypot(fit.stochastic.value / np.sqrt(x / 1e3), fit.constant.value)
                main.plot(x, y, lw=1.0, color=COLOURS[number % 6], ls="-" if number == 0 else "--")
        draw_ratio(below, edges, curves, log=log)
        if log:
            # A little wider than the bins, so that the decades at both ends get their labels.
            log_axis(main, edges[[0, -1]] * np.array([0.93, 1.07]))
        else:
            linear_axis(main, edges)
        low, high = main.get_ylim()
        main.set_ylim(low, high + 0.25 * (high - low))
        main.set_ylabel(axes[0])
        below.set_xlabel(_AXES[axes[1]][0])
        main.legend(loc="upper right")

    return drawn(name, 4.3, draw)


# --- profiles and the cell spectrum -----------------------------------------------------------


def _mean_curve(rows: Array) -> Curve:
    """Mean over showers (n_bins,) of rows (N, n_bins) and its standard error."""
    return Curve(rows.mean(axis=0), rows.std(axis=0, ddof=1) / np.sqrt(len(rows)))


def _profile_figures(samples: Sequence[Sample]) -> Iterator[Figure]:
    mesh = samples[0][1].mesh
    table: tuple[tuple[str, str, str, Array, bool, Callable[[Observables], Array]], ...] = (
        ("longitudinal_profile", "Longitudinal profile", "$z$ [mm]", mesh.edges_z, True,
         lambda o: o.layer_energy),
        ("radial_profile", "Radial profile", "$r$ [mm]", mesh.edges_r, True,
         lambda o: o.ring_energy),
        ("azimuthal_profile", "Azimuthal profile", r"$\varphi$ [rad]", mesh.edges_phi, False,
         lambda o: o.sector_energy),
    )  # fmt: skip
    for name, title, label, edges, log, of in table:
        curves = [_mean_curve(1e3 * of(obs) / obs.energy[:, None]) for _, obs in samples]
        caption = (
            "mean over showers of the visible energy in a bin over the incident energy "
            "(MeV per GeV); errors of the mean."
        )
        what = r"$E_\mathrm{bin}/E_\mathrm{inc}$ [MeV/GeV]"
        svg = _steps_drawing(name, _labels(samples), edges, curves, (label, what), log_y=log)
        yield Figure(name, title, caption, svg)
    hits = [_mean_curve(obs.layer_hits.astype(float)) for _, obs in samples]
    axes = ("$z$ [mm]", "cells per slice")
    svg = _steps_drawing("occupancy", _labels(samples), mesh.edges_z, hits, axes, log_y=False)
    cells = mesh.n_r * mesh.n_phi
    caption = f"mean number of cells above the cut in a slice of {cells} cells, against depth (mm)."
    yield Figure("occupancy", "Occupancy in depth", caption, svg)


def _spectrum_figure(samples: Sequence[Sample]) -> Figure:
    curves = [_mean_curve(obs.spectrum.astype(float)) for _, obs in samples]
    filled = np.flatnonzero(np.sum([c.value for c in curves], axis=0))
    used = slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 1)
    curves = [Curve(c.value[used], c.error[used]) for c in curves]
    edges = SPECTRUM_EDGES[used.start : used.stop + 1]
    labels = (_axis(r"$E_\mathrm{cell}$", "MeV"), "cells per shower and bin")
    svg = _steps_drawing(
        "cell_spectrum", _labels(samples), edges, curves, labels, log_y=True, log_x=True
    )
    caption = "mean number of cells per shower in ten bins per decade of the cell energy (MeV)."
    return Figure("cell_spectrum", "Cell-energy spectrum", caption, svg)


def _steps_drawing(
    name: str, labels: Sequence[str], edges: Array, curves: Sequence[Curve],
    axes: tuple[str, str], *, log_y: bool, log_x: bool = False,
) -> str:  # fmt: skip
    def draw(canvas: Canvas) -> None:
        main, below = with_ratio(canvas)
        draw_curves(main, labels, edges, curves)
        draw_ratio(below, edges, curves, log=log_x)
        positive = np.concatenate([c.value[c.value > 0] for c in curves])
        if log_y and positive.size:
            main.set_yscale("log")
            main.set_ylim(positive.min() / 2, positive.max() * 15)
        elif positive.size:
            main.set_ylim(0, 1.35 * positive.max())
        if log_x:
            log_axis(main, edges)
        else:
            linear_axis(main, edges)
        main.set_ylabel(axes[1])
        below.set_xlabel(axes[0])
        main.legend(loc="upper right")

    return drawn(name, 4.3, draw)
