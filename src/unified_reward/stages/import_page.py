"""What MLflow shows of an imported data set: its card, the lists of what was left out, and histograms on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unified_reward.data.card import Card, media_facts
from unified_reward.records import Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unified_reward.tracking import StageRun

VERDICTS = {Choice.FIRST: "first", Choice.SECOND: "second", Choice.TIE: "tie"}
SHOWN_ROWS = 1000  # of rejects in MLflow's table; the artifact in the store has all
STYLE = (
    ":root{--ink:#1f2933;--muted:#66727f;--line:#dde2e7;--paper:#fff;--blue:#0072b2;--red:#d55e00;--grey:#9aa5b1}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.25rem .8rem .25rem 0;text-align:left;"
    "border-bottom:1px solid var(--line)}figure{margin:1rem 0}figcaption{color:var(--muted)}svg{width:100%}"
)


def show(
    track: StageRun, card: Card, text: str, left_out: Sequence[Mapping[str, Any]], *, figures: bool = True
) -> None:
    """Log the card as DATASET_CARD.md, what was left out as a table, and dataset.html, with histograms unless told not to."""
    track.text("DATASET_CARD.md", text)
    track.table("rejects", left_out[:SHOWN_ROWS])
    track.table("sources", list(card.sources))
    drawn = histograms(card) if figures else {}
    for name, (_, figure) in drawn.items():
        track.figure(f"dataset-{name}", figure)
    track.html("dataset", page(card, drawn))


def histograms(card: Card) -> dict[str, tuple[str, Figure]]:
    """name -> (caption, figure): labels, scores, and sizes of media, each where there is something to show."""
    from unified_reward.tracking import figures

    found: dict[str, tuple[str, Figure]] = {}
    if card.choices:
        shares = [
            figures.Share(f"{task}: {VERDICTS[Choice(choice)]}", count / sum(choices.values()))
            for task, choices in card.choices.items() for choice, count in sorted(choices.items())
        ]  # fmt: skip
        found["labels"] = ("Share of each verdict in the pairs of a task, in percent", figures.share_bars(shares))
    for number, (name, values) in enumerate(sorted(card.scores.items())):
        low, high = card.ranges[name]
        groups = {name: [low + value * (high - low) for value in values]}
        found[f"scores-{number + 1}"] = (f"Scores of {name}", figures.histogram(groups, x_label=f"{low:g} to {high:g}"))
    sides = {"width": [a.width for a in card.media.about], "height": [a.height for a in card.media.about]}
    if card.media.about:
        found["sizes"] = ("Sides of the media as published", figures.histogram(sides, x_label="pixels"))
    clips = [about.frames for about in card.media.about if about.frames > 1]
    if clips:
        found["frames"] = ("Frames of the clips as published", figures.histogram({"frames": clips}, x_label="frames"))
    return found


def page(card: Card, figures: Mapping[str, tuple[str, Figure]]) -> str:
    """dataset.html: the card and its histograms on one page, every text from data escaped."""
    from unified_reward.tracking.markup import Column, drawing, join, table, tag

    tasks = sorted({task for counts in card.counts.values() for task in counts})
    splits = sorted(card.counts)
    columns = ("file", "format", "licence", "strategy", "rows", "records", "rejects", "repeats")
    body = join([
        tag("h1", "Data set"),
        tag("h2", "Sources"), table([Column(c) for c in columns], [[s[c] for c in columns] for s in card.sources]),
        tag("h2", "Records"),
        table([Column(c) for c in ("task", *splits)], [[t, *(card.counts[s].get(t, 0) for s in splits)] for t in tasks]),
        tag("h2", "Left out"),
        table([Column("reason"), Column("records")], [*card.rejects.items(), ("the same record again", card.repeats)]),
        tag("h2", "Media"),
        table([Column("what"), Column("values")], [(name, _words(v)) for name, v in media_facts(card.media).items()]),
        tag("h2", "Distributions"),
        *(drawing(figure, caption, name=name) for name, (caption, figure) in figures.items()),
    ])  # fmt: skip
    return f'<!doctype html><meta charset="utf-8"><title>Data set</title><style>{STYLE}</style>{body}'


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each:g}" for name, each in value.items()) or "none"
    return f"{value:,}"
