"""How all figures look: one palette that colour-blind eyes can tell apart, light type, no frames.

`svg` makes a figure that takes its text colours from the page around it, so that one figure serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's colours, in an order whose first pairs differ in lightness too.
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
CHOSEN, REJECTED = BLUE, VERMILION
BEFORE, AFTER = "#9aa5b1", BLUE
INK, MUTED, LINE = "#1f2933", "#66727f", "#dde2e7"
PAPER = "#ffffff"
DPI = 144  # sharp at the size MLflow's page shows
WIDTH_IN = 6.4

_PAGE_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)"}


def blank(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH_IN, height: float = 3.2
) -> tuple[Figure, list[Axes]]:
    """A figure of styled axes, row by row. Sizes in inches. No pyplot: nothing global, safe in threads."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
    for axis in axes:
        restyle(axis)
    return figure, axes


def restyle(axis: Axes) -> None:
    axis.set_prop_cycle(color=list(PALETTE))
    axis.tick_params(colors=MUTED, labelsize=8.5, length=0, pad=4)
    axis.grid(True, color=LINE, linewidth=0.7)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    axis.xaxis.label.set(color=MUTED, fontsize=9)
    axis.yaxis.label.set(color=MUTED, fontsize=9)
    axis.title.set(color=INK, fontsize=10)
    axis.set_facecolor("none")


def legend(axis: Axes, *, columns: int = 1, where: str = "best") -> None:
    """A legend where there are at least two things to tell apart."""
    handles, labels = axis.get_legend_handles_labels()
    if len(handles) > 1:
        axis.legend(handles, labels, frameon=False, fontsize=8.5, labelcolor=INK, ncols=columns, loc=where)


def picture_axes(axis: Axes, edge: str = LINE, width: float = 0.8) -> None:
    """Turn an axis into the frame of a picture."""
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=edge, linewidth=width)


def save_png(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, facecolor=PAPER, format="png")


def svg(figure: Figure, label: str, *, name: str) -> str:
    """The figure as an inline <svg> for a page that defines --ink, --muted, --line and --paper.

    label: read out by screen readers. name: unique on the page; it keeps the ids inside the drawing apart.
    """
    import matplotlib as mpl

    FigureCanvasSVG(figure)
    target = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = target.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.S)
    drawing = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", drawing)
    for fixed, variable in _PAGE_COLOURS.items():
        drawing = drawing.replace(fixed, variable)
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', drawing)
    drawing = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", drawing, count=1)
    return re.sub(r"(<svg [^>]*?)height=\"[^\"]*\"", r"\1", drawing, count=1).replace(
        "<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1
    )


def cycle(count: int) -> Sequence[str]:
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
