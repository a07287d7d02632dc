"""Fields by the names that tools in use give them, and their values checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.files import KEY, Row

IDS = ("id", "pair_id", "idx", "index", "question_id", "uid", KEY)
# What the judge wrote. A list is K samples.
TEXTS = ("outputs", "model_output", "output", "model_outputs", "response", "prediction", "pred", "model_vote", "judge_output",
         "judgement", "judgment", "verdict", "better_response", "generated_text", "text", "winner")  # fmt: skip
SWAPPED = ("swapped", "is_swapped", "swap", "reversed", "order", "random_number")


def first_of(row: Row, names: Sequence[str]) -> str | None:
    """The first of the names that the row has."""
    return next((name for name in names if name in row.values), None)


def value_of(row: Row, names: Sequence[str]) -> Any:
    """The value under the first of the names; None where the row has none."""
    name = first_of(row, names)
    return None if name is None else row.values[name]


def item_id(row: Row) -> str | None:
    """The row's own name; a number and its text are one."""
    value = value_of(row, IDS)
    return None if value is None else str(value)


def texts(path: Path, row: Row, names: Sequence[str] = TEXTS) -> list[str] | None:
    """The judge's answers, None where the row has no such field; a null is an empty answer."""
    name = first_of(row, names)
    if name is None:
        return None
    value = row.values[name]
    samples = value if isinstance(value, list) else [value]
    if not samples or not all(one is None or isinstance(one, str | int | float | dict) for one in samples):
        raise row.error(path, f"{name} is no text", "Write the judge's answer as text, or null where there is none.")
    return ["" if one is None else one if isinstance(one, str) else str(one) for one in samples]


def number_of(path: Path, row: Row, name: str, value: Any) -> float:
    """A score, called `name` in errors; null, "" and nan are nan (missing)."""
    if value is None or value == "":
        return math.nan
    try:
        if isinstance(value, bool):
            raise ValueError
        found = float(value)
    except (TypeError, ValueError):
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
    known: dict[str, bool] = {"0": False, "1": True, "false": False, "true": True, "[0, 1]": False, "[1, 0]": True,
                              "ab": False, "ba": True, "forward": False, "reverse": True}  # fmt: skip
    if str(value).lower() not in known:
        raise row.error(path, f"{first_of(row, SWAPPED)} is {value!r}",
                        "It must be true or false, 0 or 1, or [0, 1] (as in the data) or [1, 0] (reversed).")  # fmt: skip
    return known[str(value).lower()]
