"""The process above the ranks ends with the true code, and nothing it started outlives it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ENTRY = [sys.executable, "-m", "unified_reward.launch.entry"]


def _start(code: str, *, processes: int = 1, **environment: str) -> subprocess.Popen[str]:
    command = [*ENTRY, "--processes", str(processes), "--", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("import sys; sys.exit(2)", 2),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("raise SystemError", 1),
    ],
    ids=["done", "user error", "killed", "terminated", "defect"],
)
def test_the_exit_code_is_that_of_the_rank(code: str, expected: int, tmp_path: Path) -> None:
    file = tmp_path / "exit.json"
    process = _start(code, UR_EXIT_FILE=str(file))
    assert process.wait(timeout=30) == expected
    assert json.loads(file.read_text())["code"] == expected


def test_ranks_find_each_other() -> None:
    names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    process = _start(f"import os; os.write(1, (' '.join(map(os.environ.get, {names})) + '\\n').encode())", processes=2)
    lines = sorted(line.split() for line in process.communicate(timeout=30)[0].splitlines())
    assert [line[:3] for line in lines] == [["0", "2", "127.0.0.1"], ["1", "2", "127.0.0.1"]]
    assert lines[0][3] == lines[1][3]


def test_one_failing_rank_ends_the_others_and_its_code_counts() -> None:
    code = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit(3); time.sleep(60)"
    assert _start(code, processes=2).wait(timeout=30) == 3


def test_sigterm_reaches_the_rank_which_may_save(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    code = (
        "import signal, sys, time, pathlib\n"
        f"def stop(*_): pathlib.Path({str(saved)!r}).touch(); sys.exit(143)\n"
        "signal.signal(15, stop); print('ready', flush=True); time.sleep(60)"
    )
    process = _start(code)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert saved.exists()


def _start_in_pod(home: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Its output is what `kubectl logs` shows."""
    environment = {
        "UR_JOB": "job", "UR_STORE": str(home / "store"), "UR_HOME": str(home), "UR_NODE_RANK": "1",
        "UR_TERMINATION_FILE": str(home / "ending.json"), **variables,
    }  # fmt: skip
    return subprocess.Popen(
        [*ENTRY, *arguments, "--", "-c", "print('a rank')"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def _archived(home: Path) -> str:
    segments = sorted((home / "store/logs/job/worker-1").glob("*.log"))
    return "".join(segment.read_text() for segment in segments)


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "told"),
    [
        ([], {}, 0, "a rank"),
        ([], {"UR_WORKSPACE": "0" * 64}, 2, "workspace is 000"),
        (["--nodes", "2"], {}, 2, "nodes is 2: this machine is alone"),
        (["--processes", "2", "--nodes", "2"], {"UR_MASTER": "x", "UR_HOME": "/dev/null"}, 1, "/dev/null"),
    ],
    ids=["its rank", "workspace", "no peers", "no directory"],
)
def test_the_archive_has_what_kubectl_logs_shows(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], code: int, told: str
) -> None:
    process = _start_in_pod(tmp_path, *arguments, **variables)
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == code
    assert told in shown
    assert _archived(tmp_path) == shown
    ending = json.loads((tmp_path / "ending.json").read_text())
    assert ending["code"] == code
    assert told in ending["error"] or not code


def test_what_is_killed_while_it_archives_has_said_how_it_ended(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # a store that takes connections and says nothing
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        process = _start_in_pod(tmp_path, UR_STORE="s3://bucket", UR_S3_ENDPOINT=address, **keys)
        deadline = time.monotonic() + 60
        while not (tmp_path / "ending.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)  # long enough for a process that has nothing left to do
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert json.loads((tmp_path / "ending.json").read_text())["code"] == 0


def test_the_archive_has_the_traceback_of_a_defect_too(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"no tar").hexdigest()
    (tmp_path / "store/workspaces").mkdir(parents=True)
    (tmp_path / f"store/workspaces/{digest}.tar.gz").write_bytes(b"no tar")
    process = _start_in_pod(tmp_path, UR_WORKSPACE=digest)
    shown = process.communicate(timeout=60)[0]
    assert (process.returncode, _archived(tmp_path)) == (1, shown)
    assert shown.startswith("Traceback")
    assert json.loads((tmp_path / "ending.json").read_text())["error"] == "tarfile.ReadError: not a gzip file"


def test_sigterm_ends_it_while_it_waits_for_a_peer(tmp_path: Path) -> None:
    left = tmp_path / "error.txt"  # of an earlier start; it goes when signals are heeded
    left.touch()
    process = _start_in_pod(tmp_path, "--nodes", "2", UR_MASTER="absent.invalid:1")
    deadline = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == _archived(tmp_path) == "error: stopped before its ranks had started\n"
    assert process.returncode == 143


@pytest.mark.parametrize("told", [2, 75], ids=["a mistake", "a store that is away"])
def test_what_no_lost_peer_brings_about_counts_whichever_rank_is_seen_to_fail_first(told: int) -> None:
    code = f"import os, sys, time; os.environ['RANK'] == '0' and sys.exit(1); time.sleep(1); sys.exit({told})"
    assert _start(code, processes=2).wait(timeout=30) == told


def test_ranks_die_with_the_process_above_them() -> None:
    process = _start("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    rank = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=30)
    _wait_until_gone(rank)


def test_the_process_dies_with_its_launcher(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid.json"
    launcher = subprocess.Popen([
        sys.executable, "-c",
        f"import subprocess, time; subprocess.Popen({[*ENTRY, '--', '-c', 'import time; time.sleep(60)']!r}); time.sleep(60)",
    ], env={**os.environ, "UR_PID_FILE": str(pid_file)})  # fmt: skip
    deadline = time.monotonic() + 30
    while not pid_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.kill()
    launcher.wait(timeout=30)
    _wait_until_gone(json.loads(pid_file.read_text())["pid"])


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while _is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
