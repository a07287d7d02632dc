"""From what the watches tell to what is written: a cache, a queue without doubles, and workers that reconcile.

The cache is filled before anything is decided, and takes the answers of our own writes at once, so that nothing is written
twice because a watch lags behind. Children are found by their owner's UID, never by a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS, Api, ApiError
from operators.alignmentrun.mlflow import Mlflow, UnavailableError
from operators.alignmentrun.observe import Resource, name, phase
from operators.alignmentrun.reconcile import Outcome, Seen, parent_key, reconcile, worth_writing
from unified_reward.config import ClusterDefaults
from unified_reward.launch.pytorchjob import JOB_LABEL, MANAGED_BY, MANAGER
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import ConditionType, Phase, ResourceStatus, StageProgress, Tracking

logger = logging.getLogger("operator")

SELECTOR = f"{MANAGED_BY}={MANAGER}"
WORKERS = 8
PROGRESS_SECONDS = 15.0
TRACKING_RETRY_SECONDS = 20.0
SWEEP_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 60.0
PROGRESS_LINE = re.compile(r"^(?:\[\d+\] )?progress (\d+)/(\d+) (\S+?),?(?: (\d+) s left)?(?:: (.*))?$")
TRACKING_STATES = {Phase.SUCCEEDED: "FINISHED", Phase.FAILED: "FAILED", Phase.CANCELLED: "KILLED"}


@dataclass
class Cache:
    """Objects by UID, and what belongs together."""

    runs: dict[str, Resource] = field(default_factory=dict)
    jobs: dict[str, Resource] = field(default_factory=dict)
    pods: dict[str, Resource] = field(default_factory=dict)
    jobs_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    pods_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def put_run(self, run: Resource) -> str:
        uid = str(run["metadata"]["uid"])
        if not _older(run, self.runs.get(uid)):
            self.runs[uid] = run
        return uid

    def put_job(self, job: Resource) -> str:
        """Returns the owner's UID, "" for a job of nobody."""
        uid, owner = str(job["metadata"]["uid"]), _owner(job)
        if not _older(job, self.jobs.get(uid)):
            self.jobs[uid] = job
            self.jobs_of[owner].add(uid)
        return owner

    def put_pod(self, pod: Resource) -> str:
        """Returns the UID of the run it belongs to, "" when its job is not known."""
        uid = str(pod["metadata"]["uid"])
        if not _older(pod, self.pods.get(uid)):
            self.pods[uid] = pod
            self.pods_of[_job(pod)].add(uid)
        return self.run_of(pod)

    def run_of(self, pod: Resource) -> str:
        wanted = str(pod["metadata"].get("labels", {}).get("unifiedreward.dev/run", ""))
        return next((uid for uid, run in self.runs.items() if name(run) == wanted), "")

    def drop(self, table: str, uid: str) -> None:
        gone = getattr(self, table).pop(uid, None)
        index = {"jobs": self.jobs_of, "pods": self.pods_of}.get(table)
        if gone is not None and index is not None:
            key = _owner(gone) if table == "jobs" else _job(gone)
            index[key].discard(uid)
            if not index[key]:
                del index[key]

    def seen(self, uid: str) -> Seen:
        jobs = [self.jobs[each] for each in self.jobs_of.get(uid, ())]
        records = ResourceStatus.model_validate(self.runs[uid].get("status") or {}).stages
        names = {name(job) for job in jobs} | {record.job for record in records if record.state is State.RUNNING}
        pods = {each: [self.pods[pod] for pod in self.pods_of.get(each, ())] for each in names}
        return Seen(self.runs[uid], jobs, pods)


