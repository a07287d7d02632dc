"""Verdicts on pairs, joined with people's labels: answers in words, scores of the two items, or both.

A verdict row may bring its label with it (as the scripts of UnifiedReward and VideoAlign write), or the benchmark's own data
stand beside it and are joined by id, by the paths of the two items, or, when both have as many rows, by place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.fields import (
    IDS,
    TEXTS,
    first_of,
    item_id,
    number_of,
    opened,
    swapped,
    texts,
    value_of,
)
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.sides import Side, read_answer, read_label

LABELS = ("Overall", "overall", "human_vote", "vote_type", "human_preference", "preference", "label", "gold", "chosen",
          "human_label", "ground_truth", "gt")  # fmt: skip
SHOWN_LABEL = "answer"  # as UnifiedReward's scripts write it: the sentence that is right in the order shown
# {0} is an aspect, or "Overall"; a name without it is of the overall score.
SCORES = (("reward_{0}_A", "reward_{0}_B"), ("score_{0}_A", "score_{0}_B"), ("{0}_score_A", "{0}_score_B"),
          ("reward_A", "reward_B"), ("reward_1", "reward_2"), ("reward1", "reward2"), ("score_A", "score_B"),
          ("score_a", "score_b"), ("score_1", "score_2"), ("score1", "score2"), ("score_left", "score_right"),
          ("left_score", "right_score"), ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))  # fmt: skip
SINGLE = "path"
SCORE_LISTS = ("rewards", "scores", "reward", "score")
PATHS = (("path_A", "path_B"), ("path1", "path2"), ("path_1", "path_2"), ("video_left", "video_right"),
         ("left_video", "right_video"), ("left_image", "right_image"), ("image_1", "image_2"), ("video_1", "video_2"))  # fmt: skip
TELLS_APART = ("problem", "prompt", "query", "question")
OVERALL = "Overall"


@dataclass(frozen=True)
class PairLayout:
    """What a pair benchmark's rows are called. aspects: further labels of each pair. groups: fields whose values group pairs.

    size: pairs of the published set, None where it is not known; rounded: to the nearest hundred. first_is_better: the data
    have the better item first, and no label.
    """

    size: int | None
    rounded: bool = False
    aspects: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    first_is_better: bool = False


@dataclass(frozen=True)
class Vote:
    """side: which item of the data, None where the text does not settle on one. swapped: shown in reverse."""

    text: str
    side: Side | None
    swapped: bool


@dataclass
class JudgedPair:
    """difference: score of the first minus score of the second, by aspect; nan where one is missing."""

    place: str
    gold: Side
    votes: list[Vote] = field(default_factory=list)
    difference: dict[str, float] = field(default_factory=dict)
    aspects: dict[str, Side] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    order_given: bool = False


@dataclass(frozen=True)
class PairsRead:
    """pairs: each judged pair once. known: how many labelled pairs the data have, None without data. unlabelled: rows whose
    label is empty, left out."""

    pairs: list[JudgedPair]
    known: int | None
    unlabelled: int


def read_pairs(layout: PairLayout, verdicts: Path, data: Path | None) -> PairsRead:
    rows = [opened(row) for row in read_rows(verdicts, "--verdicts")]
    known = read_rows(data, "--data") if data else None
    if known and _of_single_items(rows):
        rows = _paired(verdicts, layout, rows, known)
    joined = _Join(data, known, rows) if data and known is not None else None
    pairs: dict[object, JudgedPair] = {}
    unlabelled = 0
    for number, row in enumerate(rows):
        of_data = joined.row(verdicts, number, row) if joined else None
        if _is_unlabelled(row if of_data is None else of_data):
            unlabelled += 1
            continue
        key = id(of_data) if of_data is not None else _own_key(number, row)
        if key not in pairs:
            pairs[key] = _labelled(layout, verdicts, row, data, of_data)
        is_labelled = of_data is not None or first_of(row, LABELS) is not None
        _add_verdict(layout, verdicts, row, pairs[key], (*TEXTS, SHOWN_LABEL) if is_labelled else TEXTS)
    if not pairs:
        _gold(layout, verdicts, rows[0], False)  # raises: none has a label
    labelled = None if known is None else sum(not _is_unlabelled(row) for row in known)
    return PairsRead(list(pairs.values()), labelled, unlabelled)


def _is_unlabelled(row: Row) -> bool:
    """Whether there is a field for the label and it is empty, as in some rows of VideoGen-RewardBench."""
    name = first_of(row, LABELS)
    return name is not None and row.values[name] in (None, "") and not isinstance(row.values.get(SHOWN_LABEL), str)


def _of_single_items(rows: Sequence[Row]) -> bool:
    """Scores of one item a row, as VideoAlign's out_single.csv has them."""
    return all(row.values.get(SINGLE) is not None and _paths(row) is None for row in rows)


def _paired(path: Path, layout: PairLayout, rows: Sequence[Row], known: Sequence[Row]) -> list[Row]:
    """The pairs of the data with the scores of their two items; a pair with neither item scored is left out."""
    scored = {str(row.values[SINGLE]): row for row in rows}
    pairs: list[Row] = []
    for row in known:
        items = [scored.get(name) for name in _paths(row) or ()]
        if any(items):
            place = next(one.place for one in items if one)
            pairs.append(Row(place, row.values | _both_scores(layout, items)))
    if not pairs:
        raise rows[0].error(
            path, f"its {SINGLE} is in no pair of the data", "Name the pairs of these items with --data."
        )
    return pairs


def _both_scores(layout: PairLayout, items: Sequence[Row | None]) -> dict[str, Any]:
    return {f"reward_{aspect}_{letter}": item.values.get(f"reward_{aspect}") if item else None
            for aspect in (OVERALL, *layout.aspects) for letter, item in zip("AB", items, strict=True)
            if any(one and f"reward_{aspect}" in one.values for one in items)}  # fmt: skip


