"""Each line once: a cluster played by a script, with streams that break, containers that restart and pods that go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_reward.launch import job_logs
from unified_reward.launch.job_logs import NO_TIME, ReplicaLog, archived_replicas, parse_time, place_after
from unified_reward.launch.kube import DroppedError
from unified_reward.store import ObjectStore, open_store

Object = dict[str, Any]


def stamped(number: int, text: str = "") -> bytes:
    return f"2026-11-24T10:00:{number % 60:02d}.{number:09d}Z line {number}{text}\n".encode()


def pod(uid: str = "u", restart: int = 0, phase: str = "Running") -> Object:
    state = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
    return {
        "metadata": {"uid": uid, "creationTimestamp": "t"},
        "spec": {"restartPolicy": "Never"},
        "status": {"phase": phase, "containerStatuses": [{"name": "pytorch", "restartCount": restart, "state": state}]},
    }


class Script:
    """Plays a cluster: `log` and `pods` are what it has; each stream first calls the next of `streams`."""

    def __init__(self) -> None:
        self.pod: Object | None = pod()
        self.ended = False
        self.streams: list[Callable[[], Iterator[bytes]]] = []
        self.asked: list[tuple[str, bool]] = []

    def objects(self, _: str, **__: str) -> list[Object]:
        return [self.pod] if self.pod else []

    def get(self, _: str) -> Object:
        condition = {"type": "Succeeded", "status": "True"} if self.ended else {"type": "Running", "status": "True"}
        return {"metadata": {}, "spec": {}, "status": {"conditions": [condition]}}

    def pod_log(self, *_: str, since: str, previous: bool, **__: Any) -> Iterator[bytes]:
        self.asked.append((since, previous))
        return self.streams.pop(0)()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "POLL_SECONDS", 0.0)


def read(script: Script, store: ObjectStore | None = None) -> list[str]:
    @contextlib.contextmanager
    def opened() -> Iterator[ObjectStore]:
        assert store is not None, "the archive was opened"
        yield store

    return list(ReplicaLog(script, "ns", "j", 0, open_store=opened, follow=True).lines())  # type: ignore[arg-type]


def numbers(lines: list[str]) -> list[int]:
    assert all(line.endswith("\n") for line in lines)
    return [int(line.split()[1]) for line in lines]


def test_a_broken_stream_goes_on_where_it_was() -> None:
    script = Script()

    def first() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(5))
        raise DroppedError("reset")

    def second() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(2, 9))  # from two seconds before
        assert script.pod is not None
        script.pod = pod(phase="Succeeded")

    script.streams = [first, second]
    assert numbers(read(script)) == list(range(9))
    assert script.asked == [("", False), ("2026-11-24T10:00:02Z", False)]


def test_half_a_line_of_a_running_container_is_read_again_and_a_last_one_is_kept() -> None:
    script = Script()

    def first() -> Iterator[bytes]:
        yield stamped(0)
        yield stamped(1)[:-4]  # the API server was killed here, and said nothing

    def second() -> Iterator[bytes]:
        script.pod = pod(phase="Succeeded")
        yield from (stamped(0), stamped(1), stamped(2)[:-1])

    script.streams = [first, second]
    assert read(script) == ["line 0\n", "line 1\n", "line 2\n"]


def test_the_kubelets_own_words_are_no_lines_of_the_job() -> None:
    script = Script()

    def only() -> Iterator[bytes]:
        yield stamped(0)
        yield b"unable to retrieve container logs for containerd://7f02\n"
        script.pod = pod(phase="Succeeded")

    script.streams = [only]
    assert read(script) == ["line 0\n"]


def test_a_restarted_containers_last_lines_are_read_before_the_new_ones() -> None:
    script = Script()

    def first() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(3))
        script.pod = pod(restart=1)

    def rest_of_the_old() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(5))

    def new() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(10, 12))
        script.pod = pod(restart=1, phase="Succeeded")

    script.streams = [first, rest_of_the_old, new]
    assert numbers(read(script)) == [0, 1, 2, 3, 4, 10, 11]
    assert [previous for _, previous in script.asked] == [False, True, False]


def test_what_a_lost_pod_wrote_comes_from_the_archive() -> None:
    store = open_store("memory://")
    store.put("logs/j/worker-0/0000000000001-00000.log", b"".join(b"line %d\n" % n for n in range(6)))
    store.put("logs/j/worker-0/0000000000001-00001.log", b"line 6\n")
    script = Script()

    def first() -> Iterator[bytes]:
        yield from (stamped(n) for n in range(4))
        script.pod, script.ended = None, True

    script.streams = [first]
    assert numbers(read(script, store)) == list(range(7))
    assert archived_replicas(store, "j") == [0]


def test_a_job_that_is_gone_is_read_whole_from_the_archive_over_all_containers() -> None:
    store = open_store("memory://")
    store.put("logs/j/worker-0/0000000000009-00000.log", b"line 2\n")
    store.put("logs/j/worker-0/0000000000001-00000.log", b"line 0\nline 1\n")
    script = Script()
    script.pod, script.ended = None, True
    assert numbers(read(script, store)) == [0, 1, 2]


@given(
    st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n"]), max_size=40), st.integers(0, 40), st.integers(0, 12),
)  # fmt: skip
def test_the_place_in_the_archive_is_found_when_the_reader_saw_all_before_it(
    lines: list[bytes], cut: int, dropped: int
) -> None:
    cut = min(cut, len(lines))
    tail = lines[:cut][-job_logs.TAIL :]
    assert place_after(lines, tail, cut) == cut
    unique = [b"%d " % number + line for number, line in enumerate(lines)]  # real lines differ somewhere
    seen = max(0, cut - dropped)  # the kubelet had dropped the first ones
    assert place_after(unique, unique[:cut][-job_logs.TAIL :], seen) == cut


def test_times_of_a_container_are_read_with_nanoseconds() -> None:
    assert parse_time(b"2026-11-24T10:00:00.123456789Z").microsecond == 123456
    assert parse_time(b"2026-11-24T10:00:00Z") == parse_time(b"2026-11-24T11:00:00.0+01:00")
    assert parse_time(b"unable") == NO_TIME
