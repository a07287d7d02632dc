"""What the cluster has of an app: the job that was submitted, its later attempts, their pods, and what they wait for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torchx.specs import AppState, is_terminal

from unified_reward.launch.job_status import (
    JobState,
    annotation,
    attempt_of,
    has_ended,
    is_suspended,
    job_state,
    queue_of,
)
from unified_reward.launch.kube import Kube, core_path, jobs_path, workloads_path
from unified_reward.launch.pods import Resource, name, node_index
from unified_reward.launch.pytorchjob import APP, JOB_LABEL, MANAGED_BY, MANAGER
from unified_reward.launch.retries import LOST, settled

OURS = f"{MANAGED_BY}={MANAGER}"
ASKED = 8  # of a large job so many are asked what they wait for; the others mostly wait for the same


def all_apps(cluster: Kube) -> list[tuple[Resource, list[Resource]]]:
    """Of the namespace, the newest first: the latest attempt of each app, and its pods."""
    pods_of: dict[str, list[Resource]] = {}
    for pod in cluster.objects(core_path(cluster.namespace, "pods"), labels=OURS):
        pods_of.setdefault(pod["metadata"]["labels"].get(JOB_LABEL, ""), []).append(pod)
    jobs = sorted(cluster.objects(jobs_path(cluster.namespace), labels=OURS), key=attempt_of)
    latest_of = {app_of(job): job for job in jobs}
    newest = sorted(latest_of.values(), key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)
    return [(job, pods_of.get(name(job), [])) for job in newest]


def app_of(job: Resource) -> str:
    return str((job["metadata"].get("labels") or {}).get(APP) or name(job))


def attempts(cluster: Kube, namespace: str, app: str) -> list[Resource]:
    """All jobs of an app, the first attempt first; also a job that somebody else submitted, by its name."""
    jobs = cluster.objects(jobs_path(namespace), labels=f"{APP}={app},{OURS}")
    if not jobs:
        found = cluster.get(jobs_path(namespace, app))
        jobs = [found] if found else []
    return sorted(jobs, key=attempt_of)


def latest(cluster: Kube, namespace: str, app: str) -> Resource | None:
    jobs = attempts(cluster, namespace, app)
    return jobs[-1] if jobs else None


def state_of(cluster: Kube, job: Resource) -> JobState:
    """With pods, and with events and Kueue's view only when something waits."""
    namespace = job["metadata"]["namespace"]
    pods = cluster.objects(core_path(namespace, "pods"), labels=f"{JOB_LABEL}={name(job)}")
    state = settled(job_state(job, pods), job, pods, time.time())
    if is_terminal(state.state) or has_ended(job) or annotation(job, LOST):
        return state
    if is_suspended(job):
        return job_state(job, pods, (), workload_of(cluster, job))
    events = [
        event for one in _unexplained(job, pods, state)[:ASKED]
        for event in cluster.objects(core_path(namespace, "events"), fields=f"involvedObject.name={one},type=Warning")
    ]  # fmt: skip
    return job_state(job, pods, events) if events else state


def _unexplained(job: Resource, pods: Sequence[Resource], state: JobState) -> list[str]:
    """Names of what does not run and does not say why itself: pods, and the job where it lacks some."""
    silent = {one.index for one in state.replicas if one.state is AppState.PENDING and not one.message}
    lacking = len({node_index(pod) for pod in pods}) < len(state.replicas)
    return [*([name(job)] if lacking else []), *(name(pod) for pod in pods if node_index(pod) in silent)]


def workload_of(cluster: Kube, job: Resource) -> Resource | None:
    """Kueue's Workload of a job; None where there is no Kueue or it does not manage the job."""
    if not queue_of(job):
        return None
    found = cluster.objects(
        workloads_path(job["metadata"]["namespace"]), labels=f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"
    )
    return found[0] if found else None
