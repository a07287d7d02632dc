"""Figures show the numbers they were given, whatever these are."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from unified_reward.tracking import figures, style


def picture(value: int = 0) -> figures.Picture:
    return np.full((8, 8, 3), value, dtype=np.uint8)


def test_a_noisy_curve_keeps_its_points_and_gets_their_running_mean() -> None:
    values = np.sin(np.arange(100))
    axis = figures.curves({"loss": list(enumerate(values))}, y_label="loss").axes[0]
    raw, smooth = axis.get_lines()
    np.testing.assert_allclose(raw.get_ydata(), values)
    reach = 100 // 25
    expected = [values[max(0, i - reach) : i + reach + 1].mean() for i in range(100)]
    np.testing.assert_allclose(smooth.get_ydata(), expected, atol=1e-12)


def test_a_short_curve_is_drawn_as_it_is() -> None:
    axis = figures.curves({"a": [(0, 1.0), (5, 2.0)], "b": [(0, 3.0)]}, y_label="x").axes[0]
    assert [list(line.get_ydata()) for line in axis.get_lines()] == [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    "groups",
    [{"chosen": [1.0, 2.0], "rejected": [0.5]}, {"chosen": [3.0], "rejected": []}, {"chosen": [], "rejected": []}],
    ids=["two", "one empty", "both empty"],
)
def test_a_histogram_shows_shares_and_says_how_many_there_are(groups: dict[str, list[float]]) -> None:
    figure = figures.histogram(groups, x_label="score")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [f"{name} ({len(values)})" for name, values in groups.items()]
    outlines = [patch.get_xy()[:, 1] for patch in figure.axes[0].patches]
    tops = [outline.max() for outline in outlines[::2]]
    assert tops == [pytest.approx(1 / len(values)) if values else 0 for values in groups.values()]


def test_reliability_leaves_out_empty_bins() -> None:
    bins = [
        figures.ConfidenceBin(3, 0.55, 0.4),
        figures.ConfidenceBin(0, 0.0, 0.0),
        figures.ConfidenceBin(9, 0.95, 1.0),
    ]
    drawn = figures.reliability(bins).axes[0].get_lines()[1]
    assert list(drawn.get_xdata()) == [0.55, 0.95]
    assert list(drawn.get_ydata()) == [0.4, 1.0]
    figures.reliability([])


def test_share_bars_print_their_values_from_the_top() -> None:
    shares = [figures.Share("color", 0.5, (0.4, 0.6), other=0.45), figures.Share("shape", 0.987)]
    axis = figures.share_bars(shares, chance=0.5).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["color", "shape"]
    assert [text.get_text() for text in axis.texts] == ["50.0", "98.7"]


def test_every_prompt_gets_its_two_pictures() -> None:
    pairs = [figures.PicturePair(f"price $1 and $2, {i}", picture(i), picture(100 + i), 4.0, 1.0) for i in range(5)]
    figure = figures.picture_pairs(pairs, columns=2)
    shown = [int(axis.get_images()[0].get_array()[0, 0, 0]) for axis in figure.axes if axis.get_images()]
    assert shown == [0, 100, 1, 101, 2, 102, 3, 103, 4, 104]


def test_before_stands_left_of_after() -> None:
    rows = [
        figures.BeforeAfter("a", [picture(1), picture(2)], [picture(3)]),
        figures.BeforeAfter("b", [picture(4)], []),
    ]
    axes = figures.before_after(rows).axes
    shown = [int(axis.get_images()[0].get_array()[0, 0, 0]) if axis.get_images() else None for axis in axes]
    assert shown == [1, 2, None, 3, 4, None, None, None]


def test_spreads_show_every_seed() -> None:
    axis = figures.spreads([figures.Spread("pair", [0.1, 0.2]), figures.Spread("random", [])], x_label="gain").axes[0]
    assert [len(dots.get_offsets()) for dots in axis.collections] == [2, 0]


def test_a_drawing_is_well_formed_takes_the_pages_colours_and_escapes_its_label() -> None:
    figure = figures.curves({"<a&b>": [(0, 1.0), (1, 2.0)], "c": [(0, 1.0)]}, y_label="y")
    first, second = style.svg(figure, 'a "quote" & <b>', name="one"), style.svg(figure, "x", name="two")
    roots = [ElementTree.fromstring(drawing) for drawing in (first, second)]
    assert roots[0].get("aria-label") == 'a "quote" & <b>'
    assert "var(--blue)" in first
    assert style.INK not in first
    ids = [{element.get("id") for element in root.iter()} - {None} for root in roots]
    assert ids[0]
    assert not ids[0] & ids[1]
    for root, own in zip(roots, ids, strict=True):
        links = {value[1:] for element in root.iter() for key, value in element.items() if key.endswith("href")}
        assert links <= own


def test_a_png_is_written(tmp_path: Path) -> None:
    style.save_png(figures.curves({"a": [(0, 1.0)]}, y_label="y"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
