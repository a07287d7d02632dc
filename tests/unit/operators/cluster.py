"""An operator, its real loop included, on an API server in memory; what tests of the loop say and wait for."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS
from operators.alignmentrun.controller import Controller
from unified_reward.config import ClusterDefaults

from .fakes import FakeApi
from .world import ended, pod_of

AWAY = "http://127.0.0.1:9"  # the discard port: refused at once


class Cluster:
    """An API server, and an operator that may be killed; watches tell what a test tells them."""

    def __init__(self, tracking_uri: str = AWAY) -> None:
        self.api = FakeApi()
        self.defaults = ClusterDefaults(tracking_uri=tracking_uri)
        self.operator = self._new()

    def _new(self) -> Controller:
        return Controller(self.api, lambda: self.defaults)  # type: ignore[arg-type]

    async def restart(self) -> None:
        await self.operator.stop()
        self.operator = self._new()
        await self.operator.start()

    def put_run(self, run: dict[str, Any], kind: str = "MODIFIED") -> None:
        self.operator.saw_run(kind, self.api.put(RUNS, run))

    def end(self, job: str, code: int = 0) -> None:
        found = copy.deepcopy(self.api.objects[JOBS][job])
        pod = ended(pod_of(found, 0, 1_800_000_000.0), code, 1_800_000_001.0)
        self.operator.saw_pod("ADDED", self.api.put(PODS, pod))
        kind = "Failed" if code else "Succeeded"
        found["status"] = {
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
        }
        self.operator.saw_job("MODIFIED", self.api.put(JOBS, found))

    def status(self, name: str = "r") -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[RUNS][name].get("status", {})
        return found

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.of(EVENTS)]


async def until(what: Callable[[], Any]) -> None:
    for _ in range(400):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")


async def rest(cluster: Cluster) -> None:
    """Until nothing has been written for a while."""
    writes = -1
    while writes != cluster.api.writes:
        writes = cluster.api.writes
        await asyncio.sleep(0.15)


def run(test: Callable[[Cluster], Any], cluster: Cluster | None = None) -> None:
    async def whole() -> None:
        one = cluster or Cluster()
        await one.operator.start()
        try:
            await test(one)
        finally:
            await one.operator.stop()

    asyncio.run(whole())
