"""The demo shortened, through its real stages: what it makes, that it is not made twice, that a kill is survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
SHAPES = ROOT / "jobs" / "examples" / "shapes.yaml"
STAGES = ["import", "reward-train", "reward-eval", "generate", "score", "dpo-train", "policy-eval"]
SHORT = {
    "spec.import.trainRecords": 600, "spec.import.evalRecords": 24, "spec.import.prompts": 60,
    "spec.import.evalPrompts": 40, "spec.import.imageRepeats": 1, "spec.rewardTrain.steps": 12,
    "spec.rewardEval.benchmark": "hpdv3", "spec.rewardEval.benchmarkItems": 12,
    "spec.policies.0.dpoTrain.steps": 10, "spec.policies.0.dpoTrain.validateEvery": 5,
    "spec.policies.1.dpoTrain.steps": 6, "spec.policies.1.dpoTrain.validateEvery": 3,
    "spec.policies.1.dpoTrain.validationImages": 2, "spec.policies.1.policyEval.imagesPerPrompt": 4,
}  # fmt: skip


def start(home: Path, *words: str, document: Path = SHAPES, **changes: Any) -> subprocess.Popen[str]:
    settings = [f"--set={path}={value}" for path, value in {**SHORT, **changes}.items()]
    command = [sys.executable, "-m", "unified_reward.cli", "run", str(document), "--home", str(home), *settings, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    return out, error


def command(home: Path, *words: str) -> str:
    full = [sys.executable, "-m", "unified_reward.cli", *words, "--home", str(home)]
    return subprocess.run(full, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where the run was killed with -9 in the judge's training, and then driven to its end."""
    home = tmp_path_factory.mktemp("home")
    first = start(home)
    progress = home / "runs" / "shapes" / "stages" / "reward-train" / "attempt-1" / "progress.json"
    deadline = time.monotonic() + 200
    while not progress.exists():
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finish(start(home))
    return home


def test_the_judge_was_asked_a_benchmark_too(home: Path) -> None:
    (commit,) = home.glob("**/stages/reward-eval/*/_stage.json")
    (report,) = json.loads(commit.read_text())["report"]["benchmarks"]
    assert (report["benchmark"], report["n"], report["unparsed"]) == ("hpdv3", 12, 0)
    assert 0 <= report["accuracy"] <= 1


def test_all_seven_stages_are_done_and_summed_up(home: Path) -> None:
    summary = json.loads(command(home, "summary", "shapes", "--json"))
    assert list(summary["stages"]) == STAGES
    assert all(stage["state"] == "Done" for stage in summary["stages"].values())
    assert len(summary["judge"]) == 8
    for task, values in summary["judge"].items():
        wanted = {"pearson", "spearman"} if task.endswith("point") else {"accuracy", "single_order_accuracy"}
        assert wanted <= set(values)
        assert values["n"] > 0
    assert set(summary["policies"]) == {"vlm", "image"}
    for policy in summary["policies"].values():
        assert 0 <= policy["before"] <= 1
        assert 0 <= policy["after"] <= 1
        assert policy["metric"]
    assert summary["cost"]["peak_rss_bytes"] < 3 * 2**30


def test_the_judge_learned_more_than_chance(home: Path) -> None:
    judge = json.loads(command(home, "summary", "shapes", "--json"))["judge"]
    pairs = [values["accuracy"] for task, values in judge.items() if task.endswith("pair")]
    assert sum(pairs) / len(pairs) > 0.7


def test_a_second_run_does_nothing_and_says_why(home: Path) -> None:
    before = sorted((home / "store").rglob("_stage.json"))
    _, told = finish(start(home))
    assert sorted((home / "store").rglob("_stage.json")) == before
    assert "nothing it depends on changed" in told
    summary = json.loads(command(home, "summary", "shapes", "--json"))
    assert all(stage["reused"] for stage in summary["stages"].values())


def test_the_page_holds_the_pictures_and_no_script(home: Path) -> None:
    page = (home / "runs" / "shapes" / "report.html").read_text()
    assert page.count("data:image/") > 20
    assert "<script" not in page


def test_mlflow_has_a_parent_and_a_closed_run_for_each_stage(home: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    children = {r.info.run_name: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    assert {name.split()[0] for name in children} == set(STAGES)
    assert {r.info.status for r in runs} == {"FINISHED"}
    training = children["reward-train"]
    assert training.inputs.dataset_inputs
    assert len(client.get_metric_history(training.info.run_id, "loss")) >= 2
    assert any(name.startswith("system/") for name in training.data.metrics)
    score = children["score image"]
    assert client.list_artifacts(score.info.run_id, "figures")


def test_bad_values_are_one_line_and_leave_nothing(home: Path) -> None:
    before = len(list((home / "store").rglob("_stage.json")))
    process = start(home, **{"spec.policies.0.base": "builtin:shapes/nothing"})
    _, told = process.communicate(timeout=100)
    assert process.returncode == 2
    errors = [line for line in told.splitlines() if "builtin:shapes/nothing" in line]
    assert len(errors) == 1
    assert "builtin:shapes/vlm" in errors[0]
    assert "Traceback" not in told
    assert len(list((home / "store").rglob("_stage.json"))) == before


def test_the_same_stages_work_on_minio(s3_url: str, tmp_path: Path) -> None:
    changes = {
        "spec.policies": "[]",
        "spec.store": s3_url,
        "spec.import.trainRecords": 96,
        "spec.import.evalRecords": 4,
    }
    settings = {path: value for path, value in SHORT.items() if not path.startswith("spec.policies")}
    words = [f"--set={path}={value}" for path, value in {**settings, **changes, "spec.rewardTrain.steps": 3}.items()]
    full = [sys.executable, "-m", "unified_reward.cli", "run", str(SHAPES), "--home", str(tmp_path), *words]
    done = subprocess.run(full, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(command(tmp_path, "summary", "shapes", "--json"))
    assert len(summary["judge"]) == 8
    assert not (tmp_path / "store").exists()
