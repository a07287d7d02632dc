"""Verdicts on VL-RewardBench, joined with its pairs: which place the better response was shown at, and what the judge said.

Six layouts. The benchmark's own results bring the pair with each sample: {"id", "query", "response", "ranking", "meta":
{"filter_choice": text, "random_number": 0 | 1}}, K lines per item. The short one, {"id", "output" | "outputs", "order",
"index"}, and that of a scalar scorer, {"id", "scores": [of the first response, of the second]}, need the benchmark's data
beside them. {"id", "answer", "output"} brings the right sentence with it. Rows of the data with "output" and "order" added,
and the sample logs of lmms-eval ({"doc", "filtered_resps"}), bring their pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.fields import TEXTS, first_of, swapped, text_field, texts, value_of
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.pairs_files import difference, side_of
from unified_reward.evaluation.benchmarks.sides import Side, read_label

TEXT_FIELDS = (*(name for name in TEXTS if name not in ("response", "winner")), "answer")
LAYOUT = 'Write {"id", "output" or "outputs", "order"} a line, or the results of the benchmark\'s own inference.'
SCORED = {Side.FIRST: "Overall Judgment: Answer 1 is better", Side.SECOND: "Overall Judgment: Answer 2 is better"}
RANKINGS = ("human_ranking", "ranking")
PLACES = ("index", "idx")
ORDERS = (0, 1)  # response[0] first, response[1] first


@dataclass(frozen=True)
class Vote:
    """better: 1 or 2, the place at which the better response was shown."""

    text: str
    swapped: bool
    better: int
    order_assumed: bool = False


@dataclass
class JudgedPair:
    id: str
    votes: list[Vote] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    id: str
    best: int  # index of the better response


def read_pairs(verdicts: Path, data: Path | None, shown_swapped: Callable[[int], list[bool]]) -> list[JudgedPair]:
    """Each judged pair once, with its votes in the file's order. shown_swapped: which items to take as swapped, of n."""
    rows = [inner for row in read_rows(verdicts, "--verdicts") if (inner := _unwrapped(row)) is not None]
    if not rows:
        raise UserError(
            field="--verdicts", value=verdicts, why="every sample in it is null", fix="Write the file again."
        )
    first = rows[0].values
    if "meta" in first:
        return _from_results(verdicts, rows)
    if data is None and any(name in first for name in RANKINGS):
        return _with_own_pairs(verdicts, rows, shown_swapped)
    if data is None and "answer" in first:
        return _from_answers(verdicts, rows)
    if data is None:
        raise rows[0].error(verdicts, f"none of meta, {', '.join(RANKINGS)} and answer says which response is better",
                            "Name the benchmark's data.json with --data.")  # fmt: skip
    pairs = [_pair(data, row) for row in read_rows(data, "--data")]
    return _joined(verdicts, rows, pairs, shown_swapped(len(pairs)))


def _unwrapped(row: Row) -> Row | None:
    """Two layouts hold the pair one level down: some published results have each sample under "0", null where it failed
    (left out, as published); the logs of lmms-eval have it as `doc`, and its order by the lengths of the responses."""
    if "0" in row.values:
        inner = row.values["0"]
        return Row(row.place, inner) if isinstance(inner, dict) else None
    doc = row.values.get("doc")
    if not isinstance(doc, dict):
        return row
    lengths = [len(one) for one in doc.get("response") or [] if isinstance(one, str)]
    said = row.values.get("filtered_resps") or row.values.get("resps")
    return Row(row.place, {**doc, "outputs": said, "order": sum(lengths) % 2})


def _from_results(path: Path, rows: Sequence[Row]) -> list[JudgedPair]:
    judged: dict[str, JudgedPair] = {}
    for row in rows:
        pair = _pair(path, row)
        meta = row.values.get("meta")
        if not isinstance(meta, dict) or meta.get("random_number") not in ORDERS:
            raise row.error(path, "meta.random_number must be 0 or 1", LAYOUT)
        text = _text(path, row, meta.get("filter_choice"), "meta.filter_choice")
        reverse = bool(meta["random_number"])
        vote = Vote(text, reverse, _place(pair.best, reverse))
        judged.setdefault(_key(row, pair), JudgedPair(pair.id)).votes.append(vote)
    return list(judged.values())


def _key(row: Row, pair: Pair) -> str:
    """What tells pairs apart: 25 ids stand twice."""
    answers = row.values.get("response")
    shown = sorted(map(str, answers)) if isinstance(answers, list) else [str(answers)]
    return pair.id + str(row.values.get("query")) + "\t".join(shown)


def _with_own_pairs(path: Path, rows: Sequence[Row], shown_swapped: Callable[[int], list[bool]]) -> list[JudgedPair]:
    """Rows of the data with an answer added. An order not given is that of the pair's place among the pairs of the file."""
    pairs = {_key(row, pair): pair for row in rows for pair in [_pair(path, row)]}
    places = {key: place for place, key in enumerate(pairs)}
    assumed = shown_swapped(len(pairs))
    judged: dict[str, JudgedPair] = {}
    for row in rows:
        key = _key(row, _pair(path, row))
        votes = _votes(path, row, pairs[key], assumed[places[key]])
        judged.setdefault(key, JudgedPair(pairs[key].id)).votes.extend(votes)
    return list(judged.values())


