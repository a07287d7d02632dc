"""A stage by itself, as a person starts it: `torchx run -s local_cwd ur.<stage>`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
TORCHX = Path(sys.executable).with_name("torchx")


def torchx(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run in `directory`, on its own home and without this test's variables of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UR_")}
    command = [str(TORCHX), "run", "-s", "local_cwd", "--wait", "--log", *words]
    return subprocess.run(command, cwd=directory, env=kept, capture_output=True, text=True, timeout=300, check=False)


def test_a_stage_runs_alone_and_the_next_finds_what_it_made(tmp_path: Path) -> None:
    small = ["--train_records", "8", "--eval_records", "1", "--prompts", "2", "--eval_prompts", "2"]
    done = torchx(tmp_path, "ur.import_data", "--home", "h", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    prefix = next(line for line in done.stderr.splitlines() if "prompts_vlm: " in line).split()[2]
    assert (tmp_path / "h" / "store" / prefix / "_manifest.json").is_file()
    assert len(list((tmp_path / "h").glob("store/stages/import/*/_stage.json"))) == 1

    done = torchx(tmp_path, "ur.generate", "--home", "h", "--policy", "vlm", "--candidates", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    commit = json.loads(next((tmp_path / "h").glob("store/stages/generate/*/_stage.json")).read_text())
    assert commit["inputs"]["prompts_vlm"]["prefix"] == prefix
    assert (commit["metrics"]["prompts"], commit["metrics"]["candidates"]) == (2, 4)


def test_what_a_person_must_mend_is_a_line_in_the_log_and_a_failure(tmp_path: Path) -> None:
    done = torchx(tmp_path, "ur.reward_train", "--home", "h", "--base", "no$$where")
    assert done.returncode != 0
    assert "run shapes has no finished import" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr

    done = torchx(tmp_path, "ur.dpo_train", "--home", "h", "--global_batch", "31")
    assert done.returncode != 0
    assert "dpo-train.globalBatch is 31: 2 processes cannot share it evenly. Use 30 or 32" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
