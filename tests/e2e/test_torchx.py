"""The scheduler pytorchjob on a real cluster: run, status, log, list, cancel and delete, and what it says when things go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torchx.runner import Runner, get_runner
from torchx.specs import AppDef, AppState, Resource, Role

from .conftest import NAMESPACE, Cluster

IMPORT = ["ur.import_data", "--train_records", "640", "--eval_records", "16", "--prompts", "8", "--eval_prompts", "8"]
COUNT = "import time\nfor n in range({0}):\n print('line', n, flush=True); time.sleep({1})"


@pytest.fixture(autouse=True)
def in_the_namespace(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UR_NAMESPACE", cluster.namespace)


@pytest.fixture
def runner() -> Iterator[Runner]:
    with get_runner() as found:
        yield found


def torchx(*words: str, cwd: Path | None = None, code: int | None = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "torchx.cli.main", *words], capture_output=True, text=True, timeout=300, check=False, cwd=cwd
    )  # fmt: skip
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def submit(*words: str, cfg: str = "", cwd: Path | None = None) -> str:
    """The handle."""
    out = torchx("run", "-s", "pytorchjob", *(["-cfg", cfg] if cfg else []), *words, cwd=cwd)
    return out.strip().splitlines()[-1]


def counting(lines: int, pause: float, **role: Any) -> AppDef:
    """Numbered lines from below our entry, so that they are archived too."""
    words = ["-m", "unified_reward.launch.entry", "--", "-u", "-c", COUNT.format(lines, pause)]
    return AppDef(name="count", roles=[Role(
        name="count", image="", entrypoint=sys.executable, args=words, resource=Resource(cpu=1, gpu=0, memMB=256), **role
    )])  # fmt: skip


def until(runner: Runner, handle: str, state: AppState, seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while (status := runner.status(handle)) is None or status.state != state:
        assert time.monotonic() < deadline, f"{handle} is not {state}: {status}"
        time.sleep(1.0)
    return status


@pytest.fixture
def jobs() -> Iterator[list[str]]:
    """Handles that are deleted in the end, so that they take no cores of other tests."""
    handles: list[str] = []
    yield handles
    for handle in handles:
        with contextlib.suppress(AssertionError):
            torchx("delete", handle)


def test_every_component_is_taken_by_the_cluster_strictly(cluster: Cluster) -> None:
    shapes = {
        "train": ["--nodes", "2", "--processes", "2", "--min_nodes", "1"],
        "": ["--nodes", "2", "--processes", "2"],
    }
    for name in ("import_data", "reward_train", "reward_eval", "generate", "score", "dpo_train", "policy_eval"):
        more = next(words for part, words in shapes.items() if part in name)
        manifest = torchx("run", "-s", "pytorchjob", "--dryrun", f"ur.{name}", *more)
        told = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=manifest)
        assert "created (server dry run)" in told


def test_a_stage_by_hand_on_two_nodes_then_cancelled_and_its_log_outlives_it(
    cluster: Cluster, runner: Runner, jobs: list[str]
) -> None:
    torchx("run", "-s", "pytorchjob", "--wait", "--log", *IMPORT, "--run", "byhand")
    train = ["ur.reward_train", "--run", "byhand", "--steps", "2000", "--global_batch", "8", "--nodes", "2",
             "--processes", "2", "--checkpoint_every", "50"]  # fmt: skip
    handle = submit(*train, cfg="job_id=byhand-train")
    jobs.append(handle)
    assert submit(*train, cfg="job_id=byhand-train") == handle  # the same work again is no other job
    cluster.until(lambda: "progress" in torchx("log", handle), 120, "a line of progress")
    assert handle in torchx("list", "-s", "pytorchjob")
    assert "num_replicas': 2" in torchx("describe", handle)
    torchx("cancel", handle)
    status = until(runner, handle, AppState.CANCELLED)
    assert status.msg.startswith("cancelled by ")
    selector = "training.kubeflow.org/job-name=byhand-train"
    cluster.until(lambda: not cluster.get("pods", selector=selector), 90, "pods gone")
    torchx("delete", handle)
    assert "does not exist" in torchx("status", handle, code=1)
    assert "progress" in torchx("log", handle)  # from the store
    jobs.clear()
    resumed = submit(*train[:4], "60", *train[5:], cfg="job_id=byhand-again")
    jobs.append(resumed)
    until(runner, resumed, AppState.SUCCEEDED, 180)


def test_status_names_what_keeps_a_job_from_running(cluster: Cluster, runner: Runner, jobs: list[str]) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-fpga"},
             "spec": {"hard": {"requests.example.com/fpga": "0"}}}  # fmt: skip
    cluster.apply(quota)
    want = {
        "image=localhost/absent:1": "image",
        "node_selector=disk:absent": "Unschedulable: 0/",
        "secrets=absent": 'secret "absent" not found',
        "service_account=absent": 'serviceaccount "absent" not found',
        "gpu_resource=example.com/fpga": "exceeded quota: no-fpga",
        "queue=team": "queued in team",
    }
    handles = {}
    for number, (cfg, reason) in enumerate(want.items()):
        gpu = ["--gpu", "1"] if "fpga" in cfg else []
        handles[submit("ur.import_data", *gpu, cfg=f"job_id=blocked-{number},{cfg}")] = reason
    jobs += handles
    for handle, reason in handles.items():
        cluster.until(lambda h=handle, r=reason: r in torchx("status", h), 90, reason)  # type: ignore[misc]
        assert runner.status(handle).state is AppState.PENDING
    cluster.kubectl("delete", "resourcequota", "no-fpga")


def test_a_failure_shows_the_ranks_own_last_words(runner: Runner, jobs: list[str]) -> None:
    broken = counting(1, 0)
    broken.roles[0].args[-1] = "import sys\ndef deep(): raise ValueError('the cause')\ndeep()"
    greedy = counting(1, 0)
    greedy.roles[0].args[-1] = "data = bytearray(10**9)\nprint(len(data))"
    handle, large = (runner.run(app, "pytorchjob") for app in (broken, greedy))
    jobs += [handle, large]
    until(runner, handle, AppState.FAILED)
    shown = torchx("status", handle)
    assert "exitcode: 1" in shown
    assert "in deep" in shown
    assert "ValueError: the cause" in shown
    until(runner, large, AppState.FAILED)
    assert "had 256Mi of memory" in torchx("status", large)


def test_a_follower_loses_and_doubles_no_line_over_faults(runner: Runner, jobs: list[str]) -> None:
    handle = runner.run(counting(400, 0.1), "pytorchjob")
    jobs.append(handle)
    lines: list[str] = []
    follower = threading.Thread(target=lambda: lines.extend(runner.log_lines(handle, "count", 0, should_tail=True)))
    until(runner, handle, AppState.RUNNING)
    follower.start()
    time.sleep(5)
    program = os.environ.get("UR_CONTROL_PLANE")
    if program:  # the stream breaks in the middle of a line
        subprocess.run([program, "restart", "kube-apiserver", "-KILL"], check=True, timeout=180)
        time.sleep(10)
        subprocess.run([program, "restart", "kubelet", "-KILL"], check=True, timeout=180)
    follower.join(timeout=180)
    assert lines == [f"line {n}\n" for n in range(400)]


def test_what_a_killed_pod_wrote_is_read_from_the_store(cluster: Cluster, runner: Runner, jobs: list[str]) -> None:
    handle = runner.run(counting(100_000, 0.05), "pytorchjob")
    jobs.append(handle)
    name = handle.rpartition(":")[2]
    lines: list[str] = []
    follower = threading.Thread(target=lambda: lines.extend(runner.log_lines(handle, "count", 0, should_tail=True)))
    until(runner, handle, AppState.RUNNING)
    follower.start()
    time.sleep(15)  # the archive is written every five seconds
    cluster.kubectl("delete", "pytorchjob", name, "--wait=false")
    follower.join(timeout=150)
    assert not follower.is_alive()
    assert len(lines) > 150
    assert lines == [f"line {n}\n" for n in range(len(lines))]
    archived = torchx("log", handle).splitlines()
    assert [line.partition(" ")[2] for line in archived] == [line.rstrip() for line in lines]
    jobs.clear()


def test_an_elastic_job_goes_on_when_a_node_is_killed(cluster: Cluster, runner: Runner, jobs: list[str]) -> None:
    torchx("run", "-s", "pytorchjob", "--wait", *IMPORT, "--run", "elastic")
    handle = submit(
        "ur.reward_train", "--run", "elastic", "--seed", "7", "--steps", "300", "--global_batch", "8",
        "--nodes", "2", "--min_nodes", "1",
        "--processes", "2", "--checkpoint_every", "20", cfg="job_id=elastic",
    )  # fmt: skip
    jobs.append(handle)
    cluster.until(lambda: "progress" in torchx("log", handle), 120, "a line of progress")
    first = cluster.get("pod", "elastic-worker-1")["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "elastic-worker-1", "--grace-period=0", "--force")
    until(runner, handle, AppState.SUCCEEDED, 240)
    assert cluster.get("pod", "elastic-worker-1")["metadata"]["uid"] != first
    assert cluster.get("pod", "elastic-worker-0")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_job_that_was_killed_is_tried_again_and_waited_for(cluster: Cluster, runner: Runner, jobs: list[str]) -> None:
    handle = runner.run(counting(100, 0.2), "pytorchjob")
    jobs.append(handle)
    name = handle.rpartition(":")[2]
    cluster.until(lambda: "line 1" in torchx("log", handle), 120, "a line")
    states: list[AppState] = []
    waiter = threading.Thread(target=lambda: states.append(runner.wait(handle, wait_interval=1).state))
    waiter.start()
    cluster.kubectl("exec", f"{name}-worker-0", "--", "python", "-c", KILL_COUNTING)
    waiter.join(timeout=180)
    assert states == [AppState.SUCCEEDED]
    assert cluster.get("pytorchjob", f"{name}-a2")["metadata"]["ownerReferences"][0]["name"] == name
    shown = [line.partition(" ")[2] for line in torchx("log", handle).splitlines()]
    assert shown[-100:] == [f"line {n}" for n in range(100)]


# Process 1 of a container cannot be killed from within; what it started can.
KILL_COUNTING = """
import os, pathlib, signal
for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    number = int(command.parent.name)
    if number not in (1, os.getpid()) and b"print('line'" in command.read_bytes():
        os.kill(number, signal.SIGKILL)
"""


def test_edits_ride_along(cluster: Cluster, runner: Runner, jobs: list[str], tmp_path: Path) -> None:
    (tmp_path / "src/mine").mkdir(parents=True)
    (tmp_path / "src/mine/__init__.py").write_text("print('an edit', flush=True)\n")
    app = counting(1, 0)
    app.roles[0].args[-2:] = ["-c", "import mine"]
    handle = runner.run(app, "pytorchjob", cfg={"workspace": str(tmp_path)})
    jobs.append(handle)
    until(runner, handle, AppState.SUCCEEDED)
    assert torchx("log", handle).strip().endswith("an edit")
    job = cluster.get("pytorchjob", handle.rpartition(":")[2])
    assert '"UR_WORKSPACE"' in json.dumps(job)


def test_a_namespace_that_is_not_there_is_one_line() -> None:
    told = torchx("run", "-s", "pytorchjob", "-cfg", f"namespace={NAMESPACE}-absent", "ur.import_data", code=2)
    assert f"namespace is {NAMESPACE}-absent: the cluster has no such namespace." in told
    assert "Traceback" not in told
