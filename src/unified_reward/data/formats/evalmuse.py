"""EvalMuse-40K: pictures of a caption, scored 1 to 5 by several people, and which of its elements they show.

Rows of train_list.json: prompt, img_path, total_score (a list, one of each annotator), element_score ({"element (type)":
[0 or 1 of each annotator]}, or that as a JSON string). Process_train.py of its repository puts means in their place.
A row is a pointwise example: the mean score, and the elements that at least two saw (or half, of a mean) as its rationale.
The best and the worst picture of a caption make a pair, as UnifiedReward does it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from unified_reward.data.examples import Example, File, Row, RowError, names, placed, text
from unified_reward.data.format import Combined, Format, has
from unified_reward.records import Task

LOW, HIGH = 1.0, 5.0
AGREE = 2


def read(row: Row) -> list[Example]:
    score = _mean(row.get("total_score"), "total_score")
    if not LOW <= score <= HIGH:
        raise RowError("total_score is outside 1 to 5", score)
    elements = _elements(row.get("element_score"))
    return [Example(task=Task.IMAGE_GENERATION_POINT, prompt=text(row, "prompt"), media=[File(text(row, "img_path"))],
                    score=round(score, 4), score_min=LOW, score_max=HIGH,
                    rationale="\n".join(f"{name}: {int(shown)}" for name, shown in elements.items()))]  # fmt: skip


def combine(examples: Sequence[Example]) -> Combined:
    """Best against worst picture of each caption with at least two; all alike = none."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.prompt].append(example)
    pairs, rejects = [], []
    for prompt, group in groups.items():
        ranked = sorted(group, key=lambda each: (each.score or 0.0, names(each.media)))
        worst, best = ranked[0], ranked[-1]
        if len(group) < 2:
            continue
        if best.score == worst.score:
            rejects.append((prompt, RowError("all pictures of the caption have one score: no pair", prompt)))
            continue
        first, second, choice = placed(best.media[0], worst.media[0], prompt)
        pairs.append(
            Example(
                task=Task.IMAGE_GENERATION_PAIR, prompt=prompt, media=[first, second], choice=choice, split=best.split
            )
        )
    return Combined(pairs, rejects)


def _mean(value: Any, key: str) -> float:
    values = value if isinstance(value, list | tuple) else [value]
    try:
        return sum(float(each) for each in values) / len(values)
    except (TypeError, ValueError, ZeroDivisionError):
        raise RowError(f"{key} holds no scores", value) from None


def _elements(value: Any) -> dict[str, bool]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise RowError("element_score cannot be read", value) from None
    if not isinstance(value, Mapping):
        return {}
    return {str(name): _shown(marks, str(name)) for name, marks in value.items() if marks is not None}


def _shown(marks: Any, name: str) -> bool:
    if isinstance(marks, list | tuple) and len(marks) > 1:
        return sum(float(mark) for mark in marks) >= AGREE
    return _mean(marks, f"element {name}") >= 0.5


FORMAT = Format(
    "evalmuse", "EvalMuse-40K (DY-Evalab/EvalMuse, train_list.json)", "Apache-2.0 (repository), BSD-3-Clause (data set card)",
    has("total_score", "img_path"), read, combine=combine,
)  # fmt: skip
