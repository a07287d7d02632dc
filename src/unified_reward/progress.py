"""How far a stage is: a small JSON file that the stage rewrites and the launcher shows with an ETA.

The file's path comes in the environment variable UR_PROGRESS_FILE; without it, reports go nowhere.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from unified_reward.names import PROGRESS_FILE

MIN_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Progress:
    """done and total count `unit`s; first were done when it was started. started, updated: seconds since the epoch."""

    done: int
    total: int
    unit: str
    note: str
    started: float
    updated: float
    first: int = 0

    def eta_seconds(self, now: float) -> float | None:
        """Seconds left at the mean speed since the first report; None before anything was done after it."""
        if self.done <= self.first or self.total <= 0:
            return None
        pace = (self.updated - self.started) / (self.done - self.first)
        return max(0.0, pace * (self.total - self.done) - (now - self.updated))


class _Reporter:
    def __init__(self) -> None:
        self.key = ("", -1)
        self.started = self.last = 0.0
        self.first = 0

    def report(self, done: int, total: int, unit: str, note: str) -> None:
        path = os.environ.get(PROGRESS_FILE)
        if not path or os.environ.get("RANK", "0") != "0":
            return
        now = time.time()
        if self.key != (unit, total):
            self.key, self.started, self.last, self.first = (unit, total), now, 0.0, done
        if now - self.last < MIN_INTERVAL_S and done < total:
            return
        self.last = now
        write(Path(path), Progress(done, total, unit, note, self.started, now, self.first))


_REPORTER = _Reporter()


def report(done: int, total: int, unit: str, note: str = "") -> None:
    """Say how far this stage is. Cheap: writes at most twice a second, and only on rank 0."""
    _REPORTER.report(done, total, unit, note)


def write(path: Path, progress: Progress) -> None:
    temporary = path.with_name(path.name + f".{os.getpid()}")
    temporary.write_text(json.dumps(asdict(progress)))
    temporary.replace(path)


def read(path: Path) -> Progress | None:
    """The last report, or None when there is none yet."""
    try:
        return Progress(**json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
