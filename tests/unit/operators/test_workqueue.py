"""The queue by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from operators.alignmentrun.api import ApiError
from operators.alignmentrun.workqueue import WorkQueue


def run(
    look: Callable[[str], Awaitable[bool]], story: Callable[[WorkQueue], Awaitable[None]], **more: object
) -> WorkQueue:
    async def whole() -> WorkQueue:
        queue = WorkQueue(look, more.get("wanted", lambda _: True), str)  # type: ignore[arg-type]
        workers = [asyncio.create_task(queue.work()) for _ in range(4)]
        await story(queue)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return queue

    return asyncio.run(whole())


async def until(what: Callable[[], object]) -> None:
    for _ in range(400):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")


def test_a_key_is_looked_at_once_for_many_askings_and_never_by_two_at_a_time() -> None:
    looks: Counter[str] = Counter()
    at_work: set[str] = set()
    go = asyncio.Event()

    async def look(key: str) -> bool:
        assert key not in at_work
        at_work.add(key)
        looks[key] += 1
        await go.wait()
        at_work.discard(key)
        return True

    async def story(queue: WorkQueue) -> None:
        for _ in range(3):
            queue.add("a")
        await until(lambda: looks["a"] == 1)
        for _ in range(3):
            queue.add("a")  # while it is looked at: once more after that
        queue.add("unwanted")
        go.set()
        await until(lambda: queue.done == 2)

    queue = run(look, story, wanted=lambda key: key != "unwanted")
    assert (looks, queue.failures, queue.depth) == ({"a": 2}, {}, 0)


def test_a_look_that_failed_is_repeated_and_its_pauses_are_forgotten_when_it_goes_well() -> None:
    left = [ApiError(503, "etcd has no leader"), KeyError("a defect")]

    async def look(_: str) -> bool:
        if left:
            raise left.pop(0)
        return True

    async def story(queue: WorkQueue) -> None:
        queue.add("a")
        while not queue.done:
            await until(lambda: queue._timers or queue.done)
            if queue._timers:
                queue.at("a", 0.0)  # not to wait for so long
            await asyncio.sleep(0.02)

    queue = run(look, story)
    assert queue.failures == {"503": 1, "defect": 1}
    assert (queue._pauses, queue._timers) == ({}, {})


def test_of_a_key_that_is_forgotten_nothing_is_kept() -> None:
    async def look(_: str) -> bool:
        raise ApiError(500, "it cannot now")

    async def story(queue: WorkQueue) -> None:
        queue.add("a")
        await until(lambda: queue._timers)
        queue.forget("a")

    queue = run(look, story)
    assert (queue._pauses, queue._timers, queue._deferred, queue._since) == ({}, {}, set(), {})
