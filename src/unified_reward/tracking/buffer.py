"""The courier: a thread that brings what lies in spools to MLflow, and waits while MLflow does not answer.

It stands in the stage's own process, or once in the launcher for all stages, which then never import MLflow.
It closes the runs of processes that died without a word, and takes along spools that an earlier process left.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.tracking.delivery import FINISHED, KILLED, Delivery, NotYetError, RefusedError, UnavailableError
from unified_reward.tracking.spool import (
    ENTRIES,
    Cursor,
    Entry,
    delivering,
    discard_payload,
    load_cursor,
    pending,
    read_entries,
    save_cursor,
    spools,
    without_writer,
)

logger = logging.getLogger(__name__)

CHUNK_BYTES = 200_000  # of entries between two cursors; MLflow takes 1 MB a request
INTERVAL_S = 1.0
LONGEST_PAUSE_S = 15.0
CLOSE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Backlog:
    """What did not reach MLflow. pending: entries that wait in `root`; refused: entries MLflow will never take."""

    root: Path
    pending: int
    refused: int
    reason: str

    def __str__(self) -> str:
        parts = []
        if self.pending:
            parts.append(f"{self.pending} entries wait in {self.root} and are delivered at the next start")
        if self.refused:
            parts.append(f"{self.refused} entries were refused")
        return "; ".join(parts) + (f" ({self.reason})" if self.reason and parts else "")


class Courier:
    """Delivers all spools under `root`, from `start` until `close`.

    prepare: a tracking URI whose client is imported and whose database is created at once, before the first entry.
    Nothing that goes wrong reaches the stage: an outage and a refused entry are logged, and entries wait on disk.
    """

    def __init__(self, root: Path, *, prepare: str = "", interval_s: float = INTERVAL_S) -> None:
        self.root = root
        self._prepare = prepare
        self._interval_s = interval_s
        self._deliveries: dict[str, Delivery] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._outage = ""
        self._refusals: list[str] = []
        self._thread = threading.Thread(target=self._loop, name="mlflow-courier", daemon=True)

    def start(self) -> Courier:
        self._thread.start()
        return self

    def drain(self, timeout_s: float, only: Path | None = None) -> Backlog:
        """Wait until everything (or the one spool) is delivered, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        backlog = self.backlog(only)
        while backlog.pending and time.monotonic() < deadline and self._thread.is_alive():
            self._wake.set()
            time.sleep(0.1)
            backlog = self.backlog(only)
        return backlog

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S, only: Path | None = None) -> Backlog:
        """Drain, stop the thread, and say what is left. What is left is delivered by the next courier."""
        self.drain(timeout_s, only)
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5.0)
        backlog = self.backlog(only)
        if backlog.pending or backlog.refused:
            logger.warning("tracking: %s", backlog)
        return backlog

    def backlog(self, only: Path | None = None) -> Backlog:
        waiting = sum(pending(directory) for directory in ([only] if only else spools(self.root)))
        reason = self._outage or (self._refusals[-1] if self._refusals else "")
        return Backlog(only or self.root, waiting, len(self._refusals), reason)

    def deliver_once(self) -> None:
        """One pass over all spools, parents before children. Raises UnavailableError when MLflow does not answer."""
        for directory in sorted(spools(self.root), key=_is_child):
            with delivering(directory) as alone:
                if alone:
                    with contextlib.suppress(NotYetError):
                        self._deliver(directory)

    def _loop(self) -> None:
        pause = self._interval_s
        while True:
            last = self._stop.is_set()
            pause = self._pass(pause)
            if last or (self._stop.is_set() and self._outage):
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _pass(self, pause: float) -> float:
        """Deliver once; how long to wait until the next time."""
        try:
            if self._prepare:
                _ = self._delivery(self._prepare).client
            self.deliver_once()
        except UnavailableError as error:
            if not self._outage:
                logger.warning("tracking: MLflow does not answer (%s); entries wait in %s", error, self.root)
            self._outage = str(error)
            return min(pause * 2, LONGEST_PAUSE_S)
        except UserError as error:
            self._say_once(str(error))
            return LONGEST_PAUSE_S
        except Exception as error:
            self._say_once(f"the delivery to MLflow failed, and is tried again: {error!r}", trace=True)
            return LONGEST_PAUSE_S
        if self._outage:
            logger.warning("tracking: MLflow answers again, and has what waited")
            self._outage = ""
        return self._interval_s

    def _say_once(self, what: str, *, trace: bool = False) -> None:
        if what != self._outage:
            logger.warning("tracking: %s", what, exc_info=trace)
        self._outage = what

    def _deliver(self, directory: Path) -> None:
        cursor = load_cursor(directory)
        entries, offset = read_entries(directory / ENTRIES, cursor.offset, CHUNK_BYTES)
        while entries:
            cursor = replace(self._apply(directory, cursor, entries), offset=offset)
            save_cursor(directory, cursor)
            for entry in entries:
                discard_payload(directory, entry)
            entries, offset = read_entries(directory / ENTRIES, offset, CHUNK_BYTES)
        self._settle(directory)

    def _apply(self, directory: Path, cursor: Cursor, entries: list[Entry]) -> Cursor:
        """Apply a chunk in order; metrics that follow each other go in one request."""
        delivery = self._of(directory)
        metrics: list[Entry] = []
        for entry in entries:
            if entry["op"] == "metrics":
                metrics.append(entry)
                continue
            self._send(delivery, cursor.run_id, metrics)
            metrics = []
            cursor = self._apply_one(delivery, directory, cursor, entry)
        self._send(delivery, cursor.run_id, metrics)
        return cursor

    def _apply_one(self, delivery: Delivery, directory: Path, cursor: Cursor, entry: Entry) -> Cursor:
        if entry["op"] == "open":
            return replace(cursor, run_id=_open(delivery, entry), ended="")
        self._try(partial(delivery.apply, cursor.run_id, entry, directory))
        return replace(cursor, ended=entry["status"]) if entry["op"] == "end" else cursor

    def _send(self, delivery: Delivery, run_id: str, metrics: list[Entry]) -> None:
        if metrics:
            self._try(partial(delivery.log_metrics, run_id, metrics))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RefusedError as error:
            if str(error) not in self._refusals:
                logger.warning("tracking: MLflow refused an entry: %s", error)
                self._refusals.append(str(error))

    def _settle(self, directory: Path) -> None:
        """Close the run of a dead writer; remove a spool whose run has finished and is delivered."""
        with without_writer(directory) as free:
            if not free or pending(directory):
                return
            cursor = load_cursor(directory)
            if cursor.run_id and not cursor.ended:
                self._try(partial(self._of(directory).close_run, cursor.run_id, KILLED))
                save_cursor(directory, replace(cursor, ended=KILLED))
            if cursor.ended == FINISHED:
                shutil.rmtree(directory, ignore_errors=True)

    def _of(self, directory: Path) -> Delivery:
        return self._delivery(read_entries(directory / ENTRIES, 0, 1)[0][0]["uri"])

    def _delivery(self, uri: str) -> Delivery:
        if uri not in self._deliveries:
            self._deliveries[uri] = Delivery(uri)
        return self._deliveries[uri]


def _open(delivery: Delivery, entry: Entry) -> str:
    """The run's id. A run that cannot be opened keeps its whole spool waiting, so a refusal counts as an outage."""
    try:
        return delivery.open_run(entry)
    except RefusedError as error:
        raise UnavailableError(f"run {entry['name']} cannot be opened: {error}") from error


def _is_child(directory: Path) -> bool:
    first = read_entries(directory / ENTRIES, 0, 1)[0]
    return bool(first and (first[0]["parent_key"] or first[0]["parent_run_id"]))
