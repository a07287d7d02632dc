"""What a run writes, how it ends, and that logging never imports MLflow or raises."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unified_reward.errors import UserError
from unified_reward.names import TRACKING_SPOOL
from unified_reward.tracking import StageRun, Target, embedded_uri, runs_url, stage_run, ui_command
from unified_reward.tracking.runs import flatten, outcome
from unified_reward.tracking.spool import ENTRIES, SpoolWriter, read_entries


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    return StageRun(SpoolWriter(tmp_path / "run"))


def entries(directory: Path) -> list[dict[str, object]]:
    return read_entries(directory / ENTRIES, 0)[0]


def test_parameters_are_flat_bounded_and_hold_no_password() -> None:
    flat = flatten({"a": {"b": [1, 2], "c": None}, "long": "x" * 900, "uri": "http://me:secret@host/x", "e+f": ""})
    assert flat["a.b"] == "[1, 2]"
    assert len(flat["long"]) == 500
    assert flat["uri"] == "http://***@host/x"
    assert set(flat) == {"a.b", "long", "uri"}


def test_a_resumed_loop_logs_each_step_once(tmp_path: Path) -> None:
    first = SpoolWriter(tmp_path / "run")
    for step in range(5):
        StageRun(first).metrics({"loss": 1.0}, step)
    first.close()
    resumed = StageRun(SpoolWriter(tmp_path / "run"))
    for step in range(3, 7):
        resumed.metrics({"loss": 2.0}, step)
    assert [e["step"] for e in entries(tmp_path / "run")] == [0, 1, 2, 3, 4, 5, 6]


def test_a_table_has_every_column_and_no_nan(run: StageRun, tmp_path: Path) -> None:
    run.table("verdicts", [{"a": float("nan"), "b": "<script>"}, {"c": np.float32(0.5), "a": 1}])
    (entry,) = entries(tmp_path / "run")
    table = json.loads((tmp_path / "run" / str(entry["payload"])).read_text())
    assert table["columns"] == ["a", "b", "c"]
    assert table["data"][0] == [None, "<script>", None]
    assert entry["path"] == "tables/verdicts.json"


@pytest.mark.parametrize("path", ["../x.txt", "/etc/x.txt", ".."])
def test_artifacts_stay_inside_the_run(run: StageRun, path: str) -> None:
    with pytest.raises(ValueError, match="must be relative"):
        run.text(path, "x")


def test_a_full_disk_is_told_once_and_counted(
    run: StageRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    append = SpoolWriter.append

    def full(self: SpoolWriter, entry: dict[str, object]) -> None:
        if entry["op"] == "metrics":
            raise OSError(28, "No space left on device")
        append(self, entry)

    monkeypatch.setattr(SpoolWriter, "append", full)
    run.metric("loss", 1.0, 0)
    run.metric("loss", 1.0, 1)
    run.end("FINISHED")
    assert len(caplog.records) == 1
    assert {"unified_reward.lost_entries": "2"} in [e.get("values") for e in entries(tmp_path / "run")]


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (ValueError("x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(2), "FAILED"),
    ],
    ids=str,
)
def test_how_a_block_ends_decides_the_status(raised: BaseException, status: str) -> None:
    assert outcome(raised)[0] == status


def test_sigterm_ends_a_stage_with_143_and_says_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from unified_reward.tracking import *\n"
        "root = Path(sys.argv[1])\n"
        "with stage_run(Target(embedded_uri(root), 'e'), root, key='k', name='n') as run:\n"
        "    run.metric('loss', 1.0, 0); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    environment = {TRACKING_SPOOL: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    end = entries(tmp_path / "k")[-1]
    assert (end["op"], end["status"]) == ("end", "KILLED")


def test_a_stage_that_spools_imports_neither_mlflow_nor_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from unified_reward.tracking import *\n"
        "root = Path(sys.argv[1])\n"
        "with stage_run(Target(embedded_uri(root), 'e'), root, key='k', name='n') as run:\n"
        "    run.params({'a': 1}); run.metric('loss', 1.0, 0); run.table('t', [{'a': 1}])\n"
        "assert not {'mlflow', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={TRACKING_SPOOL: str(tmp_path)}, check=True)


def test_a_run_without_target_logs_nowhere(tmp_path: Path) -> None:
    with stage_run(None, tmp_path, key="k", name="n") as run:
        run.metric("loss", 1.0)
        run.table("t", [{"a": 1}])
        run.text("a.txt", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "databricks"])
def test_a_store_that_repeats_metrics_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri is .*sqlite:////"):
        Target(uri, "e")


def test_the_page_opens_on_the_runs_of_the_experiment(tmp_path: Path) -> None:
    command = ui_command(embedded_uri(tmp_path), port=5077)
    assert command[-2:] == ["--workers", "1"]
    assert "5077" in command
    assert ui_command("http://mlflow:5000") == []
    link = runs_url("http://127.0.0.1:5077/", "1")
    assert link == "http://127.0.0.1:5077/#/experiments/1/runs?workflowType=machine_learning"
