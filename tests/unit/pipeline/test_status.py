"""What a person is told of a run: written whole, read by other versions, summed up per stage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from unified_reward.cli.view import progress_of, reason
from unified_reward.config import Stage, StageSpec
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.launch.causes import Cause
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.lock import driver_of, locked
from unified_reward.pipeline.status import FILE, RunStatus, StageStatus, read_status
from unified_reward.pipeline.summary import summarise
from unified_reward.pipeline.usage import Usage
from unified_reward.stages.context import StageResult, commit
from unified_reward.store import open_store


def _status(store: str, **states: State) -> RunStatus:
    stages = {
        f"score/{name}": StageStatus("score", name, state, key="0" * 16, seconds=2.0) for name, state in states.items()
    }
    return RunStatus("r", store=store, stages=stages, document={"metadata": {"name": "r"}})


def test_a_status_reads_back_and_forgives_fields_of_other_versions(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = _status("file:///x", a=State.FAILED)
    before.stages["score/a"].failures = [Cause.MEMORY]
    before.save(home.run("r"))
    assert read_status(home, "r") == before
    path = home.run("r") / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_tomorrow": 1}))
    assert read_status(home, "r") == before


def test_an_unknown_run_is_answered_with_those_there_are(tmp_path: Path) -> None:
    _status("file:///x").save(Home(tmp_path).run("r"))
    with pytest.raises(UserError, match=r"run is q: there is no such run in .*\. Runs here: r\."):
        read_status(Home(tmp_path), "q")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (State.DONE, State.DONE, "Done"),
        (State.DONE, State.WAITING, "Waiting"),
        (State.WAITING, State.RUNNING, "Running"),
        (State.RUNNING, State.FAILED, "Failed"),
        (State.DONE, State.CANCELLED, "Cancelled"),
    ],
)
def test_a_stage_of_several_policies_is_as_its_worst(tmp_path: Path, a: State, b: State, expected: str) -> None:
    row = summarise(_status(tmp_path.as_uri(), a=a, b=b))["stages"]["score"]
    assert (row["state"], row["seconds"]) == (expected, 4.0)
    assert row["policies"]["b"]["state"] == b.value


def test_the_repeats_of_a_sweep_are_summed_up(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    status = _status(store.url)
    status.document["spec"] = {"policies": [{"name": "p", "kind": "vlm", "base": "b", "sweep": {"seeds": [0, 1]}}]}
    for seed, after in enumerate((0.6, 0.8)):
        for stage, metrics in (
            (Stage.SCORE, {"kept": 10 + seed}),
            (Stage.POLICY_EVAL, {"before": 0.5, "after": after, "n": 4, "metric": "right"}),
        ):
            name, key = f"p-pair-point-s{seed}", f"{seed}" * 16
            spec = StageSpec(stage=stage, run="r", store=store.url, key=key, config={}, policy=name, work_dir="w")
            commit(SimpleNamespace(spec=spec, store=store), StageResult(metrics=metrics), started=0.0)  # type: ignore[arg-type]
            status.stages[f"{stage}/{name}"] = StageStatus(stage.value, name, State.DONE, key=key)
    group = summarise(status)["groups"]["p/pair_point"]
    assert group == {
        "policies": ["p-pair-point-s0", "p-pair-point-s1"], "seeds": 2, "before": 0.5, "after": pytest.approx(0.7),
        "gain": pytest.approx(0.2), "spread": pytest.approx(0.02**0.5), "pairs": [10, 11],
        "metric": "right",
    }  # fmt: skip


def test_a_waiting_stage_says_what_for() -> None:
    stages = {"a": StageStatus("import", state=State.DONE), "b": StageStatus("generate", state=State.RUNNING)}
    assert reason(StageStatus("score", needs=["a", "b"]), stages) == "after b"
    assert reason(StageStatus("score", needs=["a"]), stages) == "waits for a free core"
    stages["b"].state = State.FAILED
    assert reason(StageStatus("score", needs=["a", "b"]), stages) == "needs b, which failed"
    tried = StageStatus("score", failures=[Cause.CRASHED], error="KeyError")
    assert reason(tried, stages) == "tries again after: Crashed: KeyError"


def test_progress_is_shown_with_an_eta(tmp_path: Path) -> None:
    now = time.time()
    values = {"done": 50, "total": 200, "unit": "steps", "note": "", "started": now - 10, "updated": now}
    (tmp_path / "progress.json").write_text(json.dumps(values))
    assert progress_of(StageStatus("score", state=State.RUNNING, log=str(tmp_path))) == "50/200 steps, 30 s left"
    assert progress_of(StageStatus("score", state=State.DONE, log=str(tmp_path))) == ""


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from unified_reward.pipeline.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'r'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert driver_of(tmp_path) == holder.pid
        with pytest.raises(UserError, match=f"run is r: process {holder.pid} is running it"), locked(tmp_path, "r"):
            pass
        holder.kill()
        holder.wait()
        assert driver_of(tmp_path) == 0
        with locked(tmp_path, "r"):
            pass


def test_usage_counts_children_too() -> None:
    code = "x = bytearray(60_000_000); print('full', flush=True); import sys; sys.stdin.read()"
    with Usage() as usage:
        usage.sample()
        alone = usage.peak_rss_bytes
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            usage.sample()
            child.communicate()
    assert usage.peak_rss_bytes > alone + 60_000_000
    assert usage.cpu_seconds > 0


def test_states_are_those_scripts_know() -> None:
    assert [state.value for state in RunState] == ["Running", "Suspended", "Succeeded", "Failed", "Cancelled"]
    assert [state.value for state in State] == ["Waiting", "Running", "Done", "Failed", "Cancelled"]
