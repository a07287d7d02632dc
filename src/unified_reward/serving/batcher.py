"""A bounded queue of jobs and one thread that works them off in batches.

A batch is whatever of one kind waits when the thread is free: a lone client is served at once, many share batches.
Who comes when the queue is full is told to come again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[str, list[Any]], list[Any]]
Observe = Callable[[str, int, float], None]


class Busy(Exception):
    """The queue is full. retry_after: seconds until it has about room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Closing(Exception):
    """No more jobs are taken."""


@dataclass(eq=False)
class Job:
    """items of one client, worked off together. cancelled: nobody waits any longer."""

    kind: str
    items: Sequence[Any]
    future: Future[list[Any]] = field(default_factory=Future)
    cancelled: bool = False


class Batcher:
    """work(kind, items) -> results, in the thread of the batcher alone. max_items: of a batch (a larger job is one batch).

    capacity: items that may wait. gather: seconds a batch waits for company when the thread was idle.
    observe(kind, items, seconds): after each batch.
    """

    def __init__(self, work: Work, *, max_items: int, capacity: int, gather: float = 0.0,
                 observe: Observe | None = None) -> None:  # fmt: skip
        self._work, self.max_items, self.capacity, self._gather, self._observe = (
            work,
            max_items,
            capacity,
            gather,
            observe,
        )
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.waiting = 0
        self._seconds_per_item = 0.0
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._thread.start()

    def submit(self, kind: str, items: Sequence[Any]) -> Job:
        """Queue a job. Raises Busy, Closing, or ValueError when it could never fit."""
        if len(items) > self.capacity:
            raise ValueError(f"{len(items)} items at once, at most {self.capacity}")
        with self._changed:
            if self._closing:
                raise Closing
            if self.waiting + len(items) > self.capacity:
                raise Busy(min(60.0, max(1.0, self.waiting * self._seconds_per_item)))
            job = Job(kind, items)
            self._jobs.append(job)
            self.waiting += len(items)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Drop a job that has not begun; its place is free at once."""
        with self._changed:
            job.cancelled = True
            if job in self._jobs:
                self._jobs.remove(job)
                self.waiting -= len(job.items)

    def close(self) -> None:
        """Take no more, finish what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def _run(self) -> None:
        while True:
            with self._changed:
                idle = not self._jobs
                self._changed.wait_for(lambda: bool(self._jobs) or self._closing)
                if not self._jobs:
                    return
                if idle and self._gather and not self._closing:
                    self._changed.wait_for(lambda: self.waiting >= self.max_items or self._closing, self._gather)
                batch = self._take()
            if batch:
                self._do(batch)

    def _take(self) -> list[Job]:
        """The oldest job and others of its kind, as many as a batch holds; the rest keep their order."""
        if not self._jobs:  # dropped while company was awaited
            return []
        batch: list[Job] = []
        kind, room = self._jobs[0].kind, self.max_items
        for job in list(self._jobs):
            if job.kind == kind and (not batch or len(job.items) <= room):
                batch.append(job)
                room -= len(job.items)
                self._jobs.remove(job)
                self.waiting -= len(job.items)
        return batch

    def _do(self, batch: list[Job]) -> None:
        items = [item for job in batch for item in job.items]
        started = time.monotonic()
        try:
            results = self._work(batch[0].kind, items)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:  # one client's fault is not the others'
                self._do([job])
            return
        seconds = time.monotonic() - started
        self._seconds_per_item = 0.8 * self._seconds_per_item + 0.2 * seconds / max(1, len(items))
        if self._observe:
            self._observe(batch[0].kind, len(items), seconds)
        at = 0
        for job in batch:
            job.future.set_result(results[at : at + len(job.items)])
            at += len(job.items)
