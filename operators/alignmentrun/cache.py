"""What the watches have told, by UID, with what belongs together: a job by its owner's UID, never by a name.

Only what is looked at is kept: there may be tens of thousands of jobs and pods.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from operators.alignmentrun.outcome import Seen
from unified_reward.launch.pods import Resource, name
from unified_reward.launch.pytorchjob import (
    APP,
    ATTEMPT,
    CONTAINER,
    INDEX_LABEL,
    JOB_LABEL,
    NODE,
    PREFIX,
    QUEUE_LABEL,
    RUN,
)
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import GROUP, KIND, VERSION

ALONE = "app/"  # before the name of an app that no AlignmentRun owns
METADATA = (
    "name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "generation",
)  # fmt: skip
LABELS = (APP, RUN, NODE, ATTEMPT, JOB_LABEL, INDEX_LABEL, QUEUE_LABEL)
CONDITIONS = ("PodScheduled", "DisruptionTarget")


@dataclass
class Cache:
    """Runs, jobs and pods by UID. specs: of the runs, packed: a whole one takes more room than all else of a run."""

    specs: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, Resource] = field(default_factory=dict)
    jobs: dict[str, Resource] = field(default_factory=dict)
    pods: dict[str, Resource] = field(default_factory=dict)
    jobs_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    pods_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    run_named: dict[str, str] = field(default_factory=dict)

    def put_run(self, run: Resource) -> str:
        uid = str(run["metadata"]["uid"])
        if not _older(run, self.runs.get(uid)):
            self.runs[uid] = slim_run(run)
            self.specs[uid] = json.dumps(run.get("spec") or {}, separators=(",", ":")).encode()
            self.run_named[name(run)] = uid
        return uid

    def put_job(self, job: Resource) -> str:
        """Returns whose it is: the UID of a run, or an app by itself."""
        uid, owner = str(job["metadata"]["uid"]), owner_of(job)
        if not _older(job, self.jobs.get(uid)):
            self.jobs[uid] = slim_job(job)
            self.jobs_of[owner].add(uid)
        return owner

    def put_pod(self, pod: Resource) -> str:
        """Returns whose it is, as far as that is known."""
        uid = str(pod["metadata"]["uid"])
        if not _older(pod, self.pods.get(uid)):
            self.pods[uid] = slim_pod(pod)
            self.pods_of[_label(pod, JOB_LABEL)].add(uid)
        return self.owner_of_pod(pod)

    def owner_of_pod(self, pod: Resource) -> str:
        app = ALONE + _label(pod, APP)
        return app if app in self.jobs_of else self.run_named.get(_label(pod, RUN), "")

    def drop_run(self, uid: str) -> Resource | None:
        gone = self.runs.pop(uid, None)
        self.specs.pop(uid, None)
        if gone is not None and self.run_named.get(name(gone)) == uid:
            del self.run_named[name(gone)]
        return gone

    def drop_job(self, uid: str) -> str:
        gone = self.jobs.pop(uid, None)
        return "" if gone is None else _unlink(self.jobs_of, owner_of(gone), uid)

    def drop_pod(self, uid: str) -> str:
        gone = self.pods.pop(uid, None)
        if gone is None:
            return ""
        _unlink(self.pods_of, _label(gone, JOB_LABEL), uid)
        return self.owner_of_pod(gone)

    def going(self, uid: str, when: str) -> None:
        """A job whose deletion was taken, before the watch tells of it."""
        if uid in self.jobs:
            job = self.jobs[uid]
            self.jobs[uid] = {**job, "metadata": {**job["metadata"], "deletionTimestamp": when}}

    def jobs_for(self, owner: str) -> list[Resource]:
        return [self.jobs[each] for each in self.jobs_of.get(owner, ())]

    def pods_for(self, job: str) -> list[Resource]:
        """By the job's name."""
        return [self.pods[each] for each in self.pods_of.get(job, ())]

    def seen(self, uid: str, **more: Any) -> Seen:
        """Of a run."""
        jobs = self.jobs_for(uid)
        records = (self.runs[uid].get("status") or {}).get("stages", [])
        running = {record["job"] for record in records if record.get("state") == State.RUNNING and record.get("job")}
        names = {name(job) for job in jobs} | running
        run = {**self.runs[uid], "spec": json.loads(self.specs[uid])}
        return Seen(run, jobs, {each: self.pods_for(each) for each in names}, **more)

    def stale(self, table: str, there: Iterable[str], version: str) -> list[str]:
        """UIDs that a list of this version does not have any more."""
        known: dict[str, Resource] = getattr(self, table)
        kept = set(there)
        listed: Resource = {"metadata": {"resourceVersion": version}}
        return [uid for uid, one in known.items() if uid not in kept and not _older(listed, one)]


