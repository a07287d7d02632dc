"""Whom to look at next: each once, however often it is asked for, by one worker at a time, again when its time comes, and after a
growing pause where a look failed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from operators.alignmentrun.api import ApiError

logger = logging.getLogger("operator")

DEFERRED_SECONDS = 5.0  # what only has to be told goes behind what has waited for less than so long
LONGEST_PAUSE_SECONDS = 60.0
REMEMBERED = 10000


class WorkQueue:
    """look: called with a key; False when the rest of it can wait behind the others. wanted: whether a key is to be looked at at
    all; named: what a person calls it.

    latencies: seconds from the first asking to the end of a look. failures: looks that failed, by reason. done: that did not.
    """

    def __init__(
        self, look: Callable[[str], Awaitable[bool]], wanted: Callable[[str], bool], named: Callable[[str], str]
    ) -> None:
        self.look, self.wanted, self.named = look, wanted, named
        self.latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.failures: Counter[str] = Counter()
        self.done = 0
        self._queue: asyncio.PriorityQueue[tuple[float, str]] = asyncio.PriorityQueue()  # when due, whom
        self._since: dict[str, float] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._deferred: set[str] = set()
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._pauses: Counter[str] = Counter()

    @property
    def depth(self) -> int:
        return self._queue.qsize()

    def was_deferred(self, key: str) -> bool:
        """Whether the look before this one left what could wait."""
        return key in self._deferred

    def add(self, key: str) -> None:
        if not self.wanted(key):
            return
        if key in self._busy:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            self._queue.put_nowait((self._since[key], key))

    def at(self, key: str, when: float) -> None:
        """when: seconds since the epoch. The earliest of what is asked for counts: a look asks for the next one itself."""
        known = self._timers.get(key)
        if known is not None and known[0] <= when:
            return
        self._cancel_timer(key)
        delay = max(0.05, when - time.time())
        self._timers[key] = (when, asyncio.get_running_loop().call_later(delay, self._fire, key))

    def later(self, key: str, reason: str) -> None:
        """A look did not come to its end, and why."""
        self.failures[reason] += 1
        if not self.wanted(key):  # it has gone meanwhile
            return
        self._pauses[key] += 1
        self.at(key, time.time() + min(2.0 ** min(self._pauses[key], 10) / 2, LONGEST_PAUSE_SECONDS))

    def forget(self, key: str) -> None:
        self._pauses.pop(key, None)
        self._deferred.discard(key)
        self._cancel_timer(key)

    async def work(self) -> None:
        """For ever; several may."""
        while True:
            _, key = await self._queue.get()
            began = self._since.pop(key)
            self._busy.add(key)
            try:
                await self._look_at(key, began)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _look_at(self, key: str, began: float) -> None:
        pauses = self._pauses[key]
        try:
            if not await self.look(key):
                self._deferred.add(key)
                self._since[key] = began
                self._queue.put_nowait((time.monotonic() + DEFERRED_SECONDS, key))
                return
        except ApiError as error:
            self.later(key, str(error.status))
            logger.warning("%s; tried again", error, extra={"run": self.named(key)})
            return
        except Exception:
            self.later(key, "defect")
            logger.exception("a defect; tried again", extra={"run": self.named(key)})
            return
        self._deferred.discard(key)
        self.latencies.append(time.monotonic() - began)
        self.done += 1
        if self._pauses[key] == pauses:  # the look itself asked for none
            del self._pauses[key]

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: str) -> None:
        if known := self._timers.pop(key, None):
            known[1].cancel()
