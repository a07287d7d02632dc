"""The loop around the pure part: what is written in which order, what a failed write leaves, what a restart does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

import pytest

from operators.alignmentrun import controller as module
from operators.alignmentrun.api import JOBS, PODS, RUNS, ApiError
from operators.alignmentrun.metrics import exposition
from operators.alignmentrun.progress import last_progress
from unified_reward.launch.job_status import RETRIES
from unified_reward.launch.pytorchjob import APP, ATTEMPT

from .cluster import Cluster, rest, run, until
from .world import document, pod_of

pytestmark = pytest.mark.usefixtures("quick")


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
