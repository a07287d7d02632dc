"""Multimodal RewardBench 2 (arXiv 2512.16899): four tasks of 1,000 pairs, each asked in both orders.

Result files of the benchmark: {pair id: {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "B"}]}}, one file a task; the
first judgement of each order counts. `reverse` is the answer to the swapped pair. The label is `chosen` of the data, one
file a task, whose name is the task's (t2i.json, edit.json, interleaved.json, reasoning.json).

accuracy: right judgements of both orders / all 2 n of the judged pairs; an order without a verdict is wrong.
as_published/official: of the judgements there are (facebookresearch/MMRB2 compute_accuracy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unified_reward.evaluation.benchmarks.fields import item_id, swapped, texts
from unified_reward.evaluation.benchmarks.files import Row, files_in, read_rows
from unified_reward.evaluation.benchmarks.metrics import SEED, Report, Share, ratio
from unified_reward.evaluation.benchmarks.pairs_files import difference, side_of
from unified_reward.evaluation.benchmarks.sides import Side, read_answer, read_label
from unified_reward.evaluation.statistics import Array, bootstrap_interval

SIZE = 4000
TASKS = ("t2i", "edit", "interleaved", "reasoning")
ORDERS = ("forward", "reverse")
IDS_IN_DATA = ("id", "pair_id")


@dataclass
class Judged:
    """said: what each order says of the pair as it stands in the data; None is unread, an order not asked is left out."""

    id: str
    task: str
    gold: Side
    said: dict[str, Side | None]

    @property
    def right(self) -> int:
        return sum(side is self.gold for side in self.said.values())


@dataclass(frozen=True)
class _Label:
    task: str
    gold: Side


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    labels = _labels(data) if data else None
    judged: dict[str, Judged] = {}
    for file in files_in(verdicts, "--verdicts"):
        for row in read_rows(file, "--verdicts"):
            _add(file, row, labels, judged)
    pairs = list(judged.values())
    groups = {f"task/{task}": _share([one for one in pairs if one.task == task]) for task in _tasks(pairs)}
    both = [one for one in pairs if len(one.said) == 2]
    known = len(labels) if labels is not None else SIZE
    metrics: dict[str, Any] = {
        "pairs": len(pairs), "macro": _mean([part.accuracy for part in groups.values()]),
        "as_published": {"official": _official(pairs)},
        "both_orders": {"n": len(both), "consistent": ratio(sum(_consistent(one) for one in both), len(both)),
                        "both_right": ratio(sum(one.right == 2 for one in both), len(both))},
        "first_place_rate": _first_place_rate(pairs), "missing": max(0, known - len(pairs)),
    }  # fmt: skip
    return Report(benchmark, _share(pairs), groups, metrics, _notes(len(pairs), known))


def _labels(data: Path) -> dict[str, _Label]:
    found: dict[str, _Label] = {}
    for file in _files_of_tasks(data):
        task = _task_of(file.name)
        for row in read_rows(file, "--data"):
            name = next((str(row.values[key]) for key in IDS_IN_DATA if key in row.values), item_id(row))
            gold = read_label(row.values.get("chosen"))
            if name is None or gold is None:
                raise row.error(file, "it has no id, or no label `chosen`", "Write chosen as A or B.")
            found[name] = _Label(task or str(row.values.get("task", "all")), gold)
    return found


def _files_of_tasks(data: Path) -> list[Path]:
    """The benchmark's folder also holds prompts without labels (new_task_release.json): a task's name tells which files count."""
    files = files_in(data, "--data")
    return [file for file in files if file.name.lower().startswith(TASKS)] or files


def _task_of(name: str) -> str:
    """t2i.json, edit_response_only.json, sample_task1_image.json -> the task; "" where the name tells none."""
    name = name.lower().replace("image_edit", "edit")
    known = (*((task, task) for task in TASKS), ("text_to_image", "t2i"), ("_image", "t2i"))
    return next((task for word, task in known if word in name), "")


def _add(path: Path, row: Row, labels: dict[str, _Label] | None, judged: dict[str, Judged]) -> None:
    name = item_id(row)
    if name is None:
        raise row.error(path, "it has no id", "Write the pair's id.")
    if name not in judged:
        judged[name] = Judged(name, *_label_of(path, row, name, labels), {})
    judged[name].said |= _said(path, row)


def _label_of(path: Path, row: Row, name: str, labels: dict[str, _Label] | None) -> tuple[str, Side]:
    if labels is not None:
        if name not in labels:
            raise row.error(path, f"pair {name!r} is not in the data", "Name the data of the same tasks with --data.")
        return labels[name].task, labels[name].gold
    gold = read_label(row.values.get("chosen"))
    if gold is None:
        raise row.error(path, "it has no label `chosen` (A or B)",
                        "Name the benchmark's t2i.json, or the directory of its four files, with --data.")  # fmt: skip
    return str(row.values.get("task") or _task_of(path.name) or "all"), gold


def _said(path: Path, row: Row) -> dict[str, Side | None]:
    """The published layout, or one order a row: an answer and `order` (forward, reverse) or `swapped`."""
    if any(order in row.values for order in ORDERS):
        return {order: side for order in ORDERS if row.values.get(order)
                for side in [_first_judgement(path, row, order)]}  # fmt: skip
    samples, scores = texts(path, row), difference(path, row)
    if samples is None and scores is not None:  # a scalar scorer has one opinion in both orders
        return dict.fromkeys(ORDERS, side_of(scores, 0.0))
    if samples is None:
        raise row.error(path, "it has no judgement", 'Write {"forward": [{"judgement": "A"}], "reverse": [...]}.')
    order = "reverse" if swapped(path, row) else "forward"
    return {order: _turned(read_answer(samples[0]), order)}


def _first_judgement(path: Path, row: Row, order: str) -> Side | None:
    value = row.values[order]
    first = value[0] if isinstance(value, list) else value
    if isinstance(first, dict):
        first = first.get("judgement", first.get("judgment", first.get("better_response")))
    if first is not None and not isinstance(first, str | int):
        raise row.error(path, f"{order} has no judgement", 'Write it as [{"judgement": "A"}].')
    return _turned(None if first is None else read_answer(str(first)), order)


def _turned(side: Side | None, order: str) -> Side | None:
    return side.swapped() if side is not None and order == "reverse" else side


def _share(pairs: Sequence[Judged]) -> Share:
    """Over judgements; the interval is a bootstrap over pairs, since the two orders of a pair are not independent."""
    right, asked = [one.right for one in pairs], [len(one.said) for one in pairs]
    unread = sum(side is None for one in pairs for side in one.said.values())
    interval = bootstrap_interval([right, asked], _ratio, seed=SEED) if pairs else None
    return Share(ratio(sum(right), sum(asked)), interval, sum(asked), unread)


def _ratio(right: Array, count: Array) -> Array:
    with np.errstate(invalid="ignore"):
        result: Array = right.sum(axis=-1) / count.sum(axis=-1)
    return result


def _official(pairs: Sequence[Judged]) -> dict[str, Any]:
    def accuracy(part: Sequence[Judged]) -> float | None:
        sides = [(side, one.gold) for one in part for side in one.said.values() if side is not None]
        return ratio(sum(side is gold for side, gold in sides), len(sides))

    tasks = {f"task/{task}": accuracy([one for one in pairs if one.task == task]) for task in _tasks(pairs)}
    return tasks | {"overall": accuracy(pairs)}


def _tasks(pairs: Sequence[Judged]) -> list[str]:
    found = {one.task for one in pairs}
    return [*(task for task in TASKS if task in found), *sorted(found - set(TASKS))]


def _consistent(one: Judged) -> bool:
    return one.said["forward"] is not None and one.said["forward"] is one.said["reverse"]


def _first_place_rate(pairs: Sequence[Judged]) -> float | None:
    """How many judgements name what was shown first; 1/2 without position bias."""
    places = [_turned(side, order) for one in pairs for order, side in one.said.items() if side not in (None, Side.TIE)]
    return ratio(sum(place is Side.FIRST for place in places), len(places))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _notes(count: int, known: int) -> list[str]:
    notes = [] if count == SIZE else [f"{count:,} pairs; the published averages are of {SIZE:,}, 1,000 a task."]
    if count < known < SIZE:
        notes.append(f"{known - count:,} pairs of the data have no verdict and are not counted.")
    return notes
