"""Runs against a real MLflow server over HTTP: what is there afterwards, through an outage, SIGTERM and kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from unified_reward.names import TRACKING_SPOOL
from unified_reward.tracking import (
    Courier,
    StageRun,
    Target,
    find_run_id,
    stage_run,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]
START_TIMEOUT_S = 120


class Server:
    """An MLflow server process on a port of its own, that can die and come back."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory = directory
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db",
            "--artifacts-destination", str(self.directory / "artifacts"),
        ]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = (self.directory / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, env=os.environ | quiet, stdout=log, stderr=log, cwd=self.directory, start_new_session=True
        )

    def wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            time.sleep(0.1)
        raise RuntimeError(f"the MLflow server did not start:\n{(self.directory / 'server.log').read_text()}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, endpoint: str, /, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{endpoint}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.get("api/2.0/mlflow/runs/get", run_id=run_id)["run"])

    def status(self, run_id: str) -> str:
        return str(self.run(run_id)["info"]["status"])

    def history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        found = self.get("api/2.0/mlflow/metrics/get-history", run_id=run_id, metric_key=key, max_results="5000")
        return [(int(metric.get("step", 0)), float(metric["value"])) for metric in found.get("metrics", [])]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("mlflow"))
    started.start()
    try:
        started.wait()
        yield started
    finally:
        started.kill()


@pytest.fixture
def target(server: Server) -> Target:
    return Target(server.url, "shapes")


def pairs(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in items}


def log_everything(run: StageRun, directory: Path) -> None:
    from unified_reward.tracking import figures

    run.params({"steps": 40, "optimizer": {"name": "muon"}})
    run.metrics({"loss": 0.5, "odd": float("nan")}, 1)
    run.input("judge", prefix="stages/import/ab", digest="ab" * 32, source="s3://bucket/ur", context="training", rows=9)
    run.figure("loss", figures.curves({"loss": [(0, 1.0), (1, 0.5)]}, y_label="loss"))
    run.image("sample", np.zeros((4, 4, 3), np.uint8))
    run.table("verdicts", [{"prompt": "<script>alert(1)</script>", "p": 0.9}])
    run.text("notes.txt", "plain")
    run.html("report", "<!doctype html><title>r</title>")
    (directory / "model").mkdir()
    (directory / "model" / "config.json").write_text("{}")
    run.register_model("judge", directory / "model", {"data.sha256": "ab" * 32})


def test_a_parent_and_its_stage_are_there_with_all_they_logged(
    server: Server, target: Target, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        stage_run(target, tmp_path / "spool", key="exec", name="shapes", system_metrics=False) as parent,
        stage_run(target, tmp_path / "spool", key="exec-rt", name="reward-train", parent_key="exec") as run,
    ):
        parent.params({"seed": 0})
        log_everything(run, tmp_path)

    assert capfd.readouterr().out == ""
    assert list((tmp_path / "spool").iterdir()) == []
    parent_id, run_id = find_run_id(target, "exec"), find_run_id(target, "exec-rt")
    found = server.run(run_id)
    data = found["data"]
    assert server.status(parent_id) == found["info"]["status"] == "FINISHED"
    assert pairs(data["tags"])["mlflow.parentRunId"] == parent_id
    assert pairs(data["params"]) == {"steps": "40", "optimizer.name": "muon"}
    assert server.history(run_id, "loss") == [(1, 0.5)]
    assert np.isnan(server.history(run_id, "odd")[0][1])
    assert server.history(run_id, "system/process_tree_memory_megabytes")
    (dataset,) = found["inputs"]["dataset_inputs"]
    assert dataset["dataset"]["digest"] == "ab" * 16
    assert json.loads(dataset["dataset"]["profile"]) == {
        "sha256": "ab" * 32,
        "prefix": "stages/import/ab",
        "num_rows": 9,
    }
    assert json.loads(dataset["dataset"]["source"]) == {"uri": "s3://bucket/ur/stages/import/ab"}
    listed = [
        server.get("api/2.0/mlflow/artifacts/list", run_id=run_id, path=p).get("files", []) for p in ("", "tables")
    ]
    names = {file["path"] for file in listed[0] + listed[1]}
    assert {"figures", "images", "tables/verdicts.json", "notes.txt", "report.html", "model"} <= names
    table = server.get("get-artifact", run_uuid=run_id, path="tables/verdicts.json")
    assert table == {"columns": ["prompt", "p"], "data": [["<script>alert(1)</script>", 0.9]]}
    versions = server.get("api/2.0/mlflow/model-versions/search", filter="name='judge'")["model_versions"]
    assert [(v["run_id"], v["source"]) for v in versions] == [(run_id, f"runs:/{run_id}/model")]
    assert pairs(versions[0]["tags"]) == {"data.sha256": "ab" * 32}


