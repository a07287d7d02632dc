"""The command line: starts light, and what a person can mend is one line on standard error and exit status 2."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unified_reward import cli
from unified_reward.cli.pages import check_port, free_port
from unified_reward.config import AlignmentRun, Stage
from unified_reward.errors import UserError

SHAPES = str(Path(__file__).parents[3] / "jobs" / "examples" / "shapes.yaml")
HEAVY = ("torch", "transformers", "diffusers", "mlflow", "matplotlib", "pyarrow", "obstore", "torchx", "numpy")


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["unified-reward", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_help_and_documents_need_none_of_the_heavy_libraries() -> None:
    code = (
        f"import sys, unified_reward.cli, unified_reward.config.graph; print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "none.yaml"], "error: FILE is none.yaml: it cannot be read"),
        (["run", SHAPES, "--set", "spec.sed=1"], "error: spec.sed is 1: there is no such field. Did you mean seed?"),
        (["run", SHAPES, "--seed", "-1"], "error: spec.seed is -1: Input should be greater than or equal to 0."),
        (
            ["run", SHAPES, "--on", "mars"],
            "error: --on is mars: it is neither local nor cluster. Use --on local or --on cluster.",
        ),
        (["run"], "error: Missing argument 'FILE'. Help: unified-reward run --help"),
        (["frob"], "error: No such command 'frob'. Help: unified-reward --help"),
        (["bogus"], "error: No such command 'bogus'. Did you mean 'logs'. Help: unified-reward --help"),
        (["run", SHAPES, "--sed", "1"], "error: No such option: --sed"),
        (["report", "x"], "error: run is x: there is no such run in"),
        (["summary", "x"], "error: run is x: there is no such run in"),
        (["logs", "x"], "error: run is x: there is no such run in"),
        (["cancel", "x"], "error: run is x: there is no such run in"),
        (["ui"], "error: --home is"),
        (["import", "none.csv"], "error: SOURCE is none.csv: there is no such file."),
        (["import", "shapes", "--set", "x=1"], "error: --set is x: import has no such field."),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UR_HOME", str(tmp_path / "home"))
    code, out, error = run(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert error.startswith(message)
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_a_base_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UR_HOME", str(tmp_path))
    code, _, error = run(capsys, monkeypatch, "run", SHAPES, "--set", "spec.policies.1.base=builtin:shapes/no")
    assert code == 2
    assert error.startswith("error: spec.policies.1.base is builtin:shapes/no: no such model ships with the package.")
    assert not (tmp_path / "runs" / "shapes" / "stages").exists()


def test_the_schema_is_that_of_the_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, monkeypatch, "schema")
    assert code == 0
    assert json.loads(out) == AlignmentRun.model_json_schema(by_alias=True)
    assert "rewardTrain" in out


def test_render_shows_a_job_for_each_stage_and_starts_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UR_HOME", str(tmp_path / "home"))
    code, out, _ = run(capsys, monkeypatch, "render", SHAPES, "--set", "spec.rewardTrain.processes=4")
    jobs = {job["stage"]: job for job in yaml.safe_load_all(out)}
    assert code == 0
    assert {name.split("/")[0] for name in jobs} == set(Stage)
    assert (jobs["reward-train"]["processes"], jobs["reward-train"]["cpu"]) == (4, 4)
    assert jobs["score/vlm"]["needs"] == ["generate/vlm", "import", "reward-train"]
    assert not (tmp_path / "home").exists()


def test_a_port_in_use_is_refused_and_another_offered() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port is {port}: another program is using it\. Use --port \d+"):
            check_port(port)
    assert check_port(free_port()) >= 5000


def test_no_runs_is_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UR_HOME", str(tmp_path))
    code, out, error = run(capsys, monkeypatch, "status")
    assert (code, out) == (0, "")
    assert "Start one: unified-reward run" in error
