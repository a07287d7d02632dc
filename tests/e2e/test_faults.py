"""What may die, dies, and the run ends as it should: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from unified_reward.records import Candidate
from unified_reward.stages.context import read_commit
from unified_reward.store import Dataset, ObjectStore, open_store
from unified_reward.training.loop import LOG_EVERY

from .conftest import Cluster
from .documents import judge_only, with_policy

MINUTES = 60.0
OUTAGE_SECONDS = 60.0


def stage(run: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in run["status"]["stages"] if each["name"] == name)


def assert_succeeded(cluster: Cluster, run: dict[str, Any]) -> None:
    assert run["status"]["phase"] == "Succeeded", json.dumps(run["status"], indent=1)
    assert_logged_once(cluster, run)


def assert_logged_once(cluster: Cluster, run: dict[str, Any]) -> None:
    """The training's curve is in MLflow without a gap and without a point twice, and all runs are closed."""
    from mlflow import MlflowClient

    steps = run["spec"]["rewardTrain"]["steps"]
    with cluster.forward("ur-mlflow", 5000) as port:
        client = MlflowClient(f"http://127.0.0.1:{port}")
        parent = client.get_run(run["status"]["tracking"]["runId"])
        assert parent.info.status == "FINISHED"
        children = client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
        assert children
        assert {child.info.status for child in children} == {"FINISHED"}
        training = next(child for child in children if child.data.tags["stage"] == "reward-train")
        logged = sorted(point.step for point in client.get_metric_history(training.info.run_id, "loss"))
    assert logged == list(range(LOG_EVERY, steps + 1, LOG_EVERY)), logged


