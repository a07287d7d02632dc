"""An app of several attempts, as TorchX's commands see it: a server answers as the API server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torchx.specs import AppState

from unified_reward.launch import scheduler as module
from unified_reward.launch.job_status import CANCELLED_AT, RETRIES
from unified_reward.launch.pytorchjob import APP, ATTEMPT, INDEX_LABEL, JOB_LABEL, MANAGED_BY, MANAGER
from unified_reward.launch.scheduler import PyTorchJobScheduler
from unified_reward.launch.times import rfc3339

from ..api_server import Api  # noqa: TID252  (tests are no package that could be named)

JOBS, PODS = "/apis/kubeflow.org/v1/namespaces/ml/pytorchjobs", "/api/v1/namespaces/ml/pods"


def attempt(number: int, condition: str = "", ended: float = 0.0) -> dict[str, Any]:
    name = "j" if number == 1 else f"j-a{number}"
    template = {"spec": {"containers": [{"name": "pytorch", "image": "i:1", "command": ["python"]}]}}
    said = [{"type": condition, "status": "True", "lastTransitionTime": rfc3339(ended)}] if condition else []
    return {
        "metadata": {
            "name": name, "namespace": "ml", "uid": name, "creationTimestamp": rfc3339(number),
            "labels": {APP: "j", MANAGED_BY: MANAGER, ATTEMPT: str(number)},
            "annotations": {RETRIES: "preempted=1"},
        },
        "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1, "template": template}}},
        "status": {"conditions": said},
    }  # fmt: skip


def pod(job: dict[str, Any], code: int) -> dict[str, Any]:
    name = f"{job['metadata']['name']}-worker-0"
    terminated = {"exitCode": code, "finishedAt": rfc3339(time.time())}
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": rfc3339(time.time()),
                     "labels": {INDEX_LABEL: "0", MANAGED_BY: MANAGER, JOB_LABEL: job["metadata"]["name"]}},
        "spec": {"restartPolicy": "Never"},
        "status": {"phase": "Failed" if code else "Succeeded",
                   "containerStatuses": [{"name": "pytorch", "restartCount": 0, "state": {"terminated": terminated}}]},
    }  # fmt: skip


def log(api: Api, job: dict[str, Any], text: str) -> None:
    path = f"{PODS}/{job['metadata']['name']}-worker-0/log"
    api.objects[path] = f"2026-11-24T10:00:00.000000000Z {text}\n".encode()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    found = Api()
    monkeypatch.setenv("KUBECONFIG", found.kubeconfig(tmp_path))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    (tmp_path / "torchxconfig").touch()
    monkeypatch.setenv("TORCHXCONFIG", str(tmp_path / "torchxconfig"))
    monkeypatch.delenv("UR_NAMESPACE", raising=False)
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture
def stopped(api: Api) -> dict[str, Any]:
    """The first attempt, just ended by SIGTERM."""
    job = attempt(1, "Failed", time.time())
    api.objects |= {JOBS: [job], PODS: [pod(job, 143)]}
    log(api, job, "one")
    return job


def described(scheduler: PyTorchJobScheduler) -> tuple[AppState, str]:
    found = scheduler.describe("ml:j")
    assert found is not None
    assert [one.state for one in scheduler.list()] == [found.state]
    return found.state, found.msg


def test_status_waits_for_the_next_attempt_and_not_for_ever(api: Api, stopped: dict[str, Any]) -> None:
    scheduler = PyTorchJobScheduler("torchx")
    why = "worker-0 failed: stopped by SIGTERM (exit code 143)"
    assert described(scheduler) == (AppState.PENDING, f"{why}; attempt 2 follows")
    stopped["status"]["conditions"][0]["lastTransitionTime"] = rfc3339(time.time() - 100)
    assert described(scheduler) == (AppState.FAILED, f"{why}; no operator has tried it again")
    second = attempt(2, "Failed", time.time())
    second["metadata"]["annotations"]["unifiedreward.dev/failures"] = "preempted=1"
    api.objects |= {JOBS: [stopped, second], PODS: [pod(stopped, 143), pod(second, 143)]}
    assert described(scheduler) == (AppState.FAILED, f"attempt 2: {why}")


def test_cancel_keeps_the_next_attempt_from_coming(api: Api, stopped: dict[str, Any]) -> None:
    scheduler = PyTorchJobScheduler("torchx")
    scheduler._cancel_existing("ml:j")
    (path, change), *more = api.written
    assert (path, more, list(change)) == (f"{JOBS}/j", [], ["metadata"])
    stopped["metadata"]["annotations"] |= change["metadata"]["annotations"]
    assert CANCELLED_AT in stopped["metadata"]["annotations"]
    assert described(scheduler)[0] is AppState.FAILED
    scheduler._cancel_existing("ml:j")
    assert len(api.written) == 1


def test_a_follower_reads_on_in_the_next_attempt(api: Api, stopped: dict[str, Any]) -> None:
    lines = iter(PyTorchJobScheduler("torchx").log_iter("ml:j", "worker", 0, should_tail=True))
    assert next(lines) == "one\n"
    second = attempt(2, "Succeeded", time.time())
    log(api, second, "two")

    def later() -> None:
        time.sleep(0.3)
        api.objects |= {JOBS: [stopped, second], PODS: [pod(stopped, 143), pod(second, 0)]}

    thread = threading.Thread(target=later)
    thread.start()
    assert list(lines) == ["two\n"]
    thread.join()
