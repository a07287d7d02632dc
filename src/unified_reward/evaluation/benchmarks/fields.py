"""Fields by the names that tools in use give them, and their values checked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.files import KEY, Row

IDS = ("id", "pair_id", "idx", "index", "question_id", "uid", KEY)
# What the judge wrote. A list is K samples.
TEXTS = ("outputs", "model_output", "output", "model_outputs", "response", "prediction", "pred", "model_vote", "judge_output",
         "judgement", "judgment", "verdict", "better_response", "generated_text", "text", "winner")  # fmt: skip
CARRIED = "info"
SWAPPED = ("swapped", "is_swapped", "swap", "reversed", "order", "random_number")


def first_of(row: Row, names: Sequence[str]) -> str | None:
    """The first of the names that the row has a value for; else the first that it has, empty."""
    had = [name for name in names if name in row.values]
    return next((name for name in had if row.values[name] is not None), had[0] if had else None)


def value_of(row: Row, names: Sequence[str]) -> Any:
    """The value under the first of the names; None where the row has none."""
    name = first_of(row, names)
    return None if name is None else row.values[name]


def item_id(row: Row) -> str | None:
    """The row's own name; a number and its text are one."""
    value = value_of(row, IDS)
    return None if value is None else str(value)


def text_field(row: Row, names: Sequence[str]) -> str | None:
    """As first_of, but a list of numbers ([0, 1], a ranking) stands back."""
    return first_of(row, [name for name in names if not _is_ranking(row.values.get(name))]) or first_of(row, names)


def texts(path: Path, row: Row, names: Sequence[str] = TEXTS) -> list[str] | None:
    """The judge's answers, None where the row has no such field; a null is an empty answer."""
    name = text_field(row, names)
    if name is None:
        return None
    samples = _flat(row.values[name])
    if not samples or _is_ranking(row.values[name]):
        raise row.error(path, f"{name} is no text", "Write the judge's answer as text, or null where there is none.")
    return [_text(one) for one in samples]


def _is_ranking(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int | float) for one in value)


def _flat(value: Any) -> list[Any]:
    """Samples however they are nested: [text], [[text], [text]]."""
    return [one for part in value for one in _flat(part)] if isinstance(value, list) else [value]


def _text(sample: Any) -> str:
    """A message {"role", "content"} is its content; another object is the JSON that the judge wrote."""
    if isinstance(sample, dict):
        content = sample.get("content")
        return content if isinstance(content, str) else json.dumps(sample)
    return "" if sample is None else str(sample)


def opened(row: Row) -> Row:
    """The row with the item that it carries in one field ({"reward_1", ..., "info": {...}}) spread beside its own fields."""
    inner = row.values.get(CARRIED)
    return Row(row.place, {**inner, **row.values}) if isinstance(inner, dict) else row


def number_of(path: Path, row: Row, name: str, value: Any) -> float:
    """A score, called `name` in errors; null, "" and nan are nan (missing)."""
    if value is None or value == "":
        return math.nan
    try:
        if isinstance(value, bool):
            raise ValueError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise row.error(
            path, f"{name} is no number", "Write the score as a number, or null where there is none."
        ) from None
    if math.isinf(found):
        raise row.error(path, f"{name} is not finite", "Write the score as a number, or null where there is none.")
    return found


def swapped(path: Path, row: Row) -> bool | None:
    """Whether the judge saw the second item first; None where the row does not say."""
    value = value_of(row, SWAPPED)
    if value is None:
        return None
    known: dict[str, bool] = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True,
                              "[0,1]": False, "[1,0]": True, "ab": False, "ba": True, "forward": False,
                              "reverse": True}  # fmt: skip
    said = str(value).replace(" ", "").lower()
    if said not in known:
        raise row.error(path, f"{first_of(row, SWAPPED)} is {value!r}",
                        "It must be true or false, 0 or 1, or [0, 1] (as in the data) or [1, 0] (reversed).")  # fmt: skip
    return known[said]
