"""The run of the demo on a cluster: the same file, the same quality, everything where a person finds it."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import NAMESPACE, ROOT, Cluster

PAIRS = {
    "image_generation_pair": 0.95,
    "image_understanding_pair": 0.95,
    "video_generation_pair": 0.85,
    "video_understanding_pair": 0.85,
}
POINT = 0.9  # Pearson


def test_the_installation_tests_itself(cluster: Cluster) -> None:
    done = subprocess.run(
        ["helm", "test", "ur", "-n", NAMESPACE, "--timeout", "5m"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr + cluster.kubectl("get", "pods", check=False)


@pytest.mark.timeout(2400)
def test_the_demo_reaches_on_a_cluster_what_it_reaches_on_a_laptop(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(ROOT / "jobs/examples/shapes.yaml"))
    run = cluster.ended("shapes", 2100)
    assert run["status"]["phase"] == "Succeeded", json.dumps(run["status"], indent=1)
    cluster.kubectl("wait", "--for=condition=Succeeded", "arun/shapes", "--timeout=5s")
    jobs = cluster.get("pytorchjobs", selector="unifiedreward.dev/run=shapes")
    nodes = {job["metadata"]["labels"]["unifiedreward.dev/node"]: job for job in jobs}
    assert len({node.split(".")[0] for node in nodes}) == 7
    assert nodes["reward-train"]["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2

    summary = json.loads(_command("summary", "shapes", "--on", "cluster", "--json"))
    for task, least in PAIRS.items():
        assert summary["judge"][task]["accuracy"] >= least, summary["judge"]
    assert all(values["pearson"] >= POINT for values in summary["judge"].values() if "pearson" in values)
    assert summary["policies"]["vlm"]["after"] - summary["policies"]["vlm"]["before"] >= 0.12
    assert summary["policies"]["image"]["after"] - summary["policies"]["image"]["before"] >= 0.08
    _look_at_tracking(cluster, run["status"]["tracking"]["runId"])


def _look_at_tracking(cluster: Cluster, parent_id: str) -> None:
    """Every stage is in MLflow, closed, with artifacts that came through the store."""
    from mlflow import MlflowClient

    with cluster.forward("ur-mlflow", 5000) as port:
        client = MlflowClient(f"http://127.0.0.1:{port}")
        parent = client.get_run(parent_id)
        children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'")
        assert len(children) == 11
        assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
        assert parent.info.artifact_uri.startswith("mlflow-artifacts:")
        assert "report.html" in [artifact.path for artifact in client.list_artifacts(parent_id)]


def _command(*words: str) -> str:
    done = subprocess.run(
        ["unified-reward", *words, "--namespace", NAMESPACE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
