"""The figures of a run. Each function takes plain numbers or pictures and returns a matplotlib Figure.

Pictures are uint8 arrays [H, W, 3]. Shares and probabilities are in 0..1.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from unified_reward.tracking import style

Picture = NDArray[np.uint8]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Share:
    """A share and its interval. other: a second share of the same cases, drawn as a dot."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    other: float | None = None


@dataclass(frozen=True)
class ConfidenceBin:
    """Verdicts of about one confidence: how many, their mean confidence, and the share of them that is right."""

    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class PicturePair:
    """A prompt with the picture that was chosen and the one that was rejected, and their scores."""

    prompt: str
    chosen: Picture
    rejected: Picture
    chosen_score: float | None = None
    rejected_score: float | None = None


@dataclass(frozen=True)
class BeforeAfter:
    """What a policy drew for one prompt before and after, and which drawings show all that was asked."""

    prompt: str
    before: Sequence[Picture]
    after: Sequence[Picture]
    before_right: Sequence[bool] = ()
    after_right: Sequence[bool] = ()


@dataclass(frozen=True)
class Spread:
    """Repeats of one measurement: one value a seed."""

    label: str
    values: Sequence[float]


def curves(series: Mapping[str, Points], *, y_label: str, x_label: str = "step", share: bool = False) -> Figure:
    """Lines over steps. Long noisy ones (over 60 points) are drawn faint with their running mean on top."""
    figure, (axis,) = style.blank()
    for colour, (label, points) in zip(style.cycle(len(series)), series.items(), strict=True):
        steps, values = [x for x, _ in points], np.array([y for _, y in points], dtype=float)
        noisy = len(values) > 60
        axis.plot(steps, values, color=colour, linewidth=0.8 if noisy else 1.8, alpha=0.3 if noisy else 1.0,
                  label=None if noisy else label, marker="o" if len(values) < 12 else None, markersize=4)  # fmt: skip
        if noisy:
            axis.plot(steps, _running_mean(values, len(values) // 25), color=colour, linewidth=1.8, label=label)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if share:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    style.legend(axis)
    return figure


def histogram(groups: Mapping[str, Sequence[float]], *, x_label: str, bins: int = 24) -> Figure:
    """Which share of each group falls in common bins, as outlines that do not hide each other; dashed lines at the means.

    The first group is drawn as chosen, the second as rejected.
    """
    figure, (axis,) = style.blank()
    everything = np.concatenate([np.asarray(values, dtype=float) for values in groups.values()])
    low, high = (float(everything.min()), float(everything.max())) if everything.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1).tolist()
    for colour, (label, values) in zip(style.cycle(len(groups), style.GROUPS), groups.items(), strict=True):
        each = np.full(len(values), 1 / max(1, len(values)))
        axis.hist(values, bins=edges, weights=each, histtype="stepfilled", color=colour, alpha=0.25)
        axis.hist(
            values,
            bins=edges,
            weights=each,
            histtype="step",
            color=colour,
            linewidth=1.5,
            label=f"{label} ({len(values)})",
        )
        if len(values):
            axis.axvline(float(np.mean(values)), color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
    axis.set_xlabel(x_label)
    axis.set_ylabel("share of the group")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(False, axis="x")
    style.legend(axis)
    return figure


def reliability(bins: Sequence[ConfidenceBin]) -> Figure:
    """How often verdicts of a given confidence are right; the larger the dot, the more there are."""
    figure, (axis,) = style.blank(width=4.4)
    filled = [each for each in bins if each.count]
    means, rates = [each.confidence for each in filled], [each.right for each in filled]
    low = min([0.5, *means])
    largest = max((each.count for each in filled), default=1)
    axis.plot([low, 1], [low, 1], color=style.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axis.plot(means, rates, color=style.BLUE, linewidth=1.4)
    sizes = [20 + 220 * each.count / largest for each in filled]
    axis.scatter(means, rates, s=sizes, color=style.BLUE, alpha=0.75, linewidth=0, zorder=3)
    axis.set_xlim(low - 0.02, 1.03)
    axis.set_ylim(min([low, *rates]) - 0.05, 1.05)
    axis.set_xlabel("confidence of the verdict")
    axis.set_ylabel("share that is right")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def share_bars(
    shares: Sequence[Share], *, other_label: str = "", value_label: str = "", chance: float | None = None
) -> Figure:
    """Horizontal bars with their intervals; a dot for the other share; a dashed line where guessing would stand."""
    figure, (axis,) = style.blank(height=0.55 + 0.34 * max(2, len(shares)))
    places = np.arange(len(shares))[::-1]
    values = [share.value for share in shares]
    bounds = [share.interval or (share.value, share.value) for share in shares]
    errors = np.array([[v - low, high - v] for v, (low, high) in zip(values, bounds, strict=True)]).T
    axis.barh(places, values, height=0.56, color=style.BLUE, label=value_label or None)
    axis.errorbar(values, places, xerr=errors.clip(min=0), fmt="none", ecolor=style.INK, elinewidth=1, alpha=0.6)
    others = [(share.other, place) for share, place in zip(shares, places, strict=True) if share.other is not None]
    if others:
        axis.scatter([x for x, _ in others], [y for _, y in others], color=style.ORANGE, s=26, zorder=4,
                     label=other_label or None)  # fmt: skip
    if chance is not None:
        axis.axvline(chance, color=style.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    for share, place, (_, high) in zip(shares, places, bounds, strict=True):
        axis.text(max(high, share.value, share.other or 0.0) + 0.012, place, f"{100 * share.value:.1f}",
                  va="center", fontsize=9, color=style.INK)  # fmt: skip
    axis.set_yticks(places, [share.label for share in shares], color=style.INK)
    axis.set_xlim(0, 1.08)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(False, axis="y")
    if others and other_label:
        axis.legend(frameon=False, fontsize=9, labelcolor=style.INK, ncols=2, loc="lower left",
                    bbox_to_anchor=(0, 1.0), borderaxespad=0.2)  # fmt: skip
    return figure


def spreads(rows: Sequence[Spread], *, x_label: str, base: float | None = None) -> Figure:
    """Every repeat as a dot and the mean as a bar: few seeds are shown, not summed up. base: a line to compare with."""
    figure, (axis,) = style.blank(height=0.7 + 0.4 * max(2, len(rows)))
    places = np.arange(len(rows))[::-1]
    for row, place in zip(rows, places, strict=True):
        axis.scatter(row.values, [place] * len(row.values), s=22, color=style.BLUE, alpha=0.6, linewidth=0)
        if row.values:
            mean = float(np.mean(row.values))
            axis.plot([mean, mean], [place - 0.26, place + 0.26], color=style.INK, linewidth=1.8)
    if base is not None:
        axis.axvline(base, color=style.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axis.set_yticks(places, [row.label for row in rows], color=style.INK)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlabel(x_label)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def picture_pairs(pairs: Sequence[PicturePair], *, columns: int = 4) -> Figure:
    """Chosen beside rejected for each prompt, with the scores under them."""
    rows = max(1, math.ceil(len(pairs) / columns))
    figure, axes = style.blank(rows, columns * 2, width=1.15 * columns * 2, height=1.75 * rows)
    for axis in axes:
        axis.set_axis_off()
    for place, pair in enumerate(pairs):
        left, right = axes[2 * place], axes[2 * place + 1]
        _picture(left, pair.chosen, style.CHOSEN, _scored("chosen", pair.chosen_score))
        _picture(right, pair.rejected, style.REJECTED, _scored("rejected", pair.rejected_score))
        left.set_title(_wrapped(pair.prompt, 26), fontsize=7.5, color=style.INK, loc="left")
    return figure


def before_after(rows: Sequence[BeforeAfter]) -> Figure:
    """A row a prompt: drawings before on the left, after on the right; a blue frame where all that was asked is right."""
    before = max((len(row.before) for row in rows), default=1)
    after = max((len(row.after) for row in rows), default=1)
    columns = before + 1 + after
    figure, axes = style.blank(max(1, len(rows)), columns, width=0.95 * columns, height=1.25 * max(1, len(rows)))
    for axis in axes:
        axis.set_axis_off()
    for line, row in enumerate(rows):
        cells = axes[line * columns : (line + 1) * columns]
        _fill(cells[:before], row.before, row.before_right)
        _fill(cells[before + 1 :], row.after, row.after_right)
        cells[0].set_title(_wrapped(f"before: {row.prompt}", 34), fontsize=7.5, color=style.INK, loc="left")
        cells[before + 1].set_title("after", fontsize=7.5, color=style.INK, loc="left")
    return figure


def _fill(axes: Sequence[Axes], pictures: Sequence[Picture], right: Sequence[bool]) -> None:
    for place, picture in enumerate(pictures):
        good = bool(right[place]) if place < len(right) else False
        _picture(axes[place], picture, style.CHOSEN if good else style.LINE, "")


def _picture(axis: Axes, picture: Picture, edge: str, note: str) -> None:
    axis.set_axis_on()
    axis.imshow(picture, interpolation="nearest" if max(picture.shape[:2]) < 128 else "antialiased")
    style.picture_axes(axis, edge, 2.0)
    if note:
        axis.set_xlabel(note, fontsize=7.5, color=style.INK, labelpad=3)


def _scored(word: str, score: float | None) -> str:
    return word if score is None else f"{word} {score:.2f}"


def _wrapped(text: str, width: int) -> str:
    plain = text.replace("$", r"\$")  # matplotlib would read a pair of $ as a formula
    return "\n".join(textwrap.wrap(textwrap.shorten(plain, 2 * width, placeholder=" …"), width))


def _running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over `reach` points to both sides, fewer at the ends. [n] -> [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))
