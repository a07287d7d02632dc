"""The output of a node, kept in the object store so that it is there after the pod is gone.

    logs/<job>/worker-<k>/<start in ms>-<segment>.log

A segment is written again every few seconds until it is full, so a kill -9 costs the last seconds only. The lines are those
that `kubectl logs` shows, in the same order: a reader who has seen the first n of them goes on with the rest.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from unified_reward.names import JOB, NODE_RANK, STORE

if TYPE_CHECKING:
    from unified_reward.store import ObjectStore

SEGMENT_BYTES = 1_000_000
INTERVAL_SECONDS = 5.0
CLOSE_SECONDS = 20.0


def archive_prefix(job: str, replica: int) -> str:
    """Where the segments of one node of a job are."""
    return f"logs/{job}/worker-{replica}/"


class LogArchive:
    """Takes lines and uploads them from a thread. A store that does not answer is waited for; it never stops the stage."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self._start = time.time_ns() // 1_000_000
        self._segment = 0
        self._lines: list[bytes] = []
        self._size = self._sent = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="log-archive", daemon=True)
        self._thread.start()

    @classmethod
    def of_this_job(cls) -> LogArchive | None:
        """The archive of this node; None outside of a cluster's job."""
        job, url = os.environ.get(JOB, ""), os.environ.get(STORE, "")
        if not job or not url:
            return None
        return cls(url, archive_prefix(job, int(os.environ.get(NODE_RANK, "0"))))

    def write(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)
            self._size += len(line)

    def close(self) -> None:
        """Upload the rest, waiting a while for a store that is away."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def _loop(self) -> None:
        from unified_reward.store import open_store

        store: ObjectStore | None = None
        while True:
            last = self._stop.wait(INTERVAL_SECONDS)
            with contextlib.suppress(Exception):  # tried again at the next turn
                store = store or open_store(self._url, retry_seconds=CLOSE_SECONDS / 2)
                self._upload(store)
            if last:
                return

    def _upload(self, store: ObjectStore) -> None:
        with self._lock:
            size, text = self._size, b"".join(self._lines)
        if size == self._sent:
            return
        store.put(f"{self._prefix}{self._start:013d}-{self._segment:05d}.log", text)
        self._sent = size
        if size >= SEGMENT_BYTES:
            with self._lock:
                rest = b"".join(self._lines)[size:]
                self._lines, self._size, self._sent = ([rest] if rest else []), len(rest), 0
                self._segment += 1
