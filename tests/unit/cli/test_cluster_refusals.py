"""What a person asks of a cluster that cannot answer: each mistake is one line with the way out, and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unified_reward.cli import main

from ..api_server import Api  # noqa: TID252  (tests are no package that could be named)

RUNS = "/apis/unifiedreward.dev/v1alpha1/namespaces/ml/alignmentruns"
PODS, JOB = "/api/v1/namespaces/ml/pods", "/apis/kubeflow.org/v1/namespaces/ml/pytorchjobs/r-import-a1"
ASKED = (["status", "r"], ["logs", "r", "-f"], ["logs", "r"], ["cancel", "r"], ["summary", "r"])
RUN: dict[str, Any] = {
    "metadata": {"name": "r", "namespace": "ml", "generation": 1, "resourceVersion": "7"},
    "spec": {
        "store": "s3://b/x",
        "rewardTrain": {"steps": 5},
        "policies": [{"name": "v", "kind": "vlm", "base": "builtin:shapes/vlm_policy"}],
    },
    "status": {
        "phase": "Running",
        "stages": [{"name": "import", "state": "Running", "attempt": 1, "job": "r-import-a1"}],
    },
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    found = Api()
    monkeypatch.setenv("KUBECONFIG", found.kubeconfig(tmp_path))
    monkeypatch.delenv("UR_NAMESPACE", raising=False)
    monkeypatch.delenv("UR_KUBE_CONTEXT", raising=False)
    yield found
    found.http.shutdown()
    found.http.server_close()


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line."""
    monkeypatch.setattr(sys, "argv", ["unified-reward", *words, "--on", "cluster"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == 2, shown
    lines = shown.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_a_wrong_name(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    line = "error: run is r: there is no such run in namespace ml. Set UR_NAMESPACE, or start one."
    assert told(monkeypatch, capsys, words) == line
    api.objects[RUNS] = [RUN | {"metadata": {"name": "other", "labels": {}}}]
    assert told(monkeypatch, capsys, words).endswith("Runs there: other.")
    words = [word.replace("r", "../r") if word == "r" else word for word in words]
    assert "run is ../r: there is no such run" in told(monkeypatch, capsys, words)


@pytest.mark.parametrize("words", [*ASKED, ["status"]], ids=" ".join)
def test_no_such_namespace_no_definition_no_right(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert "namespace is My_NS: no namespace can have this name" in told(monkeypatch, capsys, [*words, "-n", "My_NS"])
    line = "error: namespace is mll: the cluster has no such namespace. Name another with -n"
    assert told(monkeypatch, capsys, [*words, "-n", "mll"]).startswith(line)
    api.forbidden = ("GET /api/v1/namespaces/ml", "GET " + RUNS)
    line = told(monkeypatch, capsys, words)
    assert "namespace is ml: you may not do this there (" in line
    assert "Ask an admin for the chart's Role ur-user" in line
    api.forbidden, api.unknown = (), ("/apis/unifiedreward.dev",)
    line = told(monkeypatch, capsys, words)
    assert "it does not know alignmentruns. Install the operator: helm install" in line


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (["logs", "r", "-f"], f"GET {PODS}/r-import-a1-worker-0/log"),
        (["logs", "r"], f"GET {PODS}"),
        (["logs", "r", "-f"], "GET /api/v1/namespaces/ml/configmaps"),
        (["cancel", "r"], f"PATCH {RUNS}"),
        (["summary", "r"], "GET /api/v1/namespaces/ml/secrets"),
    ],
)
def test_a_right_that_is_missing_half_way(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], forbidden: str
) -> None:
    labels = {"training.kubeflow.org/replica-index": "0", "training.kubeflow.org/job-name": "r-import-a1"}
    pod = {"metadata": {"name": "r-import-a1-worker-0", "uid": "u", "creationTimestamp": "t", "labels": labels}}
    api.objects |= {f"{RUNS}/r": RUN, PODS: [pod | {"status": {"phase": "Running"}}]}
    api.objects[JOB] = {"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}}
    api.forbidden = (forbidden,)
    assert "you may not do this there" in told(monkeypatch, capsys, words)


@pytest.mark.parametrize("text", ["", "{", "text", "[1]", "apiVersion: v1\nkind: Config\n", "\x00"])
def test_a_kubeconfig_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    line = told(monkeypatch, capsys, ["status"])
    assert "kubeconfig: it leads to no cluster (" in line or "kubeconfig: it is no kubeconfig." in line
    assert "kubectl config get-contexts" in line


def test_a_run_of_a_newer_version(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.objects[f"{RUNS}/r"] = RUN | {"spec": RUN["spec"] | {"brandNew": 1}}
    assert "brandNew" in told(monkeypatch, capsys, ["status", "r"])
