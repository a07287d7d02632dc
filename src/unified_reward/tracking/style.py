"""How all figures look: one palette that colour-blind eyes can tell apart, light type, no frames.

`svg` makes a figure that takes its colours from the page around it, so that one figure serves light and dark.
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
GROUPS = (CHOSEN, REJECTED, GREEN, PURPLE, ORANGE, SKY)
BEFORE = "#9aa5b1"
INK, MUTED, LINE = "#1f2933", "#66727f", "#dde2e7"
PAPER = "#ffffff"
DPI = 144  # sharp at the size MLflow's page shows
WIDTH_IN, HEIGHT_IN = 5.2, 3.1
PAGE_REM_PER_IN = 6.0  # drawn on a page, text has the size of the page's small text

_PAGE_COLOURS = {
    INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)",
    BLUE: "var(--blue)", VERMILION: "var(--red)", BEFORE: "var(--grey)",
}  # fmt: skip


def blank(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH_IN, height: float = HEIGHT_IN
) -> tuple[Figure, list[Axes]]:
    """A figure of styled axes, row by row. Sizes in inches. No pyplot: nothing global, safe in threads."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
    for axis in axes:
        restyle(axis)
    return figure, axes


def restyle(axis: Axes) -> None:
    axis.set_prop_cycle(color=list(PALETTE))
    axis.tick_params(colors=MUTED, labelsize=9, length=0, pad=4)
    axis.grid(True, color=LINE, linewidth=0.7)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    axis.xaxis.label.set(color=MUTED, fontsize=9.5)
    axis.yaxis.label.set(color=MUTED, fontsize=9.5)
    axis.title.set(color=INK, fontsize=10)
    axis.set_facecolor("none")


def legend(axis: Axes, *, columns: int = 1, where: str = "best") -> None:
    """A legend where there are at least two things to tell apart."""
    handles, labels = axis.get_legend_handles_labels()
    if len(handles) > 1:
        axis.legend(handles, labels, frameon=False, fontsize=9, labelcolor=INK, ncols=columns, loc=where)


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
    """The figure as an inline <svg> for a page that defines --ink, --muted, --line, --paper, --blue, --red and --grey.

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
    drawing = re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", drawing)
    drawing = re.sub(r'^(<svg [^>]*?)height="[^"]*"', r"\1", drawing)
    width = f"max-width:{figure.get_figwidth() * PAGE_REM_PER_IN:.1f}rem"
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" style="{width}" ', 1)


def cycle(count: int, colours: Sequence[str] = PALETTE) -> Sequence[str]:
    return [colours[index % len(colours)] for index in range(count)]


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
