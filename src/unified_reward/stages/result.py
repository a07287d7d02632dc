"""What a stage tells its launcher when it is done: a small JSON file, in a pod part of the termination message."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unified_reward.names import RESULT_FILE
from unified_reward.stages.context import Commit

SHOWN = ("accuracy", "pearson")  # of what a stage measured for each task


def leave_result(done: Commit, *, reused: bool) -> None:
    """Write key, seconds and headline numbers where $UR_RESULT_FILE says; rank 0 does, others leave it."""
    path = os.environ.get(RESULT_FILE)
    if path and os.environ.get("RANK", "0") == "0":
        result = {
            "key": done.key,
            "reused": reused,
            "seconds": round(done.seconds, 2),
            "metrics": headline(done.metrics),
        }
        Path(path).write_text(json.dumps(result), encoding="utf-8")


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The plain numbers and words, and of nested ones the first that sums them up: `task/accuracy`."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            shown = next((each for each in SHOWN if value.get(each) is not None), "")
            found |= {f"{name}/{shown}": round(float(value[shown]), 4)} if shown else {}
        elif isinstance(value, float):
            found[name] = round(value, 4)
        elif isinstance(value, int | str):
            found[name] = value
    return found
