"""What may die, dies, and the run ends as it should: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import pytest

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
    cluster.apply(judge_only("killed"))
    pod = cluster.running("killed", "reward-train")
    cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    cluster.until(lambda: any(p["metadata"]["labels"]["unifiedreward.dev/attempt"] == "2"
                              for p in cluster.pods_of("killed", "reward-train")), 2 * MINUTES, "a second attempt")  # fmt: skip
    pod = cluster.until(lambda: next((p["metadata"]["name"] for p in cluster.pods_of("killed", "reward-train")
                                      if p["metadata"]["labels"]["unifiedreward.dev/attempt"] == "2"
                                      and "progress" in cluster.kubectl("logs", p["metadata"]["name"], check=False)), ""),
                        3 * MINUTES, "the second attempt at work")  # fmt: skip
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": cluster.namespace},
    }
    cluster.kubectl(
        "create",
        "--raw",
        f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction",
        "-f",
        "-",
        text=json.dumps(eviction),
    )
    run = cluster.ended("killed", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert stage(run, "reward-train")["attempt"] == 3
    assert stage(run, "reward-train")["failures"] == {"Preempted": 2}


def test_the_operator_is_killed(cluster: Cluster) -> None:
    cluster.apply(judge_only("headless", steps=60))
    cluster.running("headless", "reward-train")
    cluster.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=operator", "--grace-period=0", "--force")
    run = cluster.ended("headless", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert {each["attempt"] for each in run["status"]["stages"]} == {1}


def test_mlflow_is_away_for_a_minute(cluster: Cluster) -> None:
    cluster.apply(judge_only("untracked", steps=60))
    cluster.running("untracked", "reward-train")
    cluster.kubectl("scale", "deployment/ur-mlflow", "--replicas=0")
    time.sleep(OUTAGE_SECONDS)
    cluster.kubectl("scale", "deployment/ur-mlflow", "--replicas=1")
    cluster.kubectl("rollout", "status", "deployment/ur-mlflow", "--timeout=5m")
    assert_succeeded(cluster, cluster.ended("untracked", 8 * MINUTES))


def test_the_store_is_away_for_a_minute(cluster: Cluster) -> None:
    cluster.apply(with_policy("storeless", steps=60))
    cluster.running("storeless", "reward-train")
    cluster.kubectl("scale", "statefulset/ur-minio", "--replicas=0")
    time.sleep(OUTAGE_SECONDS)
    cluster.kubectl("scale", "statefulset/ur-minio", "--replicas=1")
    run = cluster.ended("storeless", 10 * MINUTES)
    assert_succeeded(cluster, run)
    assert {each["attempt"] for each in run["status"]["stages"]} == {1}
    assert_rows_once(cluster, run)


def assert_rows_once(cluster: Cluster, run: dict[str, Any]) -> None:
    """Each candidate of each prompt is in the store once."""
    from unified_reward.records import Candidate
    from unified_reward.stages.context import read_commit
    from unified_reward.store import Dataset, open_store

    secret = cluster.secret("ur-store")
    with cluster.forward("ur-minio", 9000) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in {**secret, "UR_S3_ENDPOINT": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        store = open_store(run["spec"]["store"])
        done = read_commit(store, "generate", stage(run, "generate/vlm")["key"])
        assert done is not None
        rows = list(Dataset(store, done.outputs["candidates"], Candidate))
    names = [(row.prompt_id, row.index) for row in rows]
    assert len(names) == len(set(names)) == 4 * len({prompt for prompt, _ in names})


def test_a_killed_generation_loses_and_doubles_no_row(cluster: Cluster) -> None:
    cluster.apply(with_policy("halved"))
    pods = cluster.until(lambda: [p for p in cluster.pods_of("halved", "generate.vlm") if p["status"]["phase"] == "Running"],
                         4 * MINUTES, "generation")  # fmt: skip
    cluster.kubectl("delete", "pod", pods[0]["metadata"]["name"], "--grace-period=0", "--force")
    run = cluster.ended("halved", 8 * MINUTES)
    assert_succeeded(cluster, run)
    assert_rows_once(cluster, run)


@pytest.mark.skipif(not os.environ.get("UR_CONTROL_PLANE"), reason="UR_CONTROL_PLANE names no program that restarts it")
def test_the_api_server_restarts(cluster: Cluster) -> None:
    cluster.apply(judge_only("deaf", steps=60))
    cluster.running("deaf", "reward-train")
    subprocess.run([os.environ["UR_CONTROL_PLANE"], "restart", "kube-apiserver", "-KILL"], check=True, timeout=180)
    run = cluster.ended("deaf", 6 * MINUTES)
    assert_succeeded(cluster, run)
    assert {each["attempt"] for each in run["status"]["stages"]} == {1}


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
