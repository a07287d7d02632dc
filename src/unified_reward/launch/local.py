"""A stage on this machine: its TorchX component on the `local_cwd` scheduler, with files that say how it goes.

DIR/spec.json       what it was given          DIR/pid.json     the process above its ranks
DIR/progress.json   how far it is              DIR/exit.json    its exit code and CPU seconds
DIR/error.txt       its one line for a person  DIR/torchx/.../combined.log
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from unified_reward import progress
from unified_reward.config import Stage, StageSpec
from unified_reward.launch.appdef import component_name
from unified_reward.launch.entry import GRACE_SECONDS
from unified_reward.names import ERROR_FILE, EXIT_FILE, PID_FILE, PROGRESS_FILE, TRACKING_SPOOL

if TYPE_CHECKING:
    from torchx.specs import AppDef

SCHEDULER = "local_cwd"


@dataclass(frozen=True)
class Ended:
    """code: exit code, None when the process vanished without one (kill -9). error: one line for a person."""

    code: int | None
    cpu_seconds: float
    error: str


@dataclass(frozen=True)
class LocalJob:
    """A started attempt of a stage."""

    handle: str
    directory: Path

    @property
    def progress(self) -> progress.Progress | None:
        return progress.read(self.directory / "progress.json")

    @property
    def log(self) -> Path | None:
        return log_file(self.directory)


def attempt_directory(stage_directory: Path, attempt: int) -> Path:
    """Where an attempt of a stage keeps its files."""
    return stage_directory / f"attempt-{attempt}"


def log_file(directory: Path) -> Path | None:
    """The output of the attempt in `directory`, or None before it wrote any."""
    return next(directory.glob("torchx/*/*/0/combined.log"), None)


class LocalJobs:
    """Starts, polls and stops stages. Jobs die with this process."""

    def __init__(self, spools: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchx.runner import get_runner

            self._runner = get_runner()
            with _own_signals():
                self._runner.scheduler_run_opts(SCHEDULER)  # makes the scheduler, which takes over SIGTERM and SIGINT
        self._spools = spools

    def start(self, spec: StageSpec, directory: Path) -> LocalJob:
        """Start one attempt in a fresh `directory`."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        file = directory / "spec.json"
        file.write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        app = stage_app(spec.stage, str(file))
        app.roles[0].env |= {
            PROGRESS_FILE: str(directory / "progress.json"),
            EXIT_FILE: str(directory / "exit.json"),
            PID_FILE: str(directory / "pid.json"),
            ERROR_FILE: str(directory / "error.txt"),
            TRACKING_SPOOL: str(self._spools),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handle = self._runner.run(app, SCHEDULER, cfg={"log_dir": str(directory)})
        return LocalJob(handle, directory)

    def poll(self, job: LocalJob) -> Ended | None:
        """How the attempt ended, or None while it runs."""
        status = self._runner.status(job.handle)
        if status is not None and not status.is_terminal():
            return None
        values = _read(job.directory / "exit.json")
        code = values.get("code")
        return Ended(code, values.get("cpu_seconds", 0.0), _error(job, code))

    def stop(self, job: LocalJob) -> bool:
        """Ask the attempt to save and end; `poll` tells when it has. False when it has not yet come to life."""
        return end_process(job.directory / "pid.json", signal.SIGTERM)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # TorchX complains of jobs that ended by themselves
            self._runner.close()


def run_app(app: AppDef) -> int:
    """Run one stage that nobody watches but the person at the terminal: its output goes to standard error.

    Returns its exit code.
    """
    from torchx.runner import get_runner

    with tempfile.TemporaryDirectory(prefix="unified-reward-") as temporary, get_runner() as runner:
        exit_file = Path(temporary) / "exit.json"
        app.roles[0].env[EXIT_FILE] = str(exit_file)
        handle = runner.run(app, SCHEDULER, cfg={"log_dir": temporary})
        for line in runner.log_lines(handle, app.roles[0].name, should_tail=True):
            sys.stderr.write(line)
        runner.wait(handle, wait_interval=0.1)
        return int(_read(exit_file).get("code", 1))


def stage_app(stage: Stage, spec_file: str) -> AppDef:
    """The stage's component, called with a StageSpec."""
    from unified_reward.launch import components

    app: AppDef = getattr(components, component_name(stage))(spec=spec_file)
    return app


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put the handlers of SIGTERM and SIGINT back as they were."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def end_leftovers(directory: Path) -> int:
    """End what an earlier launcher left running below `directory`, and wait for it; the number of jobs ended."""
    files = [file for file in directory.glob("**/pid.json") if end_process(file, signal.SIGTERM)]
    deadline = time.monotonic() + GRACE_SECONDS
    while any(_alive(file) for file in files):
        if time.monotonic() > deadline:
            for file in files:
                end_process(file, signal.SIGKILL)
        time.sleep(0.1)
    return len(files)


def end_process(pid_file: Path, number: signal.Signals) -> bool:
    """Signal the process that wrote `pid_file`, if it is still that process."""
    process = _alive(pid_file)
    if process is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
    return True


def _alive(pid_file: Path) -> psutil.Process | None:
    values = _read(pid_file)
    if not values:
        return None
    try:
        process = psutil.Process(int(values["pid"]))
        same = abs(process.create_time() - float(values["created"])) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _error(job: LocalJob, code: object) -> str:
    """The stage's own line where it left one, else the end of its log."""
    if code == 0:
        return ""
    with contextlib.suppress(OSError):
        return (job.directory / "error.txt").read_text(encoding="utf-8")
    log = job.log
    if log is None or not log.exists():
        return "it ended before it wrote anything"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
