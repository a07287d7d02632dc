"""Verdicts on VL-RewardBench, joined with its pairs: which place the better response was shown at, and what the judge said.

Four layouts. The benchmark's own results bring the pair with each sample: {"id", "query", "response", "ranking", "meta":
{"filter_choice": text, "random_number": 0 | 1}}, K lines per item. The short one, {"id", "output" | "outputs", "order",
"index"}, and that of a scalar scorer, {"id", "scores": [of the first response, of the second]}, need the benchmark's data
beside them. {"id", "answer", "output"} brings the right sentence with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.pairs_files import difference, side_of
from unified_reward.evaluation.benchmarks.sides import Side, read_label

TEXT_FIELDS = ("outputs", "output", "model_output", "prediction", "pred", "judgement", "judgment", "verdict", "answer")
LAYOUT = 'Write {"id", "output" or "outputs", "order"} a line, or the results of the benchmark\'s own inference.'
SCORED = {Side.FIRST: "Overall Judgment: Answer 1 is better", Side.SECOND: "Overall Judgment: Answer 2 is better"}
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
    if "meta" in rows[0].values:
        return _from_results(verdicts, rows)
    if data is None and "answer" in rows[0].values:
        return _from_answers(verdicts, rows)
    if data is None:
        raise UserError(field="--data", value=None, why="this layout does not say which response is better",
                        fix="Name the benchmark's data.json.")  # fmt: skip
    pairs = [_pair(data, row) for row in read_rows(data, "--data")]
    return _joined(verdicts, rows, pairs, shown_swapped(len(pairs)))


def _unwrapped(row: Row) -> Row | None:
    """Some published results have each sample under "0", null where it failed; those are left out, as published."""
    if "0" not in row.values:
        return row
    inner = row.values["0"]
    return Row(row.place, inner) if isinstance(inner, dict) else None


def _from_results(path: Path, rows: Sequence[Row]) -> list[JudgedPair]:
    judged: dict[str, JudgedPair] = {}
    for row in rows:
        pair = _pair(path, row)
        meta = row.values.get("meta")
        if not isinstance(meta, dict) or meta.get("random_number") not in ORDERS:
            raise row.error(path, "meta.random_number must be 0 or 1", LAYOUT)
        text = _text(path, row, meta.get("filter_choice"), "meta.filter_choice")
        swapped = bool(meta["random_number"])
        key = pair.id + str(row.values.get("query")) + "\t".join(sorted(map(str, row.values.get("response") or [])))
        judged.setdefault(key, JudgedPair(pair.id)).votes.append(Vote(text, swapped, _place(pair.best, swapped)))
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
        pair.votes += [Vote(text, bool(_order(path, row)), better) for text in _texts(path, row)]
    return list(judged.values())


def _joined(path: Path, rows: Sequence[Row], pairs: Sequence[Pair], assumed: Sequence[bool]) -> list[JudgedPair]:
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.id, []).append(place)
    lines = Counter(str(row.values.get("id")) for row in rows)
    seen: Counter[str] = Counter()
    judged: dict[int, JudgedPair] = {}
    for row in rows:
        place = _data_place(path, row, places, pairs, lines, seen)
        pair = pairs[place]
        scores = None if any(name in row.values for name in TEXT_FIELDS) else difference(path, row)
        if scores is not None:  # of the two responses as they stand in the data; equal or missing ones settle nothing
            side = side_of(scores, 0.0)
            text = SCORED.get(side, "") if side else ""
            judged.setdefault(place, JudgedPair(pair.id)).votes.append(Vote(text, False, _place(pair.best, False)))
            continue
        order = _order(path, row)
        swapped = assumed[place] if order is None else order
        votes = [Vote(text, swapped, _place(pair.best, swapped), order is None) for text in _texts(path, row)]
        judged.setdefault(place, JudgedPair(pair.id)).votes.extend(votes)
    return [judged[place] for place in sorted(judged)]


def _data_place(
    path: Path,
    row: Row,
    places: Mapping[str, list[int]],
    pairs: Sequence[Pair],
    lines: Counter[str],
    seen: Counter[str],
) -> int:
    """Where the row's pair stands in the data: by `index`, else by `id`; two pairs may share one (25 published ids do)."""
    index, item_id = row.values.get("index"), row.values.get("id")
    if index is not None:
        if not isinstance(index, int) or not 0 <= index < len(pairs) or item_id not in (None, pairs[index].id):
            raise row.error(
                path, f"index {index!r} is not the place of this id in the data", "Count from 0, in the data's order."
            )
        return index
    if not isinstance(item_id, str) or item_id not in places:
        raise row.error(path, f"id {item_id!r} is not in the data", LAYOUT)
    found = places[item_id]
    if len(found) > 1 and lines[item_id] != len(found):
        raise row.error(path, f"{len(found)} pairs of the data have this id, and {lines[item_id]} rows name it",
                        'Add "index", the pair\'s place in the data from 0 on.')  # fmt: skip
    seen[item_id] += 1
    return found[seen[item_id] - 1] if len(found) > 1 else found[0]


def _pair(path: Path, row: Row) -> Pair:
    ranking = row.values.get("human_ranking", row.values.get("ranking"))
    if ranking not in ([0, 1], [1, 0]):
        raise row.error(
            path, f"the human ranking is {ranking!r}", "It must be [0, 1] or [1, 0], the rank of each response."
        )
    if not isinstance(row.values.get("id"), str):
        raise row.error(path, "it has no id", "Write the item's id as text.")
    return Pair(row.values["id"], ranking.index(0))


def _place(best: int, swapped: bool) -> int:
    return (1 - best if swapped else best) + 1


def _order(path: Path, row: Row) -> bool | None:
    """Swapped or not: `order` is [0, 1] or [1, 0] (the responses as shown), or 0 or 1 (1 = reversed); None where absent."""
    order = row.values.get("order")
    if order is None:
        return None
    if order in ([0, 1], [1, 0]):
        return bool(order == [1, 0])
    if order not in ORDERS:
        raise row.error(
            path, f"order is {order!r}", "It must be [0, 1] or [1, 0] (responses as shown), or 0 or 1 (1 = reversed)."
        )
    return bool(order)


def _texts(path: Path, row: Row) -> list[str]:
    name = next((name for name in TEXT_FIELDS if name in row.values), None)
    if name is None:
        raise row.error(path, "it has no output", LAYOUT)
    value = row.values[name]
    if name != "outputs":
        return [_text(path, row, value, name)]
    if not isinstance(value, list) or not value:
        raise row.error(path, "outputs is no list of texts", LAYOUT)
    return [_text(path, row, one, name) for one in value]


def _text(path: Path, row: Row, value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise row.error(path, f"{name} is no text", "Write the judge's answer as text, or null where there is none.")
    return value
