"""GenAI-Bench (arXiv 2406.04485, v1 split): which of two generated images, edits or videos is better, by human votes.

A verdict file is what the benchmark's own inference writes: {"idx", "response", "human_vote", ...} per line, or the same
objects in one JSON array. The verdict is read from `response` again; `model_vote` stands in only where there is no `response`.

Answers under "model_output" or "output", without one [[label]] in the file, are sentences, as of UnifiedReward's scripts
({"idx", "answer", "model_output"}, where `answer` is the sentence that is right). Both kinds of tie are then met by "equally
good". A file of scores ("score_left", "score_right" and the like) is of a scalar scorer, whose ties are calibrated.
Votes that a file does not bring are taken from the benchmark's own data, when they are named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.fields import first_of, swapped, texts, value_of
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.metrics import (
    Report,
    Share,
    first_unread,
    share,
    tie_calibrated_accuracy,
    with_and_without_ties,
)
from unified_reward.evaluation.benchmarks.pairs_files import difference, side_of
from unified_reward.evaluation.benchmarks.sides import Side, read_answer
from unified_reward.evaluation.benchmarks.sides import read_label as read_side

# Items of the v1 split.
SIZES = {"genai-bench-image": 1735, "genai-bench-edit": 919, "genai-bench-video": 1069}
LEFT, RIGHT, TIE = "left", "right", "tie"
HUMAN = {"leftvote": LEFT, "rightvote": RIGHT, "tievote": TIE, "bothbad_vote": TIE}

# label -> (human votes that it meets, side in the 3-way count). The published scorer takes exactly these.
LABELS = {
    "[[A>B]]": ({"leftvote"}, LEFT),
    "[[A>>B]]": ({"leftvote"}, LEFT),
    "[[B>A]]": ({"rightvote"}, RIGHT),
    "[[B>>A]]": ({"rightvote"}, RIGHT),
    "[[A=B=Good]]": ({"tievote"}, TIE),
    "[[A=B=Bad]]": ({"bothbad_vote"}, TIE),
    "[[A=B]]": ({"tievote", "bothbad_vote"}, TIE),
}
# From the first [[ to the last ]] of the first line that has both: a line with two labels is thus no verdict, as published.
MARKED = re.compile(r"\[\[.*\]\]")
VOTES = ("human_vote", "vote_type")
OWN_TEXTS = ("response", "model_vote")
TEXTS = ("response", "model_output", "output", "model_vote")
SIGNS = {LEFT: 1, RIGHT: -1, TIE: 0}
SENTENCES = {Side.FIRST: "[[A>B]]", Side.SECOND: "[[B>A]]", Side.TIE: "[[A=B]]"}
RIGHT_SENTENCE = {Side.FIRST: "leftvote", Side.SECOND: "rightvote", Side.TIE: "tievote"}


class Way(StrEnum):
    """How the verdicts of a file are written."""

    LABELS = "labels"
    SENTENCES = "sentences"
    SCORES = "scores"


@dataclass(frozen=True)
class Said:
    """text: None where there are scores only. difference: score of the left minus that of the right, nan without.

    own_layout: as the benchmark's own inference writes it, where only its labels count.
    """

    human: str
    text: str | None
    swapped: bool
    difference: float
    own_layout: bool


@dataclass(frozen=True)
class Judged:
    human: str
    label: str | None

    @property
    def right(self) -> bool:
        return self.label is not None and self.human in LABELS[self.label][0]

    @property
    def side(self) -> str | None:
        return LABELS[self.label][1] if self.label else None


def read_label(response: str | None) -> str | None:
    """One of LABELS, as the published scorer finds it in a judge's answer; None where there is none."""
    found = MARKED.search(response or "")
    return found.group() if found and found.group() in LABELS else None


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    """4-way accuracy (unparsed is wrong), per human vote, and the 3-way tau and diff of the UnifiedReward paper."""
    rows = read_rows(verdicts, "--verdicts")
    if data is not None:
        rows = _with_votes(verdicts, rows, data)
    last = {_index(verdicts, row, place): row for place, row in enumerate(rows)}  # the published reader keeps the last
    said = [_said(verdicts, row) for row in last.values()]
    way = _way(said)
    scalar = tie_calibrated_accuracy([one.difference for one in said], [SIGNS[HUMAN[one.human]] for one in said])
    judged = [Judged(one.human, _label(one, way, scalar.epsilon or 0.0)) for one in said]
    groups = {vote: _share([one for one in judged if one.human == vote]) for vote in HUMAN}
    tau, diff = with_and_without_ties([HUMAN[one.human] for one in judged], [one.side for one in judged], TIE)
    missing, repeated = max(0, SIZES[benchmark] - len(last)), len(rows) - len(last)
    metrics: dict[str, Any] = {"tau": tau, "diff": diff, "missing": missing, "repeated": repeated}
    unread = zip(last.values(), said, judged, strict=True)
    metrics["unread"] = first_unread((row.place, one.text or "") for row, one, found in unread if found.label is None)
    if scalar.unparsed < scalar.n:
        calibrated = asdict(scalar)
        metrics["scores"] = {"with_ties": calibrated.pop("accuracy"), **calibrated}
    return Report(benchmark, _share(judged), groups, metrics, _notes(benchmark, len(last), repeated, way))


