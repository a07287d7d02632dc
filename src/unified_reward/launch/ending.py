"""What is left of a pod when it has ended: one JSON object in its termination message, read by operator and `torchx status`.

{"code": 2, "error": "one line", "tail": "last lines of the rank that failed first", "result": {...}, ...}
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.launch.causes import EXIT_KILLED
from unified_reward.names import ERROR_FILE, RESULT_FILE, TERMINATION_FILE

LONGEST_BYTES = 4000  # the kubelet keeps 4096
TAIL_BYTES = 2200


@dataclass(frozen=True)
class Ending:
    """code: as the shell reports it. rank: the one that failed first, -1 for none. tail: the last it said.

    result: of rank 0, what the stage made: key, whether it was there already, headline numbers. Seconds and bytes plain.
    """

    code: int
    rank: int = -1
    error: str = ""
    tail: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    ended: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


def write_ending(ending: Ending) -> None:
    """Leave it where the kubelet looks; nothing where no file is named."""
    path = os.environ.get(TERMINATION_FILE, "")
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(_fitted(ending), encoding="utf-8")


def read_ending(message: str) -> Ending | None:
    """From a termination message, None when a killed process left none (or the end of its log)."""
    try:
        values = json.loads(message)
        return Ending(**values)
    except (ValueError, TypeError):
        return None


def make_ending(code: int, *, rank: int, tail: str, started: float, cpu_seconds: float, peak_rss_bytes: int) -> Ending:
    """With the line and the result that the stage left, where it left one. The last line of a killed rank is no error of it."""
    error = _read(ERROR_FILE) if code else ""
    result: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        result = json.loads(_read(RESULT_FILE) or "{}")
    return Ending(
        code=code, rank=rank, error=error or (_last_line(tail) if code not in (0, EXIT_KILLED) else ""), tail=tail if code else "",
        seconds=round(time.time() - started, 2), cpu_seconds=round(cpu_seconds, 2), peak_rss_bytes=peak_rss_bytes,
        ended=round(time.time(), 2), result=result,
    )  # fmt: skip


def _fitted(ending: Ending) -> str:
    """At most LONGEST_BYTES, and valid JSON: the tail gives way, then the numbers."""
    values = asdict(ending)
    values["tail"] = _last_bytes(values["tail"], TAIL_BYTES)
    values["error"] = _last_bytes(values["error"], 900)
    while len(text := json.dumps(values, ensure_ascii=False).encode()) > LONGEST_BYTES:
        excess = len(text) - LONGEST_BYTES
        if values["tail"]:
            values["tail"] = _last_bytes(values["tail"], max(0, len(values["tail"].encode()) - excess - 20))
        elif "metrics" in values["result"]:
            values["result"] = {name: value for name, value in values["result"].items() if name != "metrics"}
        else:
            values["result"] = {}
    return text.decode()


def _last_bytes(text: str, count: int) -> str:
    return text.encode()[-count:].decode(errors="ignore") if count else ""


def _last_line(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def _read(variable: str) -> str:
    with contextlib.suppress(OSError):
        return Path(os.environ.get(variable, "") or "/nonexistent").read_text(encoding="utf-8")
    return ""