def owner_of(job: Resource) -> str:
    for each in job["metadata"].get("ownerReferences", []):
        if each.get("kind") == KIND:
            return str(each["uid"])
    return ALONE + (_label(job, APP) or name(job))


def slim_run(run: Resource) -> Resource:
    """Of the spec, what is asked of all runs at once."""
    spec = {key: value for key, value in (run.get("spec") or {}).items() if key == "tracking"}
    typed = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}
    return {**typed, "metadata": _metadata(run), "spec": spec, "status": run.get("status") or {}}


def slim_job(job: Resource) -> Resource:
    """spec.nodes, spec.elastic: read from the whole one."""
    spec, status = job["spec"], job.get("status") or {}
    nodes = sum(int(each.get("replicas") or 1) for each in (spec.get("pytorchReplicaSpecs") or {}).values())
    conditions = [
        {key: each.get(key) for key in ("type", "status", "lastTransitionTime")}
        for each in status.get("conditions") or []
    ]
    times = {key: status[key] for key in ("startTime", "completionTime") if status.get(key)}
    return {
        "metadata": _metadata(job),
        "spec": {
            "runPolicy": {"suspend": bool((spec.get("runPolicy") or {}).get("suspend"))},
            "nodes": nodes,
            "elastic": bool(spec.get("elasticPolicy")),
        },
        "status": {"conditions": conditions, **times},
    }


def slim_pod(pod: Resource) -> Resource:
    status = pod.get("status") or {}
    containers = pod["spec"].get("containers") or [{}]
    container = next((each for each in containers if each.get("name") == CONTAINER), containers[0])
    kept = {key: status[key] for key in ("phase", "reason", "message") if status.get(key)}
    states = status.get("containerStatuses") or []
    if states:
        kept["containerStatuses"] = [{"name": each.get("name"), "state": each.get("state") or {}} for each in states]
    kept["conditions"] = [
        {key: each.get(key, "") for key in ("type", "status", "reason", "message")}
        for each in status.get("conditions") or []
        if each["type"] in CONDITIONS
    ]
    limits = {"limits": (container.get("resources") or {}).get("limits") or {}}
    metadata = {key: value for key, value in _metadata(pod).items() if key not in ("ownerReferences", "annotations")}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"image": container.get("image"), "resources": limits}]},
        "status": kept,
    }


def _metadata(resource: Resource) -> dict[str, Any]:
    metadata = resource["metadata"]
    kept = {key: metadata[key] for key in (*METADATA, "ownerReferences") if key in metadata}
    kept["labels"] = {key: text for key, text in (metadata.get("labels") or {}).items() if key in LABELS}
    kept["annotations"] = {
        key: text for key, text in (metadata.get("annotations") or {}).items() if key.startswith(PREFIX)
    }
    return kept


def _label(resource: Resource, key: str) -> str:
    return str((resource["metadata"].get("labels") or {}).get(key, ""))


def _unlink(index: dict[str, set[str]], key: str, uid: str) -> str:
    index[key].discard(uid)
    if not index[key]:
        del index[key]
    return key


def _older(new: Resource, known: Resource | None) -> bool:
    """A watch may tell of what our own write has replaced already."""
    if known is None:
        return False
    with contextlib.suppress(KeyError, ValueError):
        return int(new["metadata"]["resourceVersion"]) < int(known["metadata"]["resourceVersion"])
    return False