def _from_answers(path: Path, rows: Sequence[Row]) -> list[JudgedPair]:
    """Rows of UnifiedReward's scripts with an id: `answer` is the sentence that is right in the order shown."""
    judged: dict[str, JudgedPair] = {}
    for row in rows:
        side = read_label(row.values.get("answer"))
        if not isinstance(row.values.get("id"), str) or side not in (Side.FIRST, Side.SECOND):
            raise row.error(path, "it has no id, or answer is not which answer is better",
                            'Write "answer": "Answer 1 is better" or "Answer 2 is better".')  # fmt: skip
        better = 1 if side is Side.FIRST else 2
        key = row.values["id"] + str(row.values.get("problem", row.values.get("query", "")))
        pair = judged.setdefault(key, JudgedPair(row.values["id"]))
        pair.votes += [Vote(text, bool(swapped(path, row)), better) for text in _texts(path, row)]
    return list(judged.values())


def _joined(path: Path, rows: Sequence[Row], pairs: Sequence[Pair], assumed: Sequence[bool]) -> list[JudgedPair]:
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.id, []).append(place)
    lines = Counter(str(row.values.get("id")) for row in rows)
    seen: Counter[str] = Counter()
    judged: dict[int, JudgedPair] = {}
    by_place = len(rows) == len(pairs) and not any(_names_its_pair(row) for row in rows)
    for number, row in enumerate(rows):
        place = number if by_place else _data_place(path, row, places, pairs, lines, seen)
        votes = _votes(path, row, pairs[place], assumed[place])
        judged.setdefault(place, JudgedPair(pairs[place].id)).votes.extend(votes)
    return [judged[place] for place in sorted(judged)]


def _names_its_pair(row: Row) -> bool:
    return any(row.values.get(name) is not None for name in ("id", *PLACES))


def _votes(path: Path, row: Row, pair: Pair, assumed: bool) -> list[Vote]:
    """assumed: whether the pair was shown swapped, where the row does not say."""
    scores = None if _text_field(row) else difference(path, row)
    if scores is not None:  # of the two responses as they stand in the data; equal or missing ones settle nothing
        side = side_of(scores, 0.0)
        return [Vote(SCORED.get(side, "") if side else "", False, _place(pair.best, False))]
    order = swapped(path, row)
    reverse = assumed if order is None else order
    return [Vote(text, reverse, _place(pair.best, reverse), order is None) for text in _texts(path, row)]


def _data_place(
    path: Path,
    row: Row,
    places: Mapping[str, list[int]],
    pairs: Sequence[Pair],
    lines: Counter[str],
    seen: Counter[str],
) -> int:
    """Where the row's pair stands in the data: by `index` or `idx`, else by `id`; two pairs may share one (25 published
    ids do). UnifiedReward's client writes `idx` as text, and no id."""
    name, item_id = first_of(row, PLACES), row.values.get("id")
    index = None if name is None else row.values[name]
    if name is not None and index is not None:
        index = int(index) if isinstance(index, str) and index.isdecimal() else index
        is_place = isinstance(index, int) and 0 <= index < len(pairs)
        if not is_place or item_id not in (None, pairs[index].id):
            raise row.error(
                path, f"{name} {index!r} is not the place of this id in the data", "Count from 0, in the data's order."
            )
        return int(index)
    if not isinstance(item_id, str) or item_id not in places:
        raise row.error(path, f"id {item_id!r} is not in the data", LAYOUT)
    found = places[item_id]
    if len(found) > 1 and lines[item_id] != len(found):
        raise row.error(path, f"{len(found)} pairs of the data have this id, and {lines[item_id]} rows name it",
                        'Add "index", the pair\'s place in the data from 0 on.')  # fmt: skip
    seen[item_id] += 1
    return found[seen[item_id] - 1] if len(found) > 1 else found[0]


def _pair(path: Path, row: Row) -> Pair:
    ranking = value_of(row, RANKINGS)
    if ranking not in ([0, 1], [1, 0]):
        raise row.error(
            path, f"the human ranking is {ranking!r}", "It must be [0, 1] or [1, 0], the rank of each response."
        )
    if not isinstance(row.values.get("id"), str):
        raise row.error(path, "it has no id", "Write the item's id as text.")
    return Pair(row.values["id"], ranking.index(0))


def _place(best: int, reverse: bool) -> int:
    return (1 - best if reverse else best) + 1


def _text_field(row: Row) -> str | None:
    """`response` is the judge's text only where it is one: in the data it is the two responses."""
    said = isinstance(row.values.get("response"), str)
    return text_field(row, (*TEXT_FIELDS, "response") if said else TEXT_FIELDS)


def _texts(path: Path, row: Row) -> list[str]:
    name = _text_field(row)
    if name is None and row.values.get("success") is False:
        return [""]  # a request that failed, as UnifiedReward's client writes it
    if name is None:
        raise row.error(path, f"it has none of {', '.join(TEXT_FIELDS)}", LAYOUT)
    return texts(path, row, (name,)) or []


def _text(path: Path, row: Row, value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise row.error(path, f"{name} is no text", "Write the judge's answer as text, or null where there is none.")
    return value
