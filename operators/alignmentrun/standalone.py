"""Pure: a job that was submitted by itself (`torchx run`), its later attempts and their pods -> what to do about its end.

There is no resource with a status here: what is known of earlier attempts stands in the annotations of the later ones. An app
is the first job and its attempts `<name>-a<k>`, which it owns; `torchx delete` of the first deletes all.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from operators.alignmentrun.observe import observe
from unified_reward import names
from unified_reward.launch.causes import Cause, read_counts, written_counts
from unified_reward.launch.job_status import CANCELLED_AT, RETRIES, annotation, attempt_of, queue_of
from unified_reward.launch.pods import Resource, conditions, name
from unified_reward.launch.pytorchjob import (
    API_VERSION,
    APP,
    ATTEMPT,
    KIND,
    LONGEST_NAME,
    PORT,
    PREFIX,
    QUEUE_LABEL,
    Manifest,
)
from unified_reward.launch.retries import BACKOFF_SECONDS, FAILURES, LOST
from unified_reward.launch.times import epoch_seconds
from unified_reward.pipeline.decide import ActionKind, Limits, RunState, State, View, decide

SUPERSEDED_BY = f"{PREFIX}/superseded-by"  # the attempt that took this one's place
GATHERED = f"{PREFIX}/gathered"  # of several pods, when the last was made of those that then all ran


@dataclass(frozen=True)
class NextStep:
    """retry: the first job, the latest, and the number of the attempt to make from it, said: why. note: merge patches by job name.
    gone: jobs to delete."""

    retry: tuple[Resource, Resource, int] | None = None
    failures: Mapping[Cause, int] | None = None
    note: tuple[tuple[str, Manifest], ...] = ()
    gone: tuple[str, ...] = ()
    said: str = ""
    next_look: float | None = None


def next_step(jobs: Sequence[Resource], pods: Mapping[str, Sequence[Resource]], now: float) -> NextStep:
    """jobs: of one app. pods: by job name."""
    ordered = sorted(jobs, key=attempt_of)
    if not ordered or any(job["metadata"].get("deletionTimestamp") for job in ordered):
        return NextStep()
    first, latest = ordered[0], ordered[-1]
    limits = _limits(first)
    if limits is None or attempt_of(first) != 1:
        return NextStep()
    if annotation(latest, SUPERSEDED_BY):  # the attempt after it was deleted, or outlived its TTL
        return NextStep(gone=(name(first),))
    note = tuple(
        (name(old), _superseded(name(new))) for old, new in itertools.pairwise(ordered)
        if not annotation(old, SUPERSEDED_BY)
    )  # fmt: skip
    if note or annotation(latest, CANCELLED_AT):
        return NextStep(note=note)
    nodes = int(latest["spec"].get("nodes", 1))
    seen = observe(latest, pods.get(name(latest), ()), nodes, now, annotation(latest, GATHERED))
    failure = seen.failure
    if failure is None and annotation(latest, LOST):
        cause, message = Cause.PREEMPTED, annotation(latest, LOST)
    elif failure is None:
        return NextStep(note=_noted(latest, seen.gathered, seen.lost))
    else:
        cause, message = failure.cause, failure.message
    if seen.live:
        return NextStep(next_look=seen.settles)
    known = read_counts(annotation(latest, FAILURES))
    known[cause] = known.get(cause, 0) + 1
    failures = tuple(each for each, count in known.items() for _ in range(count))
    view = View(name(latest), frozenset(), 1, State.WAITING, failures=failures, last_ended=_ended(latest))
    view = _numbered(view, attempt_of(latest))
    decision = decide([view], limits, now=now)
    if decision.state is RunState.FAILED:
        return NextStep()
    if any(action.kind is ActionKind.LAUNCH for action in decision.actions):
        said = f"attempt {view.attempt} after {cause.value}: {message}"[:950]
        return NextStep((first, latest, view.attempt), known, said=said)
    return NextStep(next_look=decision.next_look)


def further_attempt(first: Resource, latest: Resource, attempt: int, failures: Mapping[Cause, int]) -> Manifest:
    """The manifest of a later attempt. latest: in full; the first has no TTL of its own any more when it has a successor."""
    old = name(first)
    new = f"{old}-a{attempt}"
    if len(new) > LONGEST_NAME:
        new = f"{old[: LONGEST_NAME - len(new) + len(old)].rstrip('-')}-a{attempt}"
    labels = {**latest["metadata"].get("labels", {}), ATTEMPT: str(attempt)}
    labels.setdefault(APP, old)
    kept = {RETRIES: annotation(first, RETRIES)}
    if failures:
        kept[FAILURES] = written_counts(failures)
    spec = copy.deepcopy(dict(latest["spec"]))
    spec.setdefault("runPolicy", {})["suspend"] = QUEUE_LABEL in labels
    if "elasticPolicy" in spec:
        spec["elasticPolicy"]["rdzvId"] = new
    for replica in spec["pytorchReplicaSpecs"].values():
        template = replica["template"]
        template.setdefault("metadata", {}).setdefault("labels", {})[ATTEMPT] = str(attempt)
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if variable["name"] in (names.JOB, names.ATTEMPT, names.MASTER, "TORCHX_RANK0_HOST"):
                    variable["value"] = {
                        names.JOB: new,
                        names.ATTEMPT: str(attempt),
                        names.MASTER: f"{new}-worker-0:{PORT}",
                        "TORCHX_RANK0_HOST": f"{new}-worker-0",
                    }[variable["name"]]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": old, "uid": first["metadata"]["uid"]}
    metadata = {
        "name": new, "namespace": first["metadata"]["namespace"], "labels": labels, "annotations": kept,
        "ownerReferences": [owner],
    }  # fmt: skip
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _limits(first: Resource) -> Limits | None:
    """None where nobody asked for retries, or what is written there cannot be read."""
    text = annotation(first, RETRIES)
    try:
        counts = read_counts(text)
    except (ValueError, KeyError):
        return None
    retries = {cause: counts.get(cause, 0) for cause in Cause}
    return Limits(1, retries, BACKOFF_SECONDS) if text else None


def _numbered(view: View, attempt: int) -> View:
    """Attempts count on from the latest, whatever its annotations say."""
    return replace(view, earlier=attempt - len(view.failures))


def _superseded(by: str) -> Manifest:
    """The later attempts go with the first job, so its own TTL must not end them."""
    return {
        "metadata": {"annotations": {SUPERSEDED_BY: by}},
        "spec": {"runPolicy": {"ttlSecondsAfterFinished": None}},
    }


def _noted(job: Resource, gathered: str, lost: str) -> tuple[tuple[str, Manifest], ...]:
    if lost and not queue_of(job) and not job["spec"].get("elastic"):
        change: Manifest = {"metadata": {"annotations": {LOST: lost}}, "spec": {"runPolicy": {"suspend": True}}}
        return ((name(job), change),)
    if gathered and not annotation(job, GATHERED) and not job["spec"].get("elastic"):
        return ((name(job), {"metadata": {"annotations": {GATHERED: gathered}}}),)
    return ()


def _ended(job: Resource) -> float:
    ends = (each for each in conditions(job) if each["type"] in ("Failed", "Suspended"))
    return epoch_seconds(next((each.get("lastTransitionTime") for each in ends), ""))
