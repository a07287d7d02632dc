"""Calls that wait for MLflow's answer: for an operator or a launcher that must know a run's id, or put old runs right.

Everything here raises UnavailableError when MLflow does not answer in time; callers go on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from unified_reward.names import KEY_TAG
from unified_reward.tracking.delivery import KILLED, Delivery, UnavailableError
from unified_reward.tracking.runs import Target, _now, _run_tags, flatten

TIMEOUT_S = 30.0
PAUSE_S = 1.0

Answer = TypeVar("Answer")


def prepare(target: Target, timeout_s: float = TIMEOUT_S) -> str:
    """Import MLflow, create the database and the experiment; the experiment's id. Takes seconds the first time."""
    return _until(lambda: Delivery(target.uri).experiment_id(target.experiment), timeout_s)


def open_parent(
    target: Target,
    *,
    key: str,
    name: str,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """The id of the run of this key, RUNNING: the one that is there, or a new one."""
    delivery = Delivery(target.uri)
    opened = {
        "op": "open", "experiment": target.experiment, "key": key, "name": name, "parent_key": "",
        "parent_run_id": "", "time": _now(), "tags": _run_tags(1, tags or {}),
    }  # fmt: skip
    run_id = _until(lambda: delivery.open_run(opened), timeout_s)
    values = flatten(params or {})
    _until(lambda: delivery.apply(run_id, {"op": "params", "values": values}, Path()), timeout_s)
    return run_id


def close_run(target: Target, run_id: str, status: str, timeout_s: float = TIMEOUT_S) -> None:
    """Close a run as FINISHED, FAILED or KILLED."""
    _until(lambda: Delivery(target.uri).close_run(run_id, status), timeout_s)


def close_dangling(
    target: Target, parent_run_id: str, *, alive: Collection[str] = (), timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Mark children that are still RUNNING as KILLED, but for those whose key is in `alive`; the names of the marked.

    For where the spool of a killed process is gone with its machine. Where it is there, the courier does this.
    """
    delivery = Delivery(target.uri)
    children = _until(lambda: delivery.running_children(target.experiment, parent_run_id), timeout_s)
    dangling = [run for run in children if run.data.tags.get(KEY_TAG) not in alive]
    for run in dangling:
        delivery.close_run(run.info.run_id, KILLED)
    return [str(run.info.run_name) for run in dangling]


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