def test_a_killed_and_an_evicted_trainer_go_on_from_their_checkpoint(cluster: Cluster) -> None:
    """SIGKILL of a rank, a pod that is deleted without grace, an eviction: three attempts end so, the fourth succeeds."""
    cluster.apply(judge_only("killed", steps=240))
    pod = cluster.running("killed", "reward-train", attempt=1)
    cluster.kubectl("exec", pod, "--", "python", "-c", KILL_RANKS)
    pod = cluster.running("killed", "reward-train", attempt=2)
    cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    pod = cluster.running("killed", "reward-train", attempt=3)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": cluster.namespace},
    }
    address = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", address, "-f", "-", text=json.dumps(eviction))
    run = cluster.ended("killed", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert stage(run, "reward-train")["attempt"] == 4
    assert stage(run, "reward-train")["failures"] == {
        "OutOfMemory": 1,
        "Preempted": 2,
    }  # 137: SIGKILL, as an OOM killer sends


# Process 1 of a container cannot be killed from within; what it started can.
KILL_RANKS = """
import os, pathlib, signal
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    number, words = int(status.parent.name), status.parent.joinpath("cmdline").read_bytes()
    if number not in (1, os.getpid()) and b"unified_reward.stages" in words:
        os.kill(number, signal.SIGKILL)
"""


def assert_first_attempts(run: dict[str, Any]) -> None:
    again = {each["name"]: each.get("lastFailure") for each in run["status"]["stages"] if each["attempt"] != 1}
    assert not again


def test_the_operator_is_killed(cluster: Cluster) -> None:
    cluster.apply(judge_only("headless"))
    cluster.running("headless", "reward-train")
    cluster.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=operator", "--grace-period=0", "--force")
    run = cluster.ended("headless", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert_first_attempts(run)


def test_mlflow_is_away_for_a_minute(cluster: Cluster) -> None:
    cluster.apply(judge_only("untracked"))
    cluster.running("untracked", "reward-train")
    cluster.kubectl("scale", "deployment/ur-mlflow", "--replicas=0")
    time.sleep(OUTAGE_SECONDS)
    cluster.kubectl("scale", "deployment/ur-mlflow", "--replicas=1")
    cluster.kubectl("rollout", "status", "deployment/ur-mlflow", "--timeout=5m")
    assert_succeeded(cluster, cluster.ended("untracked", 8 * MINUTES))


def test_the_store_is_away_for_a_minute(cluster: Cluster) -> None:
    cluster.apply(with_policy("storeless", steps=180))
    cluster.running("storeless", "reward-train")
    cluster.kubectl("scale", "statefulset/ur-minio", "--replicas=0")
    time.sleep(OUTAGE_SECONDS)
    cluster.kubectl("scale", "statefulset/ur-minio", "--replicas=1")
    run = cluster.ended("storeless", 10 * MINUTES)
    assert_succeeded(cluster, run)
    assert_first_attempts(run)
    assert_rows_once(cluster, run)


def assert_rows_once(cluster: Cluster, run: dict[str, Any]) -> None:
    """Each candidate of each prompt is in the store once."""
    with store_of(cluster, run["spec"]["store"]) as store:
        done = read_commit(store, "generate", stage(run, "generate/vlm")["key"])
        assert done is not None
        rows = list(Dataset(store, done.outputs["candidates"], Candidate).records())
    names = [(row.prompt_id, row.index) for row in rows]
    assert len(names) == len(set(names)) == 4 * len({prompt for prompt, _ in names})


@contextmanager
def store_of(cluster: Cluster, url: str) -> Iterator[ObjectStore]:
    with cluster.forward("ur-minio", 9000) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.secret("ur-store"), "UR_S3_ENDPOINT": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        yield open_store(url)


def test_a_killed_generation_loses_and_doubles_no_row(cluster: Cluster) -> None:
    """Killed with some shards done and some not: what was done stays as it is, byte for byte."""
    document = with_policy("halved")
    document["spec"]["import"]["prompts"] = 120
    cluster.apply(document)

    with store_of(cluster, document["spec"]["store"]) as store:

        def done_shards() -> dict[str, bytes]:
            return {key: store.get(key) for key in store.list() if "generate" in key and key.endswith(".done")}

        before = cluster.until(
            lambda: found if len(found := done_shards()) > 1 else None, 4 * MINUTES, "shards of generation"
        )
        for pod in cluster.pods_of("halved", "generate.vlm"):
            cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        run = cluster.ended("halved", 8 * MINUTES)
        after = done_shards()
    assert_succeeded(cluster, run)
    assert len(before) < len(after)
    assert {key: after[key] for key in before} == before
    assert_rows_once(cluster, run)


@pytest.mark.skipif(not os.environ.get("UR_CONTROL_PLANE"), reason="UR_CONTROL_PLANE names no program that restarts it")
def test_the_api_server_restarts(cluster: Cluster) -> None:
    cluster.apply(judge_only("deaf"))
    cluster.running("deaf", "reward-train")
    subprocess.run([os.environ["UR_CONTROL_PLANE"], "restart", "kube-apiserver", "-KILL"], check=True, timeout=180)
    run = cluster.ended("deaf", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert_first_attempts(run)


def test_a_deleted_job_is_made_again(cluster: Cluster) -> None:
    cluster.apply(judge_only("orphan"))
    cluster.running("orphan", "reward-train")
    cluster.kubectl("delete", "pytorchjob", stage(cluster.get("arun", "orphan"), "reward-train")["job"])
    run = cluster.ended("orphan", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert stage(run, "reward-train")["attempt"] == 2


def test_a_bad_image_is_named_and_ends_the_run(cluster: Cluster) -> None:
    image = "localhost/no-such-image:1"
    cluster.apply(judge_only("imageless", cluster={"image": image, "startTimeoutSeconds": 30}))
    reason = cluster.until(lambda: cluster.get("arun", "imageless").get("status", {}).get("reason", "") in
                           ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull"), 1 * MINUTES, "the reason")  # fmt: skip
    assert reason
    run = cluster.ended("imageless", 3 * MINUTES)
    assert run["status"]["phase"] == "Failed"
    assert image in json.dumps(run["status"])
    assert not [
        pod for pod in cluster.pods_of("imageless", "import") if pod["status"]["phase"] in ("Pending", "Running")
    ]


def test_exhausted_memory_is_tried_once_more_and_told_with_its_limit(cluster: Cluster) -> None:
    document = judge_only("starved")
    document["spec"]["rewardTrain"] |= {"memory": "200Mi"}
    document["spec"]["cluster"] = {"retries": {"backoffSeconds": 1}}
    cluster.apply(document)
    run = cluster.ended("starved", 6 * MINUTES)
    assert run["status"]["phase"] == "Failed"
    failed = stage(run, "reward-train")
    assert failed["failures"] == {"OutOfMemory": 2}
    assert "200Mi" in failed["message"] + failed["lastFailure"]["message"]
    assert stage(run, "import")["state"] == "Done"