def _own_key(number: int, row: Row) -> object:
    """Rows of one id are samples of one item, if they ask the same; UnifiedReward's numbers start again with each batch."""
    if item_id(row) is None:
        return number
    paths = [row.values.get(name) for names in PATHS for name in names]
    return str([item_id(row), *paths, *(row.values.get(name) for name in TELLS_APART)])


class _Join:
    """Verdict row -> row of the data."""

    def __init__(self, path: Path, known: Sequence[Row], rows: Sequence[Row]) -> None:
        self.path, self.known = path, known
        self.by_place = len(known) == len(rows)
        self.ids = _unique({item_id(row): row for row in known}, len(known))
        self.paths = _unique({_paths(row): row for row in known}, len(known))

    def row(self, path: Path, number: int, row: Row) -> Row:
        name, paths = item_id(row), _paths(row)
        if name is not None and self.ids is not None:
            found = self.ids.get(name)
        elif paths is not None and self.paths is not None:
            found = self.paths.get(paths)
        elif name is not None and name.isdecimal() and first_of(row, IDS) in ("idx", "index"):
            found = self.known[int(name)] if int(name) < len(self.known) else None
        else:
            found = self.known[number] if self.by_place else None
        if found is None:
            raise row.error(path, f"no row of {self.path} is this item",
                            "Give each verdict the id of its item, or one verdict for each row of the data.")  # fmt: skip
        return found


def _unique(found: Mapping[Any, Row], count: int) -> Mapping[Any, Row] | None:
    """None where the key does not tell the rows apart."""
    return found if len(found) == count and None not in found else None


def _paths(row: Row) -> tuple[str, str] | None:
    for names in PATHS:
        if all(row.values.get(name) is not None for name in names):
            return str(row.values[names[0]]), str(row.values[names[1]])
    return None


def _labelled(layout: PairLayout, path: Path, row: Row, data: Path | None, of_data: Row | None) -> JudgedPair:
    source, source_path = (row, path) if of_data is None or data is None else (of_data, data)
    groups = {name: str(source.values[name]) for name in layout.groups if source.values.get(name) not in (None, "")}
    aspects = {name: side for name in layout.aspects if (side := read_label(source.values.get(name))) is not None}
    return JudgedPair(row.place, _gold(layout, source_path, source, row is source), groups=groups, aspects=aspects)


def _gold(layout: PairLayout, path: Path, row: Row, is_verdict: bool) -> Side:
    name = first_of(row, LABELS)
    if name is None and isinstance(row.values.get(SHOWN_LABEL), str):
        shown = read_label(row.values[SHOWN_LABEL])
        if shown is not None:
            return shown.swapped() if is_verdict and swapped(path, row) else shown
        name = SHOWN_LABEL
    if name is None:
        if layout.first_is_better and _paths(row) is not None:
            return Side.FIRST
        raise row.error(path, f"no field says which is better{' (path1, path2)' * layout.first_is_better}",
                        "Write it as one of " + ", ".join(LABELS[:6]) + ", or name the benchmark's data with --data.")  # fmt: skip
    side = read_label(row.values[name])
    if side is None:
        raise row.error(
            path, f"{name} is {row.values[name]!r}", "It must be A, B or same; left, right or tie; or 1, 2 or tie."
        )
    return side


def _add_verdict(layout: PairLayout, path: Path, row: Row, pair: JudgedPair, names: Sequence[str]) -> None:
    scores = {name: found for name in (OVERALL, *layout.aspects) if (found := difference(path, row, name)) is not None}
    said = texts(path, row, names)
    if said is None and not scores:
        if row.values.get("error") is None and row.values.get("success") is not False:
            raise row.error(path, "it has neither an answer nor scores",
                            'Write the judge\'s answer as "output", or the two scores as "score_A" and "score_B".')  # fmt: skip
        said = [""]  # a request that failed, as UnifiedReward's client writes it
    order = swapped(path, row)
    pair.order_given = pair.order_given or order is not None
    for text in said or []:
        side = read_answer(text)
        pair.votes.append(Vote(text, side.swapped() if side and order else side, bool(order)))
    pair.difference |= scores


def difference(path: Path, row: Row, aspect: str = OVERALL) -> float | None:
    """Score of the first minus score of the second, nan where one is missing; None where the row has no scores."""
    names = _score_names(row, aspect)
    if names is not None:
        scores = [number_of(path, row, name, row.values.get(name)) for name in names]
        return scores[0] - scores[1]
    if aspect != OVERALL:
        return None
    both = value_of(row, SCORE_LISTS)
    if isinstance(both, list) and len(both) == 2:
        first_score, second_score = (number_of(path, row, "scores", one) for one in both)
        return first_score - second_score
    return number_of(path, row, "p_first", row.values["p_first"]) - 0.5 if "p_first" in row.values else None


def _score_names(row: Row, aspect: str) -> tuple[str, str] | None:
    """The first two names that have a score, else the first that are there, empty."""
    known = [names for names in SCORES if aspect == OVERALL or "{0}" in names[0]]
    named = [(first.format(aspect), second.format(aspect)) for first, second in known]
    had = [names for names in named if any(name in row.values for name in names)]
    full = [names for names in had if any(row.values.get(name) is not None for name in names)]
    return next(iter([*full, *had]), None)


def side_of(difference: float, epsilon: float) -> Side | None:
    """What scores say: tie where they differ by at most epsilon; None where one is missing."""
    if math.isnan(difference):
        return None
    return Side.TIE if abs(difference) <= epsilon else Side.FIRST if difference > 0 else Side.SECOND
