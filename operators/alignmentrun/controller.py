"""From what the watches tell to what is written: a cache, a queue, and workers that reconcile.

The cache is filled before anything is decided, and takes the answers of our own writes at once, so that nothing is written
twice because a watch lags behind. In one round jobs are made first, then the status says so, then events tell it, then
jobs that the status has given up are deleted: whatever fails half way, the next look goes on from there. When many runs
wait to be looked at, their jobs are made before the first one's status is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping

from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS, Api, ApiError
from operators.alignmentrun.cache import ALONE, Cache, owner_of
from operators.alignmentrun.outcome import Event, Outcome
from operators.alignmentrun.progress import Progress
from operators.alignmentrun.reconcile import reconcile
from operators.alignmentrun.standalone import further_attempt, next_step
from operators.alignmentrun.status import worth_writing
from operators.alignmentrun.tracker import Tracker
from operators.alignmentrun.workqueue import REMEMBERED, WorkQueue
from unified_reward.config import ClusterDefaults
from unified_reward.launch.job_status import has_succeeded
from unified_reward.launch.pods import Resource, name
from unified_reward.launch.pytorchjob import API_VERSION, KIND, MANAGED_BY, MANAGER
from unified_reward.launch.times import rfc3339
from unified_reward.pipeline.resource import ResourceStatus

logger = logging.getLogger("operator")

SELECTOR = f"{MANAGED_BY}={MANAGER}"
WORKERS = 16
PROGRESS_SECONDS = 15.0
SWEEP_SECONDS, FIRST_SWEEP_SECONDS = 600.0, 5.0
RESYNC_SECONDS, RELIST_SECONDS, SETTLED_SECONDS = 300.0, 15.0, 30.0
PAGE_SECONDS = 2.0  # so long a new run waits for its page in MLflow, so that both are told in one write
PERMANENT = range(400, 500)
PASSING = (401, 429)  # of those: a token that was just rotated, a server that asks for patience


class Controller:
    """defaults: read anew for each decision, since an admin may change them. problem: why the last change is not used."""

    def __init__(
        self, api: Api, defaults: Callable[[], ClusterDefaults], problem: Callable[[], str] = lambda: ""
    ) -> None:
        self.api, self.defaults, self.problem = api, defaults, problem
        self.cache = Cache()
        self.ready = False
        self.last_seen = time.time()
        self.child_latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.queue = WorkQueue(self._look, self._wanted, self._name)
        installation = f"{api.namespace}@{api.access.cluster}"
        self.tracker = Tracker(self.cache.runs, defaults, installation, self._page_changed)
        self.progress = Progress(api, self.cache, self.enqueue)
        self._unpaged: set[str] = set()
        self._ended: dict[str, float] = {}
        self._refused: dict[str, dict[str, str]] = defaultdict(dict)
        self._resync_wanted = asyncio.Event()
        self._settled_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    # --- watching

    async def start(self) -> None:
        """Fill the cache, then let the workers begin."""
        await self._list()
        self.ready = True
        self._settled_at = time.monotonic() + SETTLED_SECONDS
        self.tracker.start()
        for key in [*self.cache.runs, *(key for key in self.cache.jobs_of if key.startswith(ALONE))]:
            self._first_look(key)
        self._tasks = [asyncio.create_task(self.queue.work()) for _ in range(WORKERS)]
        self._tasks += [
            asyncio.create_task(self._every(PROGRESS_SECONDS, PROGRESS_SECONDS, self.progress.look)),
            asyncio.create_task(self._every(FIRST_SWEEP_SECONDS, SWEEP_SECONDS, self.tracker.sweep)),
            asyncio.create_task(self._every(0.0, 1.0, self._resync)),
        ]
        logger.info(
            "ready: %d runs, %d jobs, %d pods", len(self.cache.runs), len(self.cache.jobs), len(self.cache.pods)
        )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.tracker.stop()
        await self.api.close()

    def saw_run(self, kind: str | None, run: Resource) -> None:
        self._heard(kind)
        uid = str(run["metadata"]["uid"])
        if kind == "DELETED":
            self._run_gone(uid)
            return
        known = self.cache.runs.get(uid)
        if known is not None and known["metadata"].get("resourceVersion") == run["metadata"].get("resourceVersion"):
            return  # our own write
        self.cache.put_run(run)
        if known is None:
            self._first_look(uid)
        else:
            self.tracker.look(uid)
            self.enqueue(uid)

    def saw_job(self, kind: str | None, job: Resource) -> None:
        self._heard(kind)
        if kind == "DELETED":
            self.cache.drop_job(str(job["metadata"]["uid"]))
            self.enqueue(owner_of(job))
            return
        before = self.cache.jobs.get(str(job["metadata"]["uid"]))
        owner = self.cache.put_job(job)
        new = kind is not None and has_succeeded(job) and not (before and has_succeeded(before))
        if new and owner in self.cache.runs:  # after the end of an app by itself, nothing comes
            self._ended.setdefault(owner, time.monotonic())
        self.enqueue(owner)

    def saw_pod(self, kind: str | None, pod: Resource) -> None:
        self._heard(kind)
        if kind == "DELETED":
            self.enqueue(self.cache.drop_pod(str(pod["metadata"]["uid"])))
        else:
            self.enqueue(self.cache.put_pod(pod))

    def _heard(self, kind: str | None) -> None:
        """A watch that had to list again (kind None) tells nothing of what was deleted in between."""
        self.last_seen = time.time()
        if kind is None and self.ready and time.monotonic() > self._settled_at:
            self._resync_wanted.set()

    def _first_look(self, key: str) -> None:
        """A new run is looked at when MLflow has answered, or has had its time."""
        if key in self.cache.runs:
            new = not (self.cache.runs[key].get("status") or {}).get("phase")
            if self.tracker.look(key) and new:
                self._unpaged.add(key)
                asyncio.get_running_loop().call_later(PAGE_SECONDS, self._page_changed, key)
                return
        self.enqueue(key)

    def _page_changed(self, uid: str) -> None:
        self._unpaged.discard(uid)
        self.enqueue(uid)

    def _run_gone(self, uid: str) -> None:
        gone = self.cache.drop_run(uid)
        if gone is None:
            return
        self._refused.pop(uid, None)
        self._ended.pop(uid, None)
        self._unpaged.discard(uid)
        self.queue.forget(uid)
        self.tracker.forget(gone)

    async def _list(self) -> None:
        """All there is, page by page; what is known and no longer there goes."""
        for table, path, selector, put, drop in (
            ("runs", RUNS, "", self.cache.put_run, self._run_gone),
            ("jobs", JOBS, SELECTOR, self.cache.put_job, self.cache.drop_job),
            ("pods", PODS, SELECTOR, self.cache.put_pod, self.cache.drop_pod),
        ):
            there: set[str] = set()
            listed_at = ""
            async for items, version in self.api.pages(path, selector):
                listed_at = version
                for item in items:
                    there.add(str(item["metadata"]["uid"]))
                    put(item)
            for uid in self.cache.stale(table, there, listed_at):
                drop(uid)

    async def _resync(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._resync_wanted.wait(), RESYNC_SECONDS)
        self._resync_wanted.clear()
        try:
            await self._list()
        except Exception:
            asyncio.get_running_loop().call_later(RELIST_SECONDS, self._resync_wanted.set)
            raise
        for key in [*self.cache.runs, *(key for key in self.cache.jobs_of if key.startswith(ALONE))]:
            self.enqueue(key)

    async def _every(self, first: float, seconds: float, what: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(first)
        while True:
            try:
                await what()
            except ApiError as error:
                self.queue.failures[str(error.status)] += 1
                logger.warning("%s; tried again", error)
            except Exception:
                self.queue.failures["defect"] += 1
                logger.exception("a defect; tried again")
            await asyncio.sleep(seconds)

    # --- whom to look at

    def enqueue(self, key: str) -> None:
        self.queue.add(key)

    def _wanted(self, key: str) -> bool:
        """A run, or an app by itself; once all is known."""
        return self.ready and key not in self._unpaged and (key in self.cache.runs or key.startswith(ALONE))

    def _look(self, key: str) -> Awaitable[bool]:
        return self._look_alone(key) if key.startswith(ALONE) else self._look_at_run(key)

    # --- one run

    async def _look_at_run(self, uid: str) -> bool:
        """False when jobs were made and the rest can wait: the next look finds them, and says the same of them."""
        run = self.cache.runs.get(uid)
        if run is None or run["metadata"].get("deletionTimestamp"):
            return True
        now = time.time()
        outcome = self._outcome(uid, now)
        told = dict(self._refused.get(uid, {}))
        await self._make(uid, outcome)
        if outcome.apply and self.queue.depth and not self.queue.was_deferred(uid) and not self._refused.get(uid):
            return False
        if self._refused.get(uid, {}) != told:
            outcome = self._outcome(uid, now)  # for the status only: what could be made has been
        for job, suspended in outcome.suspend:
            self.cache.put_job(await self.api.merge(JOBS, job, {"spec": {"runPolicy": {"suspend": suspended}}}))
        before = ResourceStatus.model_validate(run.get("status") or {})
        if worth_writing(before, outcome.status, now):
            await self._write_status(uid, outcome.status)
            self.tracker.look(uid)
            for event in outcome.events:
                await self._post(self.cache.runs.get(uid, run), event)
        await self._delete(self.cache.jobs_for(uid), outcome.delete)
        if outcome.gone:
            await self.api.delete(RUNS, name(run), uid)
        if self._refused.get(uid):
            self.queue.later(uid, "refused")
        if outcome.next_look:
            self.queue.at(uid, outcome.next_look)
        return True

    def _outcome(self, uid: str, now: float) -> Outcome:
        offered = self.defaults()
        seen = self.cache.seen(
            uid, installation=self.problem(), progress=self.progress.of_job, refused=self._refused.get(uid, {}),
            tracking=self.tracker.known.get(uid), tracking_error=self.tracker.errors.get(uid),
        )  # fmt: skip
        return reconcile(seen, offered, now)

    async def _make(self, uid: str, outcome: Outcome) -> None:
        """The jobs asked for. What the API server will not take is remembered with its reason, for the status, as long as it is
        asked for: not when the run was cancelled, or has ended."""
        ended = self._ended.pop(uid, None)
        asked = {manifest["metadata"]["name"] for manifest in outcome.apply}
        self._refused[uid] = {job: why for job, why in self._refused[uid].items() if job in asked}
        for manifest in outcome.apply:
            job = manifest["metadata"]["name"]
            try:
                self.cache.put_job(await self._made(manifest))
            except ApiError as error:
                if error.status not in PERMANENT or error.status in PASSING:
                    raise
                self._refused[uid][job] = str(error)[:1000]
                continue
            self._refused[uid].pop(job, None)
            if ended is not None:
                self.child_latencies.append(time.monotonic() - ended)
        if not self._refused[uid]:
            del self._refused[uid]

    async def _made(self, manifest: Mapping[str, object]) -> Resource:
        """The job, also when an earlier call made it and its answer was lost."""
        metadata = dict(manifest["metadata"])  # type: ignore[call-overload]
        try:
            return await self.api.create(JOBS, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        there = await self.api.get(JOBS, metadata["name"])
        wanted = {each["uid"] for each in metadata["ownerReferences"]}
        if wanted <= {each["uid"] for each in there["metadata"].get("ownerReferences", [])}:
            return there
        raise ApiError(409, f"another job has the name {metadata['name']}: of a run deleted just now, or made by hand")

    async def _delete(self, jobs: list[Resource], names: tuple[str, ...]) -> None:
        for job in jobs:
            if name(job) in names and not job["metadata"].get("deletionTimestamp"):
                uid = str(job["metadata"]["uid"])
                await self.api.delete(JOBS, name(job), uid)
                self.cache.going(uid, rfc3339(time.time()))

    async def _write_status(self, uid: str, status: ResourceStatus) -> None:
        run = self.cache.runs[uid]
        document = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "metadata": {"name": name(run), "namespace": run["metadata"]["namespace"], "uid": uid},
            "status": status.document(),
        }
        try:
            written = await self.api.apply(RUNS, document, "status")
        except ApiError as error:
            if error.status not in (404, 409):  # the run is gone, or another of its name is there
                raise
            return
        if uid in self.cache.runs:
            self.cache.put_run(written)

    async def _post(self, about: Resource, event: Event) -> None:
        """One that cannot be told stops nothing."""
        moment = rfc3339(time.time())
        metadata = about["metadata"]
        reference = {
            "apiVersion": about.get("apiVersion", API_VERSION),
            "kind": about.get("kind", KIND),
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        }
        document = {
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "involvedObject": reference,
            "reason": event.reason,
            "message": event.message[:1000],
            "type": "Warning" if event.warning else "Normal",
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": "unified-reward-operator"},
        }
        logger.info("%s: %s", event.reason, event.message, extra={"run": metadata["name"]})
        with contextlib.suppress(ApiError):
            await self.api.create(EVENTS, document)

    # --- one app by itself

    async def _look_alone(self, key: str) -> bool:
        jobs = self.cache.jobs_for(key)
        step = next_step(jobs, {name(job): self.cache.pods_for(name(job)) for job in jobs}, time.time())
        for job, change in step.note:
            with contextlib.suppress(ApiError):  # deleted by now
                self.cache.put_job(await self.api.merge(JOBS, job, change))
        if step.retry is not None:
            first, latest, attempt = step.retry
            whole = await self.api.get(JOBS, name(latest))
            if whole["metadata"]["uid"] == latest["metadata"]["uid"]:
                self.cache.put_job(await self._made(further_attempt(first, whole, attempt, step.failures or {})))
                await self._post(first, Event("Retrying", step.said))
                self.enqueue(key)
        await self._delete(jobs, step.gone)
        if step.next_look:
            self.queue.at(key, step.next_look)
        return True

    def _name(self, key: str) -> str:
        return name(self.cache.runs[key]) if key in self.cache.runs else key
