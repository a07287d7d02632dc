"""The local executor around real processes: order, reuse, retries, and going on after every kind of death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration

DRIVER = Path(__file__).with_name("driver.py")
DOCUMENT = """
apiVersion: unifiedreward.dev/v1alpha1
kind: AlignmentRun
metadata: {name: test}
spec:
  rewardTrain: {processes: 1}
  policies:
    - {name: vlm, kind: vlm, base: "builtin:shapes/vlm_policy", dpoTrain: {processes: 2}}
"""
NODES = ["import", "reward-train", "reward-eval", "generate/vlm", "score/vlm", "dpo-train/vlm", "policy-eval/vlm"]


class World:
    """A home with a document; runs commands and says what the fake stages did."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "test.yaml"
        self.file.write_text(DOCUMENT)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(DRIVER), *words, "--home", str(self.home)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, error = process.communicate(timeout=90)
        return subprocess.CompletedProcess(words, process.returncode, out, error)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command("run", str(self.file), *words)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.command("status", "test", "--json").stdout))

    def executions(self) -> list[tuple[str, int]]:
        """(node, process id) of each execution of a stage, one entry a rank."""
        file = self.home / "executions.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def counts(self) -> dict[str, int]:
        return dict(Counter(node for node, _ in self.executions()))

    def fault(self, node: str, do: str, *, code: int = 0, times: int = 1) -> None:
        (self.home / "faults.json").write_text(json.dumps({node: {"do": do, "code": code, "times": times}}))

    def asleep(self) -> int:
        """Wait until a stage sleeps; its process id."""
        _wait((self.home / "asleep").exists)
        (self.home / "asleep").unlink()
        return self.executions()[-1][1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_stage_runs_once_after_what_it_needs_and_a_second_run_does_nothing(world: World) -> None:
    first = world.run("--json")
    assert first.returncode == 0, first.stderr
    order = list(dict.fromkeys(node for node, _ in world.executions()))
    for early, late in [("import", "reward-train"), ("generate/vlm", "score/vlm"), ("reward-train", "score/vlm"),
                        ("score/vlm", "dpo-train/vlm"), ("dpo-train/vlm", "policy-eval/vlm")]:  # fmt: skip
        assert order.index(early) < order.index(late)
    assert world.counts() == {node: 2 if node == "dpo-train/vlm" else 1 for node in NODES}  # two ranks
    summary = json.loads(first.stdout)
    assert {name: row["state"] for name, row in summary["stages"].items()} == {n.split("/")[0]: "Done" for n in NODES}
    assert summary["policies"] == {"vlm": {"before": 0.5, "after": 0.75, "n": 4, "metric": "right answers"}}
    assert summary["judge"] == {
        "image_generation_pair": {"accuracy": 0.9, "single_order_accuracy": 0.8, "swap_consistency": 0.7, "n": 10},
        "video_generation_point": {"pearson": 0.6, "spearman": 0.5, "n": 10},
    }
    assert set(summary["cost"]) == {"wall_seconds", "cpu_seconds", "peak_rss_bytes"}
    assert json.loads(world.command("summary", "test", "--json").stdout) == summary

    again = world.run()
    assert again.returncode == 0
    assert len(world.executions()) == len(NODES) + 1
    assert "Nothing to do" in again.stderr
    assert again.stderr.count("nothing it depends on changed") == len(NODES)


def test_a_changed_field_runs_its_stage_and_those_after_it_again(world: World) -> None:
    world.run()
    changed = world.run("--set", "spec.policies.0.score.minMargin=0.5")
    assert changed.returncode == 0
    repeated = {"score/vlm": 2, "dpo-train/vlm": 4, "policy-eval/vlm": 2}
    assert world.counts() == {node: repeated.get(node, 1) for node in NODES}
    assert "score/vlm: running 0 s (config.min_margin 0.0 -> 0.5)" in changed.stderr
    stages = world.status()["stages"]
    assert {node for node, stage in stages.items() if stage["reused"]} == set(NODES) - set(repeated)
    assert stages["dpo-train/vlm"]["why"] == "inputs.pairs changed"


def test_a_killed_stage_is_tried_once_more(world: World) -> None:
    world.fault("generate/vlm", "kill")
    assert world.run().returncode == 0
    stage = world.status()["stages"]["generate/vlm"]
    assert (stage["attempt"], stage["failures"], stage["state"]) == (2, ["OutOfMemory"], "Done")
    assert world.counts()["generate/vlm"] == 2


def test_a_stage_that_dies_twice_fails_the_run(world: World) -> None:
    world.fault("score/vlm", "exit", code=1, times=9)
    done = world.run()
    assert done.returncode == 1
    assert world.counts()["score/vlm"] == 2
    assert "dpo-train/vlm" not in world.counts()
    assert "unified-reward logs test score/vlm" in done.stderr


@pytest.mark.parametrize("code", [2, 75], ids=["a mistake", "a store that is away"])
def test_what_a_person_must_mend_is_not_tried_again(world: World, code: int) -> None:
    world.fault("reward-train", "exit", code=code, times=9)
    done = world.run("--json")
    assert done.returncode == 2
    assert world.counts()["reward-train"] == 1
    assert "error: reward-train: rewardTrain.tasks is x: there is no such judge task." in done.stderr
    assert json.loads(done.stdout)["stages"]["reward-train"]["state"] == "Failed"

    (world.home / "faults.json").unlink()
    assert world.run().returncode == 0
    assert world.counts()["import"] == 1


def test_a_run_goes_on_after_its_executor_was_killed(world: World) -> None:
    world.fault("score/vlm", "sleep")
    process = world.start("run", str(world.file))
    sleeper = world.asleep()
    process.kill()
    process.communicate()
    _wait(lambda: not psutil.pid_exists(sleeper))
    assert world.status()["state"] == "Interrupted"

    assert world.run().returncode == 0
    assert world.counts() == {node: 2 if node in ("score/vlm", "dpo-train/vlm") else 1 for node in NODES}
    assert world.status()["state"] == "Succeeded"


def test_a_run_is_driven_by_one_process_and_stops_when_asked(world: World) -> None:
    world.fault("score/vlm", "sleep")
    process = world.start("run", str(world.file))
    sleeper = world.asleep()

    second = world.run()
    assert second.returncode == 2
    assert f"error: run is test: process {process.pid} is running it." in second.stderr
    assert world.status()["executor"] == process.pid

    assert world.command("cancel", "test").returncode == 0
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Go on where it stopped with: unified-reward run {world.file}" in error
    assert not psutil.pid_exists(sleeper)
    found = world.status()
    assert (found["state"], found["stages"]["score/vlm"]["state"]) == ("Cancelled", "Cancelled")
    assert world.run().returncode == 0


def test_ctrl_c_stops_the_stages_too(world: World) -> None:
    world.fault("generate/vlm", "sleep")
    process = world.start("run", str(world.file))
    sleeper = world.asleep()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not psutil.pid_exists(sleeper)


def test_logs_are_those_of_the_stage(world: World) -> None:
    world.run()
    assert world.command("logs", "test", "score").stdout == "working on score/vlm\n"
    assert "import: working on import\n" in world.command("logs", "test", "-f").stdout
    unknown = world.command("logs", "test", "sore")
    assert unknown.returncode == 2
    assert "stage is sore: test has no such stage. Stages: import," in unknown.stderr


def test_a_store_that_cannot_be_written_is_named_before_anything_starts(world: World) -> None:
    (world.home / "store").write_text("a file, not a directory")
    done = world.run()
    assert done.returncode == 2
    assert done.stderr.startswith("error: store is file://")
    assert len(done.stderr.splitlines()) == 1
    assert world.counts() == {}


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
