"""Figures of many panels: energies layer by layer, the average shower, correlations of layers.

Samples come as a list of (label, observables), the reference first; energies are in MeV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.evaluate import metrics
from caloforge.evaluate.drawing import Curve, draw_curves, draw_ratio, drawn, log_axis, over
from caloforge.evaluate.observables import Observables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Figure", "Sample", "average_figure", "correlation_figure", "fraction", "layer_figure"]

Array = NDArray[Any]
Sample = tuple[str, Observables]


@dataclass(frozen=True)
class Figure:
    """A finished figure: its name, title, caption with formula and unit, and its SVG."""

    name: str
    title: str
    caption: str
    svg: str


def fraction(values: Array, edges: Array) -> Curve:
    """Fraction of showers (N,) per bin of edges (n_bins + 1,), in one unit, with binomial errors.

    Outsiders are left out of the drawing.
    """
    counts = np.histogram(values, edges)[0].astype(float)
    n = len(values)
    return Curve(counts / n, np.sqrt(counts * (1 - counts / n)) / n)


def layer_figure(samples: Sequence[Sample]) -> Figure:
    """Draw the energies (MeV) of up to six slices of the mesh, each with its ratio."""
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
                below.set_xlabel(r"$E_\mathrm{layer}$ [MeV]")
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
    curves = [fraction(v, edges) for v in values]
    draw_curves(main, [label for label, _ in samples], edges, curves)
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


def average_figure(samples: Sequence[Sample]) -> Figure:
    """Draw the average shower in (z, r), MeV per GeV and mm, and its ratio to the reference."""
    mesh = samples[0][1].mesh
    maps = [1e3 * obs.shower_map / len(obs) for _, obs in samples]
    positive = np.concatenate([m[m > 0] for m in maps] or [np.ones(1)])
    top = float(positive.max()) if positive.size else 1.0
    ratios = [_trusted_ratio(obs, samples[0][1]) for _, obs in samples[1:]]
    titles = [
        *(label for label, _ in samples),
        *(f"{label} / {samples[0][0]}" for label, _ in samples[1:]),
    ]

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


def correlation_figure(samples: Sequence[Sample]) -> Figure:
    """Draw the correlation coefficients of all pairs of layers, and the difference."""
    tables = [_layer_correlation(obs) for _, obs in samples]
    gaps = [table - tables[0] for table in tables[1:]]
    titles = [label for label, _ in samples]
    titles += [f"{label} \u2212 {samples[0][0]}" for label in titles[1:]]

    def draw(canvas: Canvas) -> None:
        columns = 2 if len(titles) > 1 else 1
        rows = -(-len(titles) // columns)
        axes = np.atleast_1d(canvas.subplots(rows, columns, sharex=True, sharey=True)).ravel()
        for axis in axes[len(titles) :]:
            axis.set_axis_off()
        for axis, table, title in zip(axes, [*tables, *gaps], titles, strict=False):
            image = axis.imshow(
                table, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower", interpolation="nearest"
            )
            axis.set_title(title, loc="left", fontsize=11)
        canvas.colorbar(image, ax=list(axes), label="coefficient", shrink=0.8, pad=0.02)
        canvas.supxlabel("layer", fontsize=12)
        canvas.supylabel("layer", fontsize=12)

    caption = (
        "correlation coefficients of the layer energies over the incident energy (no unit), of "
        "each sample and minus those of the reference."
    )
    height = 0.7 + 2.2 * (-(-len(titles) // 2))
    svg = drawn("layer_correlation", height, draw, "constrained")
    return Figure("layer_correlation", "Correlations between layers", caption, svg)


def _layer_correlation(obs: Observables) -> Array:
    return metrics.correlation(obs.layer_energy / obs.energy[:, None], np.ones(len(obs)))