def test_delivering_a_spool_twice_changes_nothing(
    server: Server, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process dies after MLflow has an entry and before the cursor says so."""
    monkeypatch.setenv(TRACKING_SPOOL, str(tmp_path / "spool"))
    with stage_run(target, tmp_path, key="twice", name="twice", system_metrics=False) as run:
        log_everything(run, tmp_path)
    shutil.copytree(tmp_path / "spool", tmp_path / "again")
    Courier(tmp_path / "spool").deliver_once()
    run_id = find_run_id(target, "twice")
    before = server.run(run_id)
    Courier(tmp_path / "again").deliver_once()
    assert find_run_id(target, "twice") == run_id
    assert server.run(run_id) == before
    assert server.history(run_id, "loss") == [(1, 0.5)]
    versions = server.get("api/2.0/mlflow/model-versions/search", filter="name='judge'")["model_versions"]
    assert [v["run_id"] for v in versions].count(run_id) == 1


def test_an_outage_loses_nothing_and_does_not_hold_up_the_stage(server: Server, target: Target, tmp_path: Path) -> None:
    steps = 4000
    with stage_run(target, tmp_path, key="outage", name="outage", system_metrics=False, close_timeout_s=120) as run:
        for step in range(steps):
            run.metrics({"loss": step / 7, "accuracy": 1 / (step + 1)}, step)
            if step == steps // 4:
                while not run.run_id:
                    time.sleep(0.05)
            if step == steps // 2:
                server.kill()
            if step == steps * 3 // 4:
                run.text("in-the-dark.txt", "written while the server was away")
                time.sleep(3)
        server.start()
        server.wait()
    run_id = find_run_id(target, "outage")
    assert server.history(run_id, "loss") == [(step, step / 7) for step in range(steps)]
    assert server.history(run_id, "accuracy") == [(step, 1 / (step + 1)) for step in range(steps)]
    assert server.status(run_id) == "FINISHED"
    assert list(tmp_path.iterdir()) == []


STAGE = """
import sys, time
from pathlib import Path
from unified_reward.tracking import Target, stage_run
with stage_run(Target(sys.argv[1], "shapes"), Path(sys.argv[2]), key=sys.argv[3], name=sys.argv[3],
               parent_run_id=sys.argv[4], system_metrics=False) as run:
    run.metric("loss", 1.0, 0)
    while not run.run_id:
        time.sleep(0.05)
    print(run.run_id, flush=True)
    time.sleep(600)
"""


def stage_process(server: Server, spool: Path, key: str, parent: str = "") -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, server.url, str(spool), key, parent], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_sigterm_closes_the_run_as_killed(server: Server, tmp_path: Path) -> None:
    process, run_id = stage_process(server, tmp_path, "terminated")
    assert server.status(run_id) == "RUNNING"
    process.terminate()
    assert process.wait(60) == 143
    assert server.status(run_id) == "KILLED"


def test_kill_9_is_closed_by_the_next_courier_and_resumed_by_the_next_attempt(
    server: Server, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, run_id = stage_process(server, tmp_path, "killed")
    process.kill()
    process.wait()
    assert server.status(run_id) == "RUNNING"
    courier = Courier(tmp_path)
    courier.deliver_once()
    assert server.status(run_id) == "KILLED"

    monkeypatch.setenv(TRACKING_SPOOL, str(tmp_path))
    with stage_run(target, tmp_path, key="killed", name="killed", system_metrics=False) as run:
        courier.deliver_once()
        assert server.status(run_id) == "RUNNING"
        run.metric("loss", 0.9, 0)
        run.metric("loss", 0.8, 1)
    courier.deliver_once()
    assert server.status(run_id) == "FINISHED"
    assert server.history(run_id, "loss") == [(0, 1.0), (1, 0.8)]
    assert pairs(server.run(run_id)["data"]["tags"])["unified_reward.attempts"] == "2"


def test_what_cannot_be_delivered_in_time_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with stage_run(Target(nobody, "e"), tmp_path, key="k", name="n", system_metrics=False, close_timeout_s=0.5) as run:
        run.metric("loss", 1.0, 0)
    assert f"3 entries wait in {tmp_path / 'k'} and are delivered at the next start" in caplog.text
    assert (tmp_path / "k" / "entries.jsonl").read_text().count("\n") == 3
