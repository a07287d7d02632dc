"""How far running stages are: what the first process of each said last, from its log."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable

from operators.alignmentrun.api import Api
from operators.alignmentrun.cache import Cache
from unified_reward.launch.pods import name, node_index, phase
from unified_reward.launch.times import rfc3339
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import StageProgress

LINES, AT_ONCE = 40, 8
LINE = re.compile(r"^(?:\[\d+\] )?progress (\d+)/(\d+) (\S+?),?(?: (\d+) s left)?(?:: (.*))?$")


class Progress:
    """of_job: by job name. changed: called with the UID of a run of which there is something new."""

    def __init__(self, api: Api, cache: Cache, changed: Callable[[str], None]) -> None:
        self.api, self.cache, self.changed = api, cache, changed
        self.of_job: dict[str, StageProgress] = {}

    async def look(self) -> None:
        """At all jobs that run, a few at a time."""
        running = list(self._running())
        for job in set(self.of_job) - {job for _, job in running}:
            del self.of_job[job]
        few = asyncio.Semaphore(AT_ONCE)

        async def one(uid: str, job: str) -> None:
            async with few:
                await self._look_at(uid, job)

        await asyncio.gather(*(one(uid, job) for uid, job in running))

    async def _look_at(self, uid: str, job: str) -> None:
        pods = self.cache.pods_for(job)
        pod = next((p for p in pods if node_index(p) == 0 and phase(p) == "Running"), None)
        if pod is None:
            return
        found = last_progress(await self.api.log_tail(name(pod), LINES), time.time())
        if found is not None and found.text != getattr(self.of_job.get(job), "text", None):
            self.of_job[job] = found
            self.changed(uid)

    def _running(self) -> Iterable[tuple[str, str]]:
        for uid, run in self.cache.runs.items():
            for record in (run.get("status") or {}).get("stages", []):
                if record.get("state") == State.RUNNING and record.get("job"):
                    yield uid, record["job"]


def last_progress(log: str, now: float) -> StageProgress | None:
    """From the last line that tells of it; None when none does."""
    for line in reversed(log.splitlines()):
        if found := LINE.match(line):
            done, total, unit, left, note = found.groups()
            percent = min(100, 100 * int(done) // max(1, int(total)))
            text = f"{done}/{total} {unit}" + (f": {note}" if note else "")
            return StageProgress(
                percent=percent, text=text[:1024], seconds_left=int(left) if left else -1, updated=rfc3339(now)
            )
    return None
