"""The output of one node of a job, each line once, over dropped connections, restarted containers and pods that are gone.

While the pod is there its log is read from the cluster, with times by which a broken stream goes on where it was. What the
cluster has no longer is read from the archive in the store: its lines are the same ones in the same order, so the reader goes
on behind the last lines it has seen.
"""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from unified_reward.errors import UserError
from unified_reward.launch.job_status import nothing_follows
from unified_reward.launch.kube import DroppedError, Kube, core_path, jobs_path
from unified_reward.launch.log_archive import archive_prefix
from unified_reward.launch.pods import Resource, container_status
from unified_reward.launch.pytorchjob import CONTAINER, INDEX_LABEL, JOB_LABEL
from unified_reward.store import ObjectStore, StoreError

POLL_SECONDS = 1.0
TAIL = 20  # lines by which a place in the archive is recognised
OVERLAP_SECONDS = 2  # streams of one container may swap lines by as much
GIVE_UP_SECONDS = 300.0
NO_TIME = datetime.fromtimestamp(0, UTC)
OpenStore = Callable[[], AbstractContextManager[ObjectStore]]


@dataclass
class Instance:
    """What has been read of one container. recent: lines with their times, of the last seconds. tail: without times."""

    uid: str
    restart: int
    count: int = 0
    last: datetime | None = None
    recent: collections.Counter[bytes] = field(default_factory=collections.Counter)
    tail: collections.deque[bytes] = field(default_factory=lambda: collections.deque(maxlen=TAIL))

    def since(self) -> str:
        """From where a stream has to be read again."""
        return "" if self.last is None else _rfc3339(self.last - timedelta(seconds=OVERLAP_SECONDS))

    def take(self, stamped: bytes) -> None:
        stamp, _, line = stamped.partition(b" ")
        when = parse_time(stamp)
        self.count += 1
        self.tail.append(line)
        self.recent[stamped] += 1
        if self.last is None or when > self.last:
            self.last = when
        if len(self.recent) > 4096:
            edge = self.last - timedelta(seconds=2 * OVERLAP_SECONDS)
            for old in [one for one in self.recent if parse_time(one.partition(b" ")[0]) < edge]:
                del self.recent[old]

    def fresh(self, stream: Iterator[bytes], *, complete: Callable[[], bool]) -> Iterator[bytes]:
        """Lines of a stream that have not been taken yet. complete: whether a last line without newline is whole."""
        seen = self.recent.copy()
        for stamped in stream:
            if not stamped.endswith(b"\n"):
                if not complete():
                    return
                stamped += b"\n"
            if parse_time(stamped.partition(b" ")[0]) == NO_TIME:  # the kubelet's own words, not the container's
                continue
            if seen[stamped] > 0:
                seen[stamped] -= 1
                continue
            self.take(stamped)
            yield stamped


