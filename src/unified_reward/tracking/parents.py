"""Calls that wait for MLflow's answer: for a launcher or a command that must know a run's or an experiment's id.

Everything here raises UnavailableError when MLflow does not answer in time; callers go on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from unified_reward.tracking.delivery import Delivery, UnavailableError
from unified_reward.tracking.runs import Target

TIMEOUT_S = 30.0
PAUSE_S = 1.0

Answer = TypeVar("Answer")


def prepare(target: Target, timeout_s: float = TIMEOUT_S) -> str:
    """Import MLflow, create the database and the experiment; the experiment's id. Takes seconds the first time."""
    return _until(lambda: Delivery(target.uri).experiment_id(target.experiment), timeout_s)


def find_run_id(target: Target, key: str, timeout_s: float = TIMEOUT_S) -> str:
    """The MLflow id of a run's key, "" when MLflow has no such run."""
    found = _until(lambda: Delivery(target.uri).find_run(target.experiment, key), timeout_s)
    return str(found.info.run_id) if found is not None else ""


def _until(call: Callable[[], Answer], timeout_s: float) -> Answer:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except UnavailableError:
            if time.monotonic() + PAUSE_S >= deadline:
                raise
            time.sleep(PAUSE_S)
