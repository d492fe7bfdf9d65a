"""How a figure of a validation is drawn: curves with error bands, the ratio below, as inline SVG.

Every figure is an SVG made to stand inside a page: text and axes take the page's own colour, curves
take the page's variables ``--curve-0``, ``--curve-1``, ... (so they change with light and dark),
and identifiers carry the figure's name (so figures do not disturb each other). Colours are those of
M. Okabe and K. Ito, "Color Universal Design" (2008), which colour-blind readers can tell apart; the
reference is also filled and the others are not. The style is mplhep's ROOT style.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = [
    "COLOURS",
    "Curve",
    "draw_curves",
    "draw_ratio",
    "drawn",
    "linear_axis",
    "log_axis",
    "over",
    "with_ratio",
]

Array = NDArray[Any]
Layout = Literal["constrained"] | None

# Okabe and Ito: blue, vermilion, bluish green, reddish purple, orange, sky blue.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK, _GRID = "#010203", "#c8c9ca"  # placeholders that no figure uses otherwise
_KNOWN = 0.25  # relative error of a bin that may widen the ratio panel
_WIDTH = 5.2  # inches: on a phone's 360 pixels text keeps its 11 pixels
_STYLE: dict[str, Any] = {
    "font.size": 12, "axes.labelsize": 13, "xtick.labelsize": 11, "ytick.labelsize": 11,
    "legend.fontsize": 11, "axes.linewidth": 1.0, "lines.linewidth": 1.6, "legend.frameon": False,
    "xtick.major.size": 6, "xtick.minor.size": 3, "ytick.major.size": 6, "ytick.minor.size": 3,
    "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK,
    "ytick.color": _INK, "legend.labelcolor": _INK, "svg.fonttype": "path", "axes.grid": False,
    "xtick.minor.visible": False, "ytick.minor.visible": False, "axes.unicode_minus": True,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curve:
    """A binned curve (n_bins,) with errors, in the unit of its axis."""

    value: Array
    error: Array


def drawn(name: str, height: float, draw: Callable[[Canvas], None], layout: Layout = None) -> str:
    """SVG of what `draw` puts on a canvas of a height in inches, in the project's style.

    `layout` "constrained" finds the margins; None leaves those of `with_ratio`.
    """
    import matplotlib as mpl
    import mplhep
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    style: dict[Any, Any] = {**mplhep.style.ROOT, **_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        canvas = Canvas(figsize=(_WIDTH, height), layout=layout)
        FigureCanvasSVG(canvas)
        draw(canvas)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None}, dpi=200)
    return _inlined(buffer.getvalue(), name)


def _inlined(svg: str, name: str) -> str:
    """Make an SVG fit to stand inside a page among others."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r'<svg\1 role="img"', svg, count=1)
    svg = re.sub(r' d="([^"]*)"', lambda path: f' d="{_rounded(path[1])}"', svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--curve-{number})")
    return svg


def _rounded(path: str) -> str:
    """Cut coordinates to a hundredth of a point, which no screen shows."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path.split()))


def with_ratio(canvas: Canvas) -> tuple[Axes, Axes]:
    """Add the two panels of a figure, curves above and their ratio below, sharing the x axis."""
    margins = {"left": 0.165, "right": 0.965, "top": 0.97, "bottom": 0.135}
    grid = canvas.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.07, **margins)
    main = canvas.add_subplot(grid[0])
    below = canvas.add_subplot(grid[1], sharex=main)
    main.tick_params(labelbottom=False, which="both")
    canvas.align_ylabels([main, below])
    return main, below


def log_axis(axes: Axes, edges: Array) -> None:
    """Make the x axis logarithmic over `edges`, labelled at 1, 2, 5 if it spans few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if edges[-1] / edges[0] < 60:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlim(edges[0], edges[-1])


def linear_axis(axes: Axes, edges: Array) -> None:
    """Make the x axis linear over `edges`, with few enough labels for a phone."""
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlim(edges[0], edges[-1])


def draw_curves(main: Axes, labels: Sequence[str], edges: Array, curves: Sequence[Curve]) -> None:
    """Draw curves of bins (n_bins + 1,): the reference filled with its error band, others steps."""
    import mplhep

    for number, (label, curve) in enumerate(zip(labels, curves, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        common = {"ax": main, "bins": edges, "color": colour, "flow": "none"}
        if number == 0:
            mplhep.histplot(curve.value, histtype="fill", alpha=0.22, label=label, **common)
            mplhep.histplot(curve.value, histtype="step", lw=1.2, yerr=False, **common)
            _band(main, edges, curve.value - curve.error, curve.value + curve.error, colour)
        else:
            mplhep.histplot(curve.value, yerr=curve.error, histtype="step", label=label, **common)


def _band(axes: Axes, edges: Array, low: Array, high: Array, colour: str) -> None:
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.35, lw=0)


def draw_ratio(
    below: Axes, edges: Array, curves: Sequence[Curve], *, label: str = "ratio", log: bool = False
) -> None:
    """Draw everything over the reference: its own error as the band, theirs as bars.

    `edges` (n_bins + 1,) in the unit of the x axis; `log` puts the points at geometric centres.
    """
    reference = curves[0]
    own = over(reference.error, reference.value)
    _band(below, edges, 1 - own, 1 + own, COLOURS[0])
    below.axhline(1.0, color=_INK, lw=0.8)
    centres = np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])
    rows = [(over(c.value, reference.value), over(c.error, reference.value)) for c in curves[1:]]
    span = _span(rows, own, reference.value > 0)
    for number, (value, error) in enumerate(rows, start=1):
        seen = (reference.value > 0) & (value > 0)
        _draw_points(below, centres[seen], value[seen], error[seen], span, COLOURS[number % 6])
    below.set_ylim(1 - span, 1 + span)
    below.set_ylabel(label)


def _draw_points(
    below: Axes, x: Array, value: Array, error: Array, span: float, colour: str
) -> None:
    """Draw ratios with bars; those beyond the frame as arrowheads at its edge."""
    out = np.abs(value - 1) > span
    below.errorbar(
        x[~out], value[~out], error[~out], fmt="o", ms=3, lw=1.1, color=colour, capsize=0
    )
    for side, marker in ((1, "^"), (-1, "v")):
        here = out & (np.sign(value - 1) == side)
        edge = np.full(here.sum(), 1 + side * span * 0.93)
        below.plot(x[here], edge, marker, ms=4, color=colour, ls="none")


def _span(rows: Sequence[tuple[Array, Array]], own: Array, used: Array) -> float:
    """Half-height of the ratio panel: the smallest round one that holds the well-measured bins."""
    known = used & (own < _KNOWN)
    sizes = [own[known], *(np.abs(v - 1)[known & (e < _KNOWN)] for v, e in rows)]
    largest = max((float(s.max()) for s in sizes if s.size), default=0.5)
    return next((s for s in (0.05, 0.1, 0.2, 0.3, 0.5) if s >= 1.1 * largest), 0.95)


def over(numerator: Array, denominator: Array) -> Array:
    """Quotient of arrays of one shape, 0 where the denominator is not positive."""
    return np.divide(
        numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0
    )