class ReplicaLog:
    """Lines of `<job>-worker-<replica>`. Without follow, what there is now."""

    def __init__(self, kube: Kube, namespace: str, job: str, replica: int, *, open_store: OpenStore, follow: bool,
                 since: datetime | None = None) -> None:  # fmt: skip
        self.kube, self.namespace, self.job, self.replica = kube, namespace, job, replica
        self.open_store, self.follow, self.since = open_store, follow, since
        self.instances: list[Instance] = []  # in order; the archive has the same
        self._broken_at = 0.0

    def lines(self) -> Iterator[str]:
        """Each ends in a newline. Raises UserError when the cluster stays away for long."""
        while True:
            pod = self._pod()
            if pod is None:
                ended = self._job_ended()
                if self.instances or ended:
                    yield from self._archived()
                if ended or not self.follow:
                    return
            else:
                yield from self._of_pod(pod)
                if self._finished(pod) or not self.follow:
                    return
            time.sleep(POLL_SECONDS)

    def _of_pod(self, pod: Resource) -> Iterator[str]:
        uid, restart = pod["metadata"]["uid"], int(container_status(pod).get("restartCount", 0))
        if not self.instances and restart and self.since is None:  # earlier containers are in the archive only
            self.instances = [Instance(uid, number) for number in range(restart)]
        current = self.instances[-1] if self.instances else None
        if current is not None and (current.uid, current.restart) != (uid, restart):
            yield from self._rest_of(current, uid, restart)
            current = None
        if current is None:
            current = Instance(uid, restart)
            self.instances.append(current)
        yield from self._stream(current, previous=False)

    def _rest_of(self, old: Instance, uid: str, restart: int) -> Iterator[str]:
        """What the container before wrote after we lost it."""
        if old.uid == uid and old.restart == restart - 1:
            before = old.count
            yield from self._stream(old, previous=True)
            if old.count > before:
                return
        yield from self._archived()
        if old.uid == uid:  # containers between, which we never saw
            self.instances += [Instance(uid, number) for number in range(old.restart + 1, restart)]

    def _stream(self, instance: Instance, *, previous: bool) -> Iterator[str]:
        since = instance.since() or (_rfc3339(self.since) if self.since else "")
        follow = self.follow and not previous
        stream = self.kube.pod_log(
            self.namespace, f"{self.job}-worker-{self.replica}", container=CONTAINER, follow=follow, since=since, previous=previous
        )  # fmt: skip
        try:
            for stamped in instance.fresh(stream, complete=lambda: previous or not self._runs(instance)):
                self._broken_at = 0.0
                if self.since is None or parse_time(stamped.partition(b" ")[0]) >= self.since:
                    yield stamped.partition(b" ")[2].decode(errors="replace")
            self._broken_at = 0.0
        except DroppedError as error:
            self._broken_at = self._broken_at or time.monotonic()
            if time.monotonic() - self._broken_at > GIVE_UP_SECONDS:
                raise UserError(field="log", value=self.job, why=f"the cluster has not given it for 5 minutes ({error})",
                                fix="Ask again later: torchx log.") from None  # fmt: skip

    def _archived(self) -> Iterator[str]:
        """Of each instance what has not been read, from the store."""
        if self.since is not None and not self.instances:
            _note("lines in the archive have no times; all are shown")
        try:
            with self.open_store() as store:
                pieces = archived_instances(store, self.job, self.replica)
        except (UserError, StoreError, OSError) as error:
            _note(f"the pod is gone, and its archived log cannot be read: {error}")
            return
        while len(self.instances) < len(pieces):
            self.instances.append(Instance("", len(self.instances)))
        for instance, lines in zip(self.instances, pieces, strict=False):
            for line in lines[place_after(lines, list(instance.tail), instance.count) :]:
                instance.count += 1
                instance.tail.append(line)
                yield line.decode(errors="replace")

    def _pod(self) -> Resource | None:
        labels = f"{JOB_LABEL}={self.job},{INDEX_LABEL}={self.replica}"
        pods = self.kube.objects(core_path(self.namespace, "pods"), labels=labels)
        return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

    def _runs(self, instance: Instance) -> bool:
        pod = self._pod()
        if pod is None or pod["metadata"]["uid"] != instance.uid:
            return False
        status = container_status(pod)
        return int(status.get("restartCount", 0)) == instance.restart and "terminated" not in (
            status.get("state") or {}
        )

    def _finished(self, pod: Resource) -> bool:
        """Whether nothing more comes of this node: its pod ended for good and all of it was read."""
        now = self._pod()
        if now is None or now["metadata"]["uid"] != pod["metadata"]["uid"] or self._broken_at:
            return False
        ended = (now.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        read = bool(self.instances) and self.instances[-1].restart == int(container_status(now).get("restartCount", 0))
        never = (now.get("spec") or {}).get("restartPolicy") == "Never"
        return ended and read and (never or self._job_ended())

    def _job_ended(self) -> bool:
        job = self.kube.get(jobs_path(self.namespace, self.job))
        return job is None or nothing_follows(job)


def archived_instances(store: ObjectStore, job: str, replica: int) -> list[list[bytes]]:
    """The archived lines of a node, by container in order of their start."""
    prefix = archive_prefix(job, replica)
    starts: dict[str, list[bytes]] = {}
    for key in store.list(prefix):  # sorted
        start = key.removeprefix(prefix).partition("-")[0]
        starts.setdefault(start, []).append(store.get(key))
    return [b"".join(parts).splitlines(keepends=True) for _, parts in sorted(starts.items())]


def archived_replicas(store: ObjectStore, job: str) -> list[int]:
    """Which nodes of a job have an archived log."""
    prefix = archive_prefix(job, 0).removesuffix("worker-0/")
    names = {key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)}
    return sorted(int(name.removeprefix("worker-")) for name in names if name.startswith("worker-"))


def place_after(lines: list[bytes], tail: list[bytes], count: int) -> int:
    """How many of the archived `lines` have been seen by one who saw `count`, the last of them `tail`.

    The longest agreement with the tail decides, then nearness to the count: the cluster may have dropped the first
    lines of a long log, and has a few of the container that the archive has not.
    """
    if not tail:
        return 0
    best, best_rank = min(count, len(lines)), (0, 0)
    for place in range(1, len(lines) + 1):
        if lines[place - 1] != tail[-1]:
            continue
        agree = 1
        while agree < min(len(tail), place) and lines[place - 1 - agree] == tail[-1 - agree]:
            agree += 1
        if (agree, -abs(place - count)) > best_rank or best_rank == (0, 0):
            best, best_rank = place, (agree, -abs(place - count))
    return best


def parse_time(stamp: bytes) -> datetime:
    """RFC 3339 with nanoseconds, cut to microseconds; NO_TIME for what is none."""
    text = stamp.decode(errors="replace").replace("Z", "+00:00")
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return NO_TIME


def _rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