class Controller:
    """defaults: read anew for each decision, since an admin may change them."""

    def __init__(self, api: Api, defaults: Callable[[], ClusterDefaults]) -> None:
        self.api, self.defaults = api, defaults
        self.cache = Cache()
        self.ready = False
        self.last_seen = time.time()
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()
        self.reconciled = 0
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._since: dict[str, float] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pauses: Counter[str] = Counter()
        self._progress: dict[str, StageProgress] = {}
        self._servers: dict[str, Mlflow] = {}
        self._tracking: dict[str, Tracking] = {}
        self._tracking_errors: dict[str, str] = {}
        self._next_tracking: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # --- watching

    async def start(self) -> None:
        """Fill the cache, then let the workers begin."""
        for run in await self.api.list(RUNS):
            self.cache.put_run(_typed(run, "unifiedreward.dev/v1alpha1", "AlignmentRun"))
        for job in await self.api.list(JOBS, SELECTOR):
            self.cache.put_job(job)
        for pod in await self.api.list(PODS, SELECTOR):
            self.cache.put_pod(_slim(pod))
        self.ready = True
        for uid in self.cache.runs:
            self.enqueue(uid)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        self._tasks += [asyncio.create_task(self._watch_progress()), asyncio.create_task(self._sweep())]
        logger.info(
            "ready: %d runs, %d jobs, %d pods", len(self.cache.runs), len(self.cache.jobs), len(self.cache.pods)
        )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.stop()
        await self.api.close()

    def saw_run(self, kind: str | None, run: Resource) -> None:
        self.last_seen = time.time()
        uid = str(run["metadata"]["uid"])
        if kind == "DELETED":
            gone = self.cache.runs.get(uid)
            self.cache.drop("runs", uid)
            if gone is not None:
                self._tasks.append(asyncio.create_task(self._close_deleted(gone)))
            return
        if (
            self.cache.runs.get(uid, {}).get("metadata", {}).get("resourceVersion")
            == run["metadata"]["resourceVersion"]
        ):
            return  # our own write
        self.cache.put_run(run)
        self.enqueue(uid)

    def saw_job(self, kind: str | None, job: Resource) -> None:
        self.last_seen = time.time()
        if kind == "DELETED":
            self.cache.drop("jobs", str(job["metadata"]["uid"]))
            self.enqueue(_owner(job))
            return
        self.enqueue(self.cache.put_job(job))

    def saw_pod(self, kind: str | None, pod: Resource) -> None:
        self.last_seen = time.time()
        if kind == "DELETED":
            self.cache.drop("pods", str(pod["metadata"]["uid"]))
            self.enqueue(self.cache.run_of(pod))
            return
        self.enqueue(self.cache.put_pod(_slim(pod)))

    # --- the queue

    def enqueue(self, uid: str) -> None:
        """Look at a run, once, however often it is asked for."""
        if not self.ready or uid not in self.cache.runs:
            return
        if uid in self._busy:
            self._again.add(uid)
        elif uid not in self._since:
            self._since[uid] = time.monotonic()
            self._queue.put_nowait(uid)

    @property
    def depth(self) -> int:
        return self._queue.qsize()

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            began = self._since.pop(uid)
            self._busy.add(uid)
            try:
                await self._reconcile(uid)
                self.latencies.append(time.monotonic() - began)
                del self.latencies[:-10000]
                self._pauses.pop(uid, None)
            except ApiError as error:
                self._later_after(uid, str(error.status))
                logger.warning("run %s: %s; tried again", self._name(uid), error)
            except Exception:
                self._later_after(uid, "defect")
                logger.exception("run %s: a defect; tried again", self._name(uid))
            finally:
                self._busy.discard(uid)
                if uid in self._again:
                    self._again.discard(uid)
                    self.enqueue(uid)

    def _later_after(self, uid: str, reason: str) -> None:
        self.failures[reason] += 1
        self._pauses[uid] += 1
        self._at(uid, time.time() + min(2.0 ** self._pauses[uid] / 2, LONGEST_PAUSE_SECONDS))

    def _at(self, uid: str, when: float) -> None:
        if old := self._timers.pop(uid, None):
            old.cancel()
        delay = max(0.05, when - time.time())
        self._timers[uid] = asyncio.get_running_loop().call_later(delay, self.enqueue, uid)

    # --- one run

    async def _reconcile(self, uid: str) -> None:
        if uid not in self.cache.runs:
            return
        run = self.cache.runs[uid]
        if run["metadata"].get("deletionTimestamp"):
            return
        await self._track(uid, run)
        seen = self.cache.seen(uid)
        seen = Seen(
            seen.run, seen.jobs, seen.pods, self._progress, self._tracking.get(uid), self._tracking_errors.get(uid, "")
        )
        now = time.time()
        outcome = reconcile(seen, self.defaults(), now)
        await self._write(uid, outcome)
        before = ResourceStatus.model_validate(run.get("status") or {})
        if worth_writing(before, outcome.status, now):
            await self._write_status(uid, outcome.status)
        self.reconciled += 1
        await self._after(uid, outcome)

    async def _write(self, uid: str, outcome: Outcome) -> None:
        for job in outcome.delete:
            await self.api.delete(JOBS, job)
        for job, suspended in outcome.suspend:
            self.cache.put_job(await self.api.merge(JOBS, job, {"spec": {"runPolicy": {"suspend": suspended}}}))
        for manifest in outcome.apply:
            self.cache.put_job(await self.api.apply(JOBS, manifest))
        for event in outcome.events:
            await self._post(uid, event.reason, event.message, event.warning)

    async def _write_status(self, uid: str, status: ResourceStatus) -> None:
        run = self.cache.runs[uid]
        metadata = {"name": name(run), "namespace": run["metadata"]["namespace"], "uid": uid}
        document = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "metadata": metadata,
            "status": status.document(),
        }
        try:
            self.cache.put_run(await self.api.apply(RUNS, document, "status"))
        except ApiError as error:
            if error.status not in (404, 409):  # the run is gone, or another of its name is there
                raise

    async def _after(self, uid: str, outcome: Outcome) -> None:
        if outcome.gone:
            await self.api.delete(RUNS, name(self.cache.runs[uid]))
        times = [each for each in (outcome.next_look, self._next_tracking.get(uid)) if each]
        if times:
            self._at(uid, min(times))

    async def _post(self, uid: str, reason: str, message: str, warning: bool) -> None:
        """An event is told once; one that cannot be told stops nothing."""
        run = self.cache.runs[uid]
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        reference = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "name": name(run),
            "uid": uid,
            "namespace": run["metadata"]["namespace"],
        }
        event = {
            "metadata": {"generateName": f"{name(run)}.", "namespace": run["metadata"]["namespace"]},
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": "unified-reward-operator"},
        }
        with contextlib.suppress(ApiError):
            await self.api.create(EVENTS, event)
        logger.info("%s: %s", reason, message, extra={"run": name(run)})

    # --- MLflow

    async def _track(self, uid: str, run: Resource) -> None:
        """Bring the run's page in MLflow to where the run is. MLflow that is away is asked again later."""
        status = ResourceStatus.model_validate(run.get("status") or {})
        known = self._tracking.get(uid) or status.tracking
        wanted = TRACKING_STATES.get(status.phase, "RUNNING")
        ready = status.condition(ConditionType.TRACKING)
        if known is not None and known.state == wanted:
            if ready is not None and ready.status != "True":
                self._tracking_errors[uid] = ""
            return
        if known is None and status.phase.terminal:
            return
        if time.time() < self._next_tracking.get(uid, 0.0):
            return
        spec = run.get("spec") or {}
        try:
            server = self._server(spec)
            if known is None or (wanted == "RUNNING"):
                experiment = spec.get("tracking", {}).get("experiment") or "unified-reward"
                self._tracking[uid] = await server.open_parent(experiment, parent_key(run), name(run), uid)
            else:
                self._tracking[uid] = await server.close(known, wanted)
            self._tracking_errors[uid] = ""
            self._next_tracking.pop(uid, None)
        except UnavailableError as error:
            self._tracking_errors[uid] = str(error)[:1000]
            self._next_tracking[uid] = time.time() + TRACKING_RETRY_SECONDS
            self._at(uid, self._next_tracking[uid])

    async def _close_deleted(self, run: Resource) -> None:
        """The page of a run that was deleted under way. Where MLflow is away, the sweep finds it later."""
        uid = str(run["metadata"]["uid"])
        known = self._tracking.pop(uid, None) or ResourceStatus.model_validate(run.get("status") or {}).tracking
        self._tracking_errors.pop(uid, None)
        self._next_tracking.pop(uid, None)
        if known is not None and known.state == "RUNNING":
            with contextlib.suppress(UnavailableError):
                await self._server(run.get("spec") or {}).close(known, "KILLED")

    async def _sweep(self) -> None:
        """Close what belongs to resources that are no more; deleted, perhaps, while no operator was there."""
        while True:
            await asyncio.sleep(5.0)
            experiments = {"unified-reward"} | {
                (run.get("spec") or {}).get("tracking", {}).get("experiment") or "unified-reward"
                for run in self.cache.runs.values()
            }
            for experiment in experiments:
                with contextlib.suppress(UnavailableError):
                    server = self._server({})
                    for uid, tracking in await server.open_parents(experiment):
                        if uid not in self.cache.runs:
                            await server.close(tracking, "KILLED")
            await asyncio.sleep(SWEEP_SECONDS)

    def _server(self, spec: Any) -> Mlflow:
        uri = spec.get("tracking", {}).get("uri") or self.defaults().tracking_uri
        return self._servers.setdefault(uri, Mlflow(uri))

    # --- progress

    async def _watch_progress(self) -> None:
        """What the first process of each running stage said last, from its log."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            for uid, job in list(self._running_jobs()):
                pod = next((p for p in self._pods(job) if _index(p) == "0" and phase(p) == "Running"), None)
                if pod is None:
                    continue
                found = last_progress(await self.api.log_tail(name(pod), 40), time.time())
                if found is not None and found.text != getattr(self._progress.get(job), "text", None):
                    self._progress[job] = found
                    self.enqueue(uid)
            alive = {job for _, job in self._running_jobs()}
            for job in [each for each in self._progress if each not in alive]:
                del self._progress[job]

    def _running_jobs(self) -> Iterable[tuple[str, str]]:
        for uid, run in self.cache.runs.items():
            for record in (run.get("status") or {}).get("stages", []):
                if record.get("state") == State.RUNNING and record.get("job"):
                    yield uid, record["job"]

    def _pods(self, job: str) -> list[Resource]:
        return [self.cache.pods[uid] for uid in self.cache.pods_of.get(job, ())]

    def _name(self, uid: str) -> str:
        return name(self.cache.runs[uid]) if uid in self.cache.runs else uid


def last_progress(log: str, now: float) -> StageProgress | None:
    """From the last line that tells of it; None when none does."""
    for line in reversed(log.splitlines()):
        if found := PROGRESS_LINE.match(line):
            done, total, unit, left, note = found.groups()
            percent = min(100, 100 * int(done) // max(1, int(total)))
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
            text = f"{done}/{total} {unit}" + (f": {note}" if note else "")
            return StageProgress(
                percent=percent, text=text[:1024], seconds_left=int(left) if left else -1, updated=moment
            )
    return None


def _older(new: Resource, known: Resource | None) -> bool:
    """A watch may tell of what our own write has replaced already."""
    if known is None:
        return False
    with contextlib.suppress(KeyError, ValueError):
        return int(new["metadata"]["resourceVersion"]) < int(known["metadata"]["resourceVersion"])
    return False


def _owner(job: Resource) -> str:
    return next(
        (str(each["uid"]) for each in job["metadata"].get("ownerReferences", []) if each.get("kind") == "AlignmentRun"),
        "",
    )


def _job(pod: Resource) -> str:
    return str(pod["metadata"].get("labels", {}).get(JOB_LABEL, ""))


def _index(pod: Resource) -> str:
    return str(pod["metadata"].get("labels", {}).get("training.kubeflow.org/replica-index", ""))


def _typed(item: dict[str, Any], api_version: str, kind: str) -> dict[str, Any]:
    """Items of a list carry no type of their own."""
    return {"apiVersion": api_version, "kind": kind, **item}


def _slim(pod: Resource) -> Resource:
    """What is looked at of a pod; thousands of them are kept."""
    metadata = pod["metadata"]
    container = pod["spec"]["containers"][0]
    return {
        "metadata": {
            key: metadata[key]
            for key in ("name", "uid", "labels", "creationTimestamp", "deletionTimestamp", "resourceVersion")
            if key in metadata
        },
        "spec": {"containers": [{"image": container.get("image"), "resources": container.get("resources", {})}]},
        "status": {
            key: pod.get("status", {}).get(key)
            for key in ("phase", "reason", "message", "conditions", "containerStatuses")
            if pod.get("status", {}).get(key)
        },
    }
