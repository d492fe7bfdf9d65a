"""The figures of a validation: Geant4 and generated, their ratio below, errors as bands.

How they are drawn, and that they are SVG to stand inside a page, is in `drawing`.
Samples come as a list of (label, observables), the reference first; nothing assumes just two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.differences import EnergyBin
from caloforge.evaluate.drawing import (
    COLOURS,
    Curve,
    draw_curves,
    draw_ratio,
    drawn,
    linear_axis,
    log_axis,
    over,
    with_ratio,
)
from caloforge.evaluate.observables import QUANTITIES, SPECTRUM_EDGES, Observables, Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Figure", "Sample", "figures"]

Array = NDArray[Any]
Sample = tuple[str, Observables]


@dataclass(frozen=True)
class Figure:
    """A finished figure: its name, title, caption with formula and unit, and its SVG."""

    name: str
    title: str
    caption: str
    svg: str


def figures(samples: Sequence[Sample], bins: Sequence[tuple[EnergyBin, ...]]) -> Iterator[Figure]:
    """Draw every figure of (label, observables) pairs, the reference first.

    `bins`: per bin of incident energy one `EnergyBin` of each sample (energies in MeV). All samples
    must be on one mesh. Figures are made one at a time: hold what you need.
    """
    for name in ("visible", "response"):
        yield _quantity_figure(samples, QUANTITIES[name])
    yield from _energy_figures(samples, bins)
    yield from _profile_figures(samples)
    for name in ("z_mean", "z_width", "r_mean", "r_width", "phi_cos", "phi_cos2", "phi_link"):
        yield _quantity_figure(samples, QUANTITIES[name])
    yield _spectrum_figure(samples)
    for name in ("hits", "hit_energy"):
        yield _quantity_figure(samples, QUANTITIES[name])
    yield _layer_figure(samples)
    yield _average_figure(samples)


def _axis(symbol: str, unit: str) -> str:
    return f"{symbol} [{unit}]" if unit else symbol


def _labels(samples: Sequence[Sample]) -> list[str]:
    return [label for label, _ in samples]


# --- one number per shower --------------------------------------------------------------------


def _quantity_figure(samples: Sequence[Sample], quantity: Quantity) -> Figure:
    values = [quantity.of(obs) for _, obs in samples]
    edges = _edges(values, quantity.log)
    curves = [_fraction(v, edges) for v in values]

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


def _fraction(values: Array, edges: Array) -> Curve:
    """Fraction of showers per bin with binomial errors; outsiders are left out of the drawing."""
    counts = np.histogram(values, edges)[0].astype(float)
    n = len(values)
    return Curve(counts / n, np.sqrt(counts * (1 - counts / n)) / n)


# --- response and resolution against energy ---------------------------------------------------


def _energy_figures(
    samples: Sequence[Sample], bins: Sequence[tuple[EnergyBin, ...]]
) -> Iterator[Figure]:
    low, high = bins[0][0].low, bins[-1][0].high
    edges = np.array([b[0].low for b in bins] + [high])
    if low == high:
        edges = np.array([low * 0.9, low * 1.1])
    table = (
        ("response", "Response against incident energy", r"mean $E_\mathrm{vis}/E_\mathrm{inc}$",
         "mean of visible over incident energy"),
        ("resolution", "Resolution against incident energy", r"$\sigma/\mu$ of $E_\mathrm{vis}$",
         "standard deviation over mean of visible over incident energy"),
    )  # fmt: skip
    for kind, title, label, formula in table:
        curves = [
            Curve(
                np.array([getattr(row[k], kind).value for row in bins]),
                np.array([getattr(row[k], kind).error for row in bins]),
            )
            for k in range(len(samples))
        ]
        caption = f"{formula}, in bins of incident energy (MeV)."
        svg = _energy_drawing(f"{kind}_vs_energy", _labels(samples), edges, curves, label)
        yield Figure(f"{kind}_vs_energy", title, caption, svg)


def _energy_drawing(
    name: str, labels: Sequence[str], edges: Array, curves: Sequence[Curve], label: str
) -> str:
    centres = np.sqrt(edges[1:] * edges[:-1])

    def draw(canvas: Canvas) -> None:
        main, below = with_ratio(canvas)
        for number, (text, curve) in enumerate(zip(labels, curves, strict=True)):
            known = curve.value > 0
            main.errorbar(
                centres[known], curve.value[known], curve.error[known], label=text, lw=1.3,
                fmt="os^Dvp"[number % 6], ms=5, color=COLOURS[number % 6],
            )  # fmt: skip
        draw_ratio(below, edges, curves, log=True)
        # A little wider than the bins, so that the decades at both ends get their labels.
        log_axis(main, edges[[0, -1]] * np.array([0.93, 1.07]))
        low, high = main.get_ylim()
        main.set_ylim(low, high + 0.25 * (high - low))
        main.set_ylabel(label)
        below.set_xlabel(_axis(r"$E_\mathrm{inc}$", "MeV"))
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


# --- many layers, and the average shower ------------------------------------------------------


def _layer_figure(samples: Sequence[Sample]) -> Figure:
    layers = _telling_layers(samples[0][1])

    def draw(canvas: Canvas) -> None:
        rows = (len(layers) + 1) // 2
        grid = canvas.add_gridspec(2 * rows, 2, height_ratios=(2, 1) * rows)
        for place, layer in enumerate(layers):
            row, column = divmod(place, 2)
            main = canvas.add_subplot(grid[2 * row, column])
            below = canvas.add_subplot(grid[2 * row + 1, column], sharex=main)
            _draw_layer(main, below, samples, layer)
            if column == 0:
                main.set_ylabel("fraction")
            if row == rows - 1:
                below.set_xlabel(_axis(r"$E_\mathrm{layer}$", "MeV"))
        handles, labels = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=len(labels))

    caption = (
        "visible energy in a slice of the mesh (MeV), fraction of showers in bins of equal log10 "
        f"width; layers {', '.join(map(str, layers))} of {samples[0][1].mesh.n_z}."
    )
    height = 0.5 + 2.4 * ((len(layers) + 1) // 2)
    return Figure(
        "layer_energy",
        "Layer energies",
        caption,
        drawn("layer_energy", height, draw, "constrained"),
    )


def _draw_layer(main: Axes, below: Axes, samples: Sequence[Sample], layer: int) -> None:
    values = [obs.layer_energy[:, layer] for _, obs in samples]
    edges = metrics.bin_edges(np.concatenate(values), 14, log=True)
    curves = [_fraction(v, edges) for v in values]
    draw_curves(main, _labels(samples), edges, curves)
    draw_ratio(below, edges, curves, label="", log=True)
    log_axis(main, edges)
    main.set_ylim(0, 1.6 * max(float((c.value + c.error).max()) for c in curves))
    main.tick_params(labelbottom=False, which="both")
    main.text(0.05, 0.82, f"layer {layer}", transform=main.transAxes, fontsize=11)


def _telling_layers(reference: Observables) -> list[int]:
    """Up to six layers from the first to the last that count, at shares of the energy before."""
    share = np.cumsum(reference.layer_energy.mean(axis=0))
    share = share / share[-1] if share[-1] > 0 else np.linspace(0, 1, len(share))
    wanted = np.searchsorted(share, [0.01, 0.15, 0.4, 0.65, 0.9, 0.99])
    return sorted({int(min(k, len(share) - 1)) for k in wanted})


def _trusted_ratio(obs: Observables, reference: Observables) -> Array:
    """Ratio of the average showers (R, Z); 0 where either mean is not known to 20 %."""
    means, trusted = [], []
    for one in (obs, reference):
        n = len(one)
        mean, square = one.shower_map / n, one.shower_map_squares / n
        error = np.sqrt(np.maximum(square - mean**2, 0) / n)
        means.append(mean)
        trusted.append((mean > 0) & (error < 0.2 * mean))
    return np.where(trusted[0] & trusted[1], over(*means), 0.0)


def _average_figure(samples: Sequence[Sample]) -> Figure:
    mesh = samples[0][1].mesh
    maps = [1e3 * obs.shower_map / len(obs) for _, obs in samples]
    positive = np.concatenate([m[m > 0] for m in maps] or [np.ones(1)])
    top = float(positive.max()) if positive.size else 1.0
    ratios = [_trusted_ratio(obs, samples[0][1]) for _, obs in samples[1:]]
    titles = [*_labels(samples), *(f"{label} / {samples[0][0]}" for label, _ in samples[1:])]

    def draw(canvas: Canvas) -> None:
        from matplotlib.colors import LogNorm, TwoSlopeNorm

        levels = LogNorm(top * 1e-5, top), TwoSlopeNorm(1.0, 0.5, 1.5)
        axes = np.atleast_1d(canvas.subplots(len(titles), 1, sharex=True, sharey=True))
        for number, (axis, picture, title) in enumerate(
            zip(axes, [*maps, *ratios], titles, strict=True)
        ):
            level, colours = (levels[0], "cividis") if number < len(maps) else (levels[1], "RdBu_r")
            shown = np.ma.masked_less_equal(picture, 0)
            image = axis.pcolormesh(
                mesh.edges_z, mesh.edges_r, shown, norm=level, cmap=colours, rasterized=True
            )
            axis.set_title(title, loc="left", fontsize=12)
            axis.set_ylabel("$r$ [mm]")
            text = "MeV/GeV" if number < len(maps) else "ratio"
            canvas.colorbar(image, ax=axis, label=text, extend="both", pad=0.02)
        axes[-1].set_xlabel("$z$ [mm]")

    caption = (
        "mean over showers of the visible energy in a ring of a layer over the incident energy "
        "(MeV per GeV), summed over the azimuth; the ratio where both are known to 20 %."
    )
    svg = drawn("average_shower", 0.6 + 1.9 * len(titles), draw, "constrained")
    return Figure("average_shower", "Average shower", caption, svg)
