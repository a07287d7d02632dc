"""A run on a cluster as a person sees it: the resource becomes what the views of this machine show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unified_reward.cli.cluster import as_run_status, written
from unified_reward.cli.view import progress_of, reason
from unified_reward.config import load_document
from unified_reward.errors import UserError
from unified_reward.launch.causes import Cause
from unified_reward.launch.kube import connect
from unified_reward.pipeline.decide import RunState, State

SPEC: dict[str, Any] = {
    "store": "s3://bucket/x",
    "rewardTrain": {"steps": 5},
    "policies": [{"name": "vlm", "kind": "vlm", "base": "builtin:shapes/vlm_policy"}],
}


def resource(**status: Any) -> dict[str, Any]:
    metadata = {"name": "r", "namespace": "ns", "generation": 1, "resourceVersion": "7", "uid": "u"}
    return {"metadata": metadata, "spec": SPEC, "status": status}


def test_what_the_operator_wrote_is_shown_stage_by_stage() -> None:
    stages = [
        {"name": "import", "state": "Done", "key": "0" * 16, "reused": True, "seconds": 3.0, "cpuSeconds": 2.0,
         "peakMemoryBytes": 7},
        {"name": "reward-train", "state": "Running", "attempt": 2, "cpuSeconds": 1.5, "failures": {"Preempted": 1},
         "started": "2026-11-24T10:00:00Z", "progress": {"percent": 40, "text": "2/5 steps"}},
        {"name": "score/vlm", "state": "Waiting"},
        {"name": "reward-eval", "state": "Failed", "reason": "UserError", "message": "spec is wrong"},
    ]  # fmt: skip
    found = as_run_status(resource(phase="Running", stages=stages))
    assert found.state is RunState.RUNNING
    train = found.stages["reward-train"]
    assert (train.failures, train.attempt, progress_of(train)) == ([Cause.PREEMPTED], 2, "2/5 steps")
    assert (found.stages["import"].reused, found.stages["import"].key) == (True, "0" * 16)
    assert (found.cost.cpu_seconds, found.cost.peak_rss_bytes) == (3.5, 7)
    assert reason(found.stages["reward-eval"], found.stages) == "UserError: spec is wrong"
    assert reason(found.stages["generate/vlm"], found.stages) == "waits for the operator"
    assert reason(found.stages["score/vlm"], found.stages).startswith("after ")


def test_a_run_that_no_operator_has_seen_is_shown_too() -> None:
    found = as_run_status(resource())
    assert {stage.state for stage in found.stages.values()} == {State.WAITING}
    assert reason(found.stages["import"], found.stages) == "waits for the operator"


def test_the_cluster_gets_what_was_written_and_no_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    document = {
        "apiVersion": "unifiedreward.dev/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": "r"},
        "spec": SPEC,
    }
    file.write_text(yaml.safe_dump(document))
    sent = written(load_document(file, ["spec.seed=3"]))
    assert sent == {**document, "spec": {**SPEC, "seed": 3}}


def test_a_kubeconfig_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"KUBECONFIG is .*none: it leads to no cluster"):
        connect()