def _share(judged: Sequence[Judged]) -> Share:
    return share([one.right for one in judged], [one.label is not None for one in judged])


def _way(said: Sequence[Said]) -> Way:
    if all(one.text is None for one in said):
        return Way.SCORES
    if all(one.own_layout for one in said):
        return Way.LABELS
    return Way.LABELS if any(MARKED.search(one.text or "") for one in said) else Way.SENTENCES


def _label(one: Said, way: Way, epsilon: float) -> str | None:
    if way is Way.LABELS:
        return read_label(one.text)
    if way is Way.SCORES:
        side = side_of(one.difference, epsilon)
    else:
        side = read_answer(one.text or "")
        side = side.swapped() if side and one.swapped else side
    return None if side is None else SENTENCES[side]


def _notes(benchmark: str, count: int, repeated: int, way: Way) -> list[str]:
    size, notes = SIZES[benchmark], []
    if count != size:
        notes.append(f"{count:,} items; the published rows are of {size:,}, so the numbers do not compare.")
    if repeated:
        notes.append(f"{repeated:,} rows have an idx that comes again later; the last one counts.")
    if way is not Way.LABELS:
        notes.append(f"Answers are {way}; one tie meets both kinds of people's ties, so accuracy is 3-way (tau).")
    if way is Way.SCORES:
        notes.append("The scores' tie threshold is the best for these votes, as published for scalar scorers.")
    return notes


def _with_votes(path: Path, rows: Sequence[Row], data: Path) -> list[Row]:
    """Rows that bring no vote take that of the data, by id, else by place (`idx`, else their own where all are judged)."""
    known = read_rows(data, "--data")
    places = {str(row.values["id"]): place for place, row in enumerate(known) if "id" in row.values}
    places = places if len(places) == len(known) else {}
    return [row if _has_vote(row) else _voted(path, row, place if len(rows) == len(known) else None, known, places, data)
            for place, row in enumerate(rows)]  # fmt: skip


def _has_vote(row: Row) -> bool:
    return value_of(row, VOTES) is not None or read_side(row.values.get("answer")) is not None


def _voted(path: Path, row: Row, own: int | None, known: Sequence[Row], places: Mapping[str, int], data: Path) -> Row:
    index = str(row.values.get("idx", own))
    place = places.get(str(row.values["id"])) if places and "id" in row.values else None
    if place is None and index.isdecimal() and int(index) < len(known):
        place = int(index)
    if place is None:
        raise row.error(
            path, f"no row of {data} is this item", 'Write its id, or its place in the data as "idx", from 0 on.'
        )
    return Row(row.place, {**row.values, "idx": place, "human_vote": _human(data, known[place], False)})


def _index(path: Path, row: Row, place: int) -> int | str:
    if "human_vote" not in row.values and "problem" in row.values:
        return place  # UnifiedReward's numbers start again with each batch
    index = row.values.get("idx", place)
    if isinstance(index, bool) or not isinstance(index, int | str):
        raise row.error(
            path, "idx must be the number of the item", "Write the item's number from 0 on, as in the benchmark."
        )
    return index


def _said(path: Path, row: Row) -> Said:
    scores = difference(path, row)
    if first_of(row, TEXTS) is None and scores is None and row.values.get("success") is not False:
        raise row.error(path, "it has no response", 'Write the judge\'s answer as "response".')
    responses = texts(path, row, TEXTS) or [""]
    if len(responses) > 1 or isinstance(value_of(row, TEXTS), int | float):
        raise row.error(path, "response is no text", "Write one answer a row, as text, or null where there is none.")
    is_swapped = bool(swapped(path, row))
    text = None if first_of(row, TEXTS) is None and scores is not None else responses[0]
    return Said(_human(path, row, is_swapped), text, is_swapped, math.nan if scores is None else scores,
                first_of(row, TEXTS) in OWN_TEXTS)  # fmt: skip


def _human(path: Path, row: Row, is_swapped: bool) -> str:
    vote = value_of(row, VOTES)
    if vote is None and (right := read_side(row.values.get("answer"))) is not None:
        return RIGHT_SENTENCE[right.swapped() if is_swapped else right]
    if isinstance(vote, str):
        for word, name in (("left", "leftvote"), ("right", "rightvote"), ("tie", "tievote"), ("both", "bothbad_vote")):
            if word in vote.lower():
                return name
    why = "it has no human_vote" if vote is None else f"{first_of(row, VOTES)} is {vote!r}"
    raise row.error(path, why, f"It must be one of {', '.join(HUMAN)}; or name the benchmark's own data with --data.")
