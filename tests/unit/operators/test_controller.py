"""The loop around the pure part: what is written in which order, what a failed write leaves, what a restart does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from operators.alignmentrun import controller as module
from operators.alignmentrun import mlflow, workqueue
from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS, ApiError
from operators.alignmentrun.controller import Controller
from operators.alignmentrun.metrics import exposition
from operators.alignmentrun.progress import last_progress
from unified_reward.config import ClusterDefaults
from unified_reward.launch.job_status import RETRIES
from unified_reward.launch.pytorchjob import APP, ATTEMPT

from .fake_mlflow import Pages, serving
from .fakes import FakeApi
from .world import document, ended, pod_of

AWAY = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(workqueue, "LONGEST_PAUSE_SECONDS", 0.05)


class Cluster:
    """An API server, and an operator that may be killed; watches tell what a test tells them."""

    def __init__(self, tracking_uri: str = AWAY) -> None:
        self.api = FakeApi()
        self.defaults = ClusterDefaults(tracking_uri=tracking_uri)
        self.operator = self._new()

    def _new(self) -> Controller:
        return Controller(self.api, lambda: self.defaults)  # type: ignore[arg-type]

    async def restart(self) -> None:
        await self.operator.stop()
        self.operator = self._new()
        await self.operator.start()

    def put_run(self, run: dict[str, Any], kind: str = "MODIFIED") -> None:
        self.operator.saw_run(kind, self.api.put(RUNS, run))

    def end(self, job: str, code: int = 0) -> None:
        found = copy.deepcopy(self.api.objects[JOBS][job])
        pod = ended(pod_of(found, 0, 1_800_000_000.0), code, 1_800_000_001.0)
        self.operator.saw_pod("ADDED", self.api.put(PODS, pod))
        kind = "Failed" if code else "Succeeded"
        found["status"] = {
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
        }
        self.operator.saw_job("MODIFIED", self.api.put(JOBS, found))

    def status(self, name: str = "r") -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[RUNS][name].get("status", {})
        return found

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.of(EVENTS)]


async def until(what: Callable[[], Any]) -> None:
    for _ in range(400):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")


async def rest(cluster: Cluster) -> None:
    """Until nothing has been written for a while."""
    writes = -1
    while writes != cluster.api.writes:
        writes = cluster.api.writes
        await asyncio.sleep(0.15)


def run(test: Callable[[Cluster], Any], cluster: Cluster | None = None) -> None:
    async def whole() -> None:
        one = cluster or Cluster()
        await one.operator.start()
        try:
            await test(one)
        finally:
            await one.operator.stop()

    asyncio.run(whole())


def test_a_run_from_its_first_look_to_its_end_in_few_writes() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(), "ADDED")
        for job in ("r-import-a1", "r-reward-train-a1", "r-reward-eval-a1"):
            await until(lambda job=job: job in cluster.api.objects[JOBS])
            cluster.end(job)
        await until(lambda: cluster.status().get("phase") == "Succeeded")
        await rest(cluster)
        assert cluster.reasons() == ["StageSucceeded", "StageSucceeded", "RunSucceeded"]
        assert cluster.api.writes <= 12
        assert len(cluster.operator.child_latencies) == 2
        text = exposition(cluster.operator, 0.0)
        assert 'unified_reward_runs{phase="Succeeded"} 1' in text
        assert 'unified_reward_next_job_seconds{quantile="0.99"}' in text

    run(story)


def test_when_many_jobs_end_at_once_the_next_ones_are_made_first_and_each_is_told_once() -> None:
    async def story(cluster: Cluster) -> None:
        names = [f"r{number}" for number in range(40)]
        for name in names:
            cluster.put_run(document(name), "ADDED")
        await until(lambda: len(cluster.api.objects[JOBS]) == len(names))
        await rest(cluster)
        cluster.api.wrote.clear()
        for name in names:
            cluster.end(f"{name}-import-a1")
        await rest(cluster)
        made, told = (
            [place for place, call in enumerate(cluster.api.wrote) if call.startswith(verb)]
            for verb in ("create pytorchjobs", "apply alignmentruns")
        )
        assert (len(made), len(told)) == (len(names), len(names))
        assert made[-1] < told[0]
        assert cluster.reasons() == ["StageSucceeded"] * len(names)
        assert {cluster.status(name)["progress"] for name in names} == {"1/3"}

    run(story)


def test_a_restart_writes_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        for name in ("one", "two", "three"):
            cluster.put_run(document(name), "ADDED")
        await until(lambda: len(cluster.api.objects[JOBS]) == 3)
        cluster.end("two-import-a1", 2)
        await until(lambda: cluster.status("two").get("phase") == "Failed")
        await rest(cluster)
        writes = cluster.api.writes
        await cluster.restart()
        await rest(cluster)
        assert cluster.api.writes == writes

    run(story)


def test_a_status_that_could_not_be_written_is_written_later_and_told_once() -> None:
    async def story(cluster: Cluster) -> None:
        left = 3

        def refuse(verb: str, path: str, body: Mapping[str, Any]) -> None:  # noqa: ARG001
            nonlocal left
            if verb == "apply" and path == RUNS and left and "r-import-a1" in cluster.api.objects[JOBS]:
                left -= 1
                raise ApiError(0, "the API server does not answer")

        cluster.api.refuse = refuse
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status())
        cluster.end("r-import-a1")
        left = 3
        await until(lambda: cluster.status().get("progress") == "1/3")
        await rest(cluster)
        assert cluster.reasons() == ["StageSucceeded"]
        assert sorted(cluster.api.objects[JOBS]) == ["r-import-a1", "r-reward-train-a1"]
        assert cluster.status()["stages"][1]["attempt"] == 1

    run(story)


def test_a_job_that_is_refused_is_told_and_made_when_it_may_be() -> None:
    async def story(cluster: Cluster) -> None:
        full = True

        def refuse(verb: str, path: str, body: Mapping[str, Any]) -> None:  # noqa: ARG001
            if verb == "create" and path == JOBS and full:
                raise ApiError(403, "exceeded quota: count/pytorchjobs.kubeflow.org")

        cluster.api.refuse = refuse
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("reason") == "JobRefused")
        assert "exceeded quota" in cluster.status()["message"]
        full = False
        await until(lambda: "r-import-a1" in cluster.api.objects[JOBS])
        await until(lambda: not cluster.status().get("reason"))
        assert cluster.status()["stages"][0]["attempt"] == 1

    run(story)


def test_a_run_cancelled_while_its_job_is_refused_is_at_rest() -> None:
    async def story(cluster: Cluster) -> None:
        def refuse(verb: str, path: str, body: Mapping[str, Any]) -> None:  # noqa: ARG001
            if verb == "create" and path == JOBS:
                raise ApiError(403, "exceeded quota: count/pytorchjobs.kubeflow.org")

        cluster.api.refuse = refuse
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("reason") == "JobRefused")
        cancelled = copy.deepcopy(cluster.api.objects[RUNS]["r"])
        cancelled["spec"]["cancel"] = True
        cluster.put_run(cancelled)
        await until(lambda: cluster.status().get("phase") == "Cancelled")
        await rest(cluster)
        refusals = cluster.operator.queue.failures["refused"]
        await asyncio.sleep(0.3)  # several pauses of a look that failed
        assert cluster.operator.queue.failures["refused"] == refusals
        assert cluster.operator.queue._timers == {}

    run(story)


def test_a_job_whose_making_was_not_answered_is_not_made_twice() -> None:
    async def story(cluster: Cluster) -> None:
        lost = True

        def refuse(verb: str, path: str, body: Mapping[str, Any]) -> None:
            nonlocal lost
            if verb == "create" and path == JOBS and lost:
                lost = False
                cluster.api.put(JOBS, body)
                raise ApiError(0, "the API server does not answer")

        cluster.api.refuse = refuse
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        await rest(cluster)
        assert list(cluster.api.objects[JOBS]) == ["r-import-a1"]
        assert cluster.status()["stages"][0]["attempt"] == 1

    run(story)


def test_the_job_of_another_is_not_taken() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.api.put(JOBS, {"metadata": {"name": "r-import-a1", "labels": {}}, "spec": {}})
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("reason") == "JobRefused")
        assert "another job has the name" in cluster.status()["message"]

    run(story)


def test_what_is_to_be_given_up_is_said_before_it_is_deleted() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(cluster={"startTimeoutSeconds": 10}), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        job = copy.deepcopy(cluster.api.objects[JOBS]["r-import-a1"])
        job["status"] = {"startTime": "2020-01-01T00:00:00Z", "conditions": [{"type": "Created", "status": "True"}]}
        broken = True

        def refuse(verb: str, path: str, body: Mapping[str, Any]) -> None:  # noqa: ARG001
            if verb == "delete" and broken:
                raise ApiError(500, "it cannot now")

        cluster.api.refuse = refuse
        cluster.operator.saw_job("MODIFIED", cluster.api.put(JOBS, job))
        await until(lambda: cluster.status()["stages"][0].get("stopped") == "CannotStart")
        await cluster.restart()
        broken = False
        await until(lambda: "r-import-a1" not in cluster.api.objects[JOBS])
        cluster.operator.saw_job("DELETED", job)
        await until(lambda: cluster.status().get("phase") == "Failed")
        assert cluster.status()["stages"][0]["lastFailure"]["reason"] == "PodsMissing"

    run(story)


def test_what_was_deleted_while_the_watch_was_deaf_is_noticed() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        pod = cluster.api.put(PODS, pod_of(cluster.api.objects[JOBS]["r-import-a1"], 0, 1_800_000_000.0))
        cluster.operator.saw_pod("ADDED", pod)
        cluster.api.objects[JOBS].clear()
        cluster.api.objects[PODS].clear()
        cluster.operator._settled_at = 0.0
        cluster.operator.saw_run(None, cluster.api.objects[RUNS]["r"])  # a watch that lists anew
        await until(lambda: cluster.status()["stages"][0].get("failures") == {"Preempted": 1})

    run(story)


def test_a_list_that_failed_is_asked_for_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELIST_SECONDS", 0.05, raising=False)

    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        cluster.api.objects[JOBS].clear()
        pages, left = cluster.api.pages, 1

        async def unsure(path: str, selector: str = "") -> Any:
            nonlocal left
            if left:
                left -= 1
                raise ApiError(503, "etcd has no leader")
            async for page in pages(path, selector):
                yield page

        monkeypatch.setattr(cluster.api, "pages", unsure)
        cluster.operator._settled_at = 0.0
        cluster.operator.saw_run(None, cluster.api.objects[RUNS]["r"])  # a watch that lists anew
        await until(lambda: cluster.status()["stages"][0].get("failures") == {"Preempted": 1})

    run(story)


def test_a_run_that_was_deleted_leaves_nothing_behind() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        gone = cluster.api.objects[RUNS].pop("r")
        cluster.operator.saw_run("DELETED", gone)
        cluster.end("r-import-a1")
        await rest(cluster)
        assert list(cluster.api.objects[JOBS]) == ["r-import-a1"]
        operator = cluster.operator
        kept = [
            operator.cache.runs,
            operator.queue._timers,
            operator.queue._pauses,
            operator._ended,
            operator.tracker.known,
        ]
        assert kept == [{}, {}, {}, {}, {}]

    run(story)


def test_ttl_deletes_the_run() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(ttlSecondsAfterFinished=1, cluster={"secrets": ["none"]}), "ADDED")
        await until(lambda: cluster.status().get("phase") == "Failed")
        await until(lambda: not cluster.api.objects[RUNS])

    run(story)


def test_a_job_by_itself_is_retried_and_says_why() -> None:
    async def story(cluster: Cluster) -> None:
        labels = {"app.kubernetes.io/managed-by": "unified-reward", APP: "j", ATTEMPT: "1"}
        job = {
            "metadata": {"name": "j", "namespace": "ns", "labels": labels, "annotations": {RETRIES: "preempted=1"}},
            "spec": {"runPolicy": {}, "pytorchReplicaSpecs": {"Worker": {"replicas": 1, "template": {"spec": {"containers": []}}}}},
        }  # fmt: skip
        cluster.operator.saw_job("ADDED", cluster.api.put(JOBS, job))
        cluster.end("j", 143)
        await until(lambda: "j-a2" in cluster.api.objects[JOBS])
        await rest(cluster)
        assert cluster.reasons() == ["Retrying"]
        assert cluster.api.objects[JOBS]["j"]["metadata"]["annotations"]["unifiedreward.dev/superseded-by"] == "j-a2"
        cluster.end("j-a2", 143)
        await rest(cluster)
        writes = cluster.api.writes
        await cluster.restart()
        await rest(cluster)
        assert (sorted(cluster.api.objects[JOBS]), cluster.api.writes) == (["j", "j-a2"], writes)
        cluster.end("j-a2")
        await rest(cluster)
        assert cluster.operator._ended == {}

    run(story)


def test_a_problem_of_the_installation_reaches_the_runs() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.operator.problem = lambda: "trackingUrl is no field"
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.api.objects[JOBS] and cluster.status().get("conditions"))
        (accepted,) = [each for each in cluster.status()["conditions"] if each["type"] == "Accepted"]
        assert (accepted["reason"], accepted["message"]) == ("InstallationInvalid", "trackingUrl is no field")

    run(story)


def test_progress_comes_from_the_log_of_the_first_pod() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))
        pod = pod_of(cluster.api.objects[JOBS]["r-import-a1"], 0, 1_800_000_000.0)
        cluster.api.logs[pod["metadata"]["name"]] = "a\nprogress 120/260 steps, 40 s left: loss 0.31\nb\n"
        cluster.operator.saw_pod("ADDED", cluster.api.put(PODS, pod))
        await until(lambda: cluster.status().get("progress") == "0/3 (46%)")

    run(story)


@pytest.mark.parametrize(
    ("log", "percent", "left", "text"),
    [
        ("progress 120/260 steps, 40 s left: loss 0.31", 46, 40, "120/260 steps: loss 0.31"),
        ("[0] progress 3/3 shards", 100, -1, "3/3 shards"),
        ("progress 1/10 steps\nprogress 2/10 steps\nother", 20, -1, "2/10 steps"),
        ("progress 5/0 steps", 100, -1, "5/0 steps"),
    ],
)
def test_the_last_word_on_progress(log: str, percent: int, left: int, text: str) -> None:
    found = last_progress(log, 0.0)
    assert found is not None
    assert (found.percent, found.seconds_left, found.text) == (percent, left, text)
    assert last_progress("no progress 1/2 steps here", 0.0) is None


# --- MLflow


def test_every_page_is_closed_as_its_run_ends_also_of_runs_deleted_meanwhile() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            for name in ("good", "bad", "deleted", "orphan"):
                cluster.put_run(document(name), "ADDED")
            await until(lambda: len(cluster.api.objects[JOBS]) == 4)
            assert cluster.status("good")["tracking"]["runId"]
            result = '{"code": 0, "result": {"ahead": {"reward-train": "a", "reward-eval": "b"}}}'
            pod = ended(pod_of(cluster.api.objects[JOBS]["good-import-a1"], 0, 1.8e9), 0, 1.8e9, message=result)
            cluster.operator.saw_pod("ADDED", cluster.api.put(PODS, pod))
            good = copy.deepcopy(cluster.api.objects[JOBS]["good-import-a1"])
            good["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
            cluster.operator.saw_job("MODIFIED", cluster.api.put(JOBS, good))
            cluster.end("bad-import-a1", 2)
            cluster.operator.saw_run("DELETED", cluster.api.objects[RUNS].pop("deleted"))
            await until(
                lambda: (
                    pages.states() == {"good": "FINISHED", "bad": "FAILED", "deleted": "KILLED", "orphan": "RUNNING"}
                )
            )
            await until(lambda: cluster.status("good")["tracking"]["state"] == "FINISHED")
            cluster.api.objects[RUNS].pop("orphan")  # while no operator is there
            await cluster.restart()
            await cluster.operator.tracker.sweep()
            assert pages.states()["orphan"] == "KILLED"
            await cluster.operator.stop()

    asyncio.run(whole())


def test_pages_of_a_run_deleted_with_its_own_experiment_meanwhile_are_closed_however_many_there_are() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            names = [f"r{number}" for number in range(5)]
            for name in names:
                cluster.put_run(document(name, tracking={"experiment": f"of-{name}"}), "ADDED")
            cluster.put_run(document("r5", tracking={"experiment": "of-r0"}), "ADDED")
            cluster.put_run(document("r6", tracking={"experiment": "of-r0"}), "ADDED")
            await until(lambda: len(pages.runs) == 7)
            for name in [*names, "r5", "r6"]:
                cluster.api.objects[RUNS].pop(name)
            await cluster.restart()
            await cluster.operator.tracker.sweep()
            assert set(pages.states().values()) == {"KILLED"}
            await cluster.operator.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("gone", ["run", "run for good", "experiment", "experiment for good"])
def test_a_page_that_somebody_deleted_is_no_longer_asked_about(gone: str) -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            cluster.put_run(document(), "ADDED")
            await until(lambda: cluster.status().get("tracking"))
            await until(lambda: cluster.api.objects[JOBS])
            if gone.startswith("run"):
                pages.delete_run(next(iter(pages.runs)))
            else:
                pages.delete_experiment("unified-reward", for_good="good" in gone)
            if gone == "run for good":
                pages.runs.clear()
            cluster.end("r-import-a1", 2)
            await until(lambda: cluster.status()["tracking"]["state"] == "FAILED")
            await rest(cluster)
            assert next(e for e in cluster.status()["conditions"] if e["type"] == "TrackingReady")["status"] == "True"
            cluster.put_run(document("another"), "ADDED")
            await until(lambda: cluster.status("another").get("tracking"))
            assert pages.states()["another"] == "RUNNING"
            assert pages.experiments["unified-reward"]["lifecycle_stage"] == "active"
            await cluster.operator.stop()

    asyncio.run(whole())


def test_the_pages_of_another_installation_are_left_alone() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            mine, other = Cluster(f"http://127.0.0.1:{port}"), Cluster(f"http://127.0.0.1:{port}")
            other.operator.tracker.installation = "elsewhere@there"
            await other.operator.start()
            other.put_run(document("theirs"), "ADDED")
            await until(lambda: pages.states() == {"theirs": "RUNNING"})
            await mine.operator.start()
            await mine.operator.tracker.sweep()
            assert pages.states() == {"theirs": "RUNNING"}
            await mine.operator.stop()
            await other.operator.stop()

    asyncio.run(whole())


def test_an_mlflow_that_is_away_holds_nothing_up_and_gets_its_page_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.alignmentrun import tracker

    monkeypatch.setattr(mlflow, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(tracker, "AWAY_SECONDS", 0.1)

    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            pass  # a port that is free again
        cluster = Cluster(f"http://127.0.0.1:{port}")
        await cluster.operator.start()
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))

        def ready() -> str:
            return str(
                next(each["status"] for each in cluster.status()["conditions"] if each["type"] == "TrackingReady")
            )

        assert ready() == "False"
        cluster.end("r-import-a1", 2)
        await until(lambda: cluster.status().get("phase") == "Failed")
        async with serving(pages, port):
            await until(lambda: pages.states() == {"r": "FAILED"})
            await until(lambda: ready() == "True")
        await cluster.operator.stop()

    asyncio.run(whole())
