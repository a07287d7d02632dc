"""The queue in front of the model: who shares a batch, who is told to come again, what survives a fault and an end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from unified_reward.serving.batcher import Batcher, Busy, Closing


class Gate:
    """Work that waits until it is let go, and tells what it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[Any]]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, kind: str, items: list[Any]) -> list[Any]:
        self.batches.append((kind, items))
        self.begun.release()
        self.go.acquire()
        if "bad" in items:
            raise ValueError("bad item")
        return [f"{kind} {item}" for item in items]


def test_what_waits_meanwhile_shares_a_batch_by_kind() -> None:
    work = Gate()
    batcher = Batcher(work, max_items=3, capacity=10)
    first = batcher.submit("score", [0])
    work.begun.acquire()
    jobs = [batcher.submit("score", [1]), batcher.submit("compare", ["x"]), batcher.submit("score", [2, 3]),
            batcher.submit("score", [4])]  # fmt: skip
    assert batcher.waiting == 5
    for _ in range(4):
        work.go.release()
    assert first.future.result(10) == ["score 0"]
    assert [job.future.result(10) for job in jobs] == [["score 1"], ["compare x"], ["score 2", "score 3"], ["score 4"]]
    assert work.batches == [("score", [0]), ("score", [1, 2, 3]), ("compare", ["x"]), ("score", [4])]
    batcher.close()


def test_a_full_queue_refuses_and_a_dropped_job_makes_room() -> None:
    work = Gate()
    batcher = Batcher(work, max_items=4, capacity=2)
    batcher.submit("score", [0])
    work.begun.acquire()
    waiting = batcher.submit("score", [1, 2])
    with pytest.raises(Busy) as refused:
        batcher.submit("score", [3])
    assert refused.value.retry_after >= 1
    with pytest.raises(ValueError, match="at most 2"):
        batcher.submit("score", [1, 2, 3])
    batcher.cancel(waiting)
    assert batcher.waiting == 0
    last = batcher.submit("score", [4])
    work.go.release()
    work.go.release()
    assert last.future.result(10) == ["score 4"]
    assert [items for _, items in work.batches] == [[0], [4]]
    batcher.close()


def test_a_fault_is_its_own_clients_alone() -> None:
    work = Gate()
    batcher = Batcher(work, max_items=4, capacity=4)
    batcher.submit("score", [0])
    work.begun.acquire()
    good, bad = batcher.submit("score", [1]), batcher.submit("score", ["bad"])
    for _ in range(4):
        work.go.release()
    assert good.future.result(10) == ["score 1"]
    with pytest.raises(ValueError, match="bad item"):
        bad.future.result(10)
    assert batcher.alive
    batcher.close()


def test_closing_finishes_what_waits() -> None:
    work = Gate()
    batcher = Batcher(work, max_items=1, capacity=4)
    jobs = [batcher.submit("score", [number]) for number in range(3)]
    for _ in jobs:
        work.go.release()
    batcher.close()
    assert [job.future.result(0) for job in jobs] == [["score 0"], ["score 1"], ["score 2"]]
    with pytest.raises(Closing):
        batcher.submit("score", [3])
    assert not batcher.alive
