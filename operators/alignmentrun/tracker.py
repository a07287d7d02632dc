"""The runs' pages in MLflow, brought to where the runs are; beside the queue of runs, since MLflow may be slow or away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from operators.alignmentrun.jobs import parent_key
from operators.alignmentrun.mlflow import AWAY_SECONDS, Mlflow, UnavailableError
from unified_reward.config import ClusterDefaults
from unified_reward.launch.pods import Resource, name
from unified_reward.pipeline.resource import ConditionType, Phase, ResourceStatus, Tracking

logger = logging.getLogger("operator")

WORKERS = 8
EXPERIMENT = "unified-reward"
STATES = {Phase.SUCCEEDED: "FINISHED", Phase.FAILED: "FAILED", Phase.CANCELLED: "KILLED"}


class Tracker:
    """known, errors: by the run's UID; an error of "" says that MLflow answered. changed: called with the UID of a run of
    which there is something new."""

    def __init__(
        self, runs: Mapping[str, Resource], defaults: Callable[[], ClusterDefaults], installation: str,
        changed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.runs, self.defaults, self.installation, self.changed = runs, defaults, installation, changed
        self.known: dict[str, Tracking] = {}
        self.errors: dict[str, str] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._servers: dict[str, Mlflow] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        for _ in range(WORKERS):
            self._spawn(self._work())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.stop()

    def look(self, uid: str) -> bool:
        """Have the page of a run brought up to date; whether there is anything to do."""
        run = self.runs.get(uid)
        if run is None or wanted(run, self.known.get(uid), self.errors.get(uid)) is None:
            return False
        if uid not in self._waiting:
            self._waiting.add(uid)
            self._queue.put_nowait(uid)
        return True

    def forget(self, run: Resource) -> None:
        """Of a deleted resource: what was open is closed. Where MLflow is away, the sweep finds it later."""
        uid = str(run["metadata"]["uid"])
        known = self.known.pop(uid, None) or ResourceStatus.model_validate(run.get("status") or {}).tracking
        self.errors.pop(uid, None)
        if known is not None and known.state == "RUNNING":
            self._spawn(self._kill(run, known))

    async def sweep(self) -> None:
        """Close what belongs to resources that are no more; deleted, perhaps, while no operator was there: on the
        installation's server, and on those that a run names, or has named since the operator began."""
        named = {*(_place(run)[0] for run in self.runs.values()), *self._servers}
        for uri in {"", *named} - {self.defaults().tracking_uri}:
            server = self._server(uri)
            with contextlib.suppress(UnavailableError):
                for uid, tracking in await server.open_parents():
                    if uid not in self.runs:
                        await server.close(tracking, "KILLED")

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            self._waiting.discard(uid)
            if uid not in self.runs:
                continue
            run, before = self.runs[uid], (self.known.get(uid), self.errors.get(uid))
            try:
                await self._bring(uid, run)
                self.errors[uid] = ""
            except UnavailableError as error:
                self.errors[uid] = str(error)[:1000]
                asyncio.get_running_loop().call_later(AWAY_SECONDS + 0.5, self.look, uid)
            except Exception:
                logger.exception("the page of a run: a defect", extra={"run": name(run)})
                asyncio.get_running_loop().call_later(AWAY_SECONDS, self.look, uid)
            if (self.known.get(uid), self.errors.get(uid)) != before:
                self.changed(uid)

    async def _bring(self, uid: str, run: Resource) -> None:
        state = wanted(run, self.known.get(uid), self.errors.get(uid))
        if state is None:
            return
        uri, experiment = _place(run)
        server = self._server(uri)
        known = self.known.get(uid) or ResourceStatus.model_validate(run.get("status") or {}).tracking
        if known is None or (state == "RUNNING" and known.state != "RUNNING"):
            known = await server.open_parent(experiment, parent_key(run), name(run), uid)
        if state != known.state:
            known = await server.close(known, state)
        self.known[uid] = known

    async def _kill(self, run: Resource, known: Tracking) -> None:
        with contextlib.suppress(UnavailableError):
            await self._server(_place(run)[0]).close(known, "KILLED")

    def _server(self, uri: str) -> Mlflow:
        uri = uri or self.defaults().tracking_uri
        if uri not in self._servers:
            self._servers[uri] = Mlflow(uri, self.installation)
        return self._servers[uri]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def wanted(run: Resource, known: Tracking | None, error: str | None) -> str | None:
    """The state that MLflow should have of a run; None where it has it, and the status says so."""
    status = ResourceStatus.model_validate(run.get("status") or {})
    known = known or status.tracking
    state = STATES.get(status.phase, "RUNNING")
    if known is None:
        return None if status.phase.terminal and status.reason == "InvalidSpec" else state
    ready = status.condition(ConditionType.TRACKING)
    told = error == "" or (ready is not None and ready.status == "True")
    return None if known.state == state and told else state


def _place(run: Resource) -> tuple[str, str]:
    """Tracking URI, "" for the installation's, and experiment."""
    tracking = (run.get("spec") or {}).get("tracking") or {}
    return str(tracking.get("uri") or ""), str(tracking.get("experiment") or EXPERIMENT)
