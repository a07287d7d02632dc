"""The process above the ranks of a stage: starts them, passes signals on, and ends with the true cause.

    python -m unified_reward.launch.entry --processes 2 -- -m unified_reward.stages --spec FILE

torchrun answers every failure with 1; here a rank that was killed by signal n gives 128 + n, SIGTERM gives 143, and the
first rank's own code is kept. The ranks die with this process, and this process dies with its launcher, kill -9 included.
Its process id goes to $UR_PID_FILE; exit code and CPU seconds go to $UR_EXIT_FILE.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

EXIT_FILE = "UR_EXIT_FILE"
PID_FILE = "UR_PID_FILE"
GRACE_SECONDS = 30.0  # a checkpoint fits in; Kubernetes' default grace period
PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.1
PEER_SECONDS = 3.0  # for the peers of a failed rank to fail of the same cause and say so themselves


def main() -> int:
    parser = argparse.ArgumentParser(prog="unified_reward.launch.entry", description="Run a stage's ranks.")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- then the arguments of the Python interpreter")
    arguments = parser.parse_args()
    command = [sys.executable, *(arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command)]
    launcher = os.getppid()
    _die_with_parent(signal.SIGTERM)
    if os.getppid() != launcher:  # it died before the request took hold
        return 128 + signal.SIGTERM
    _write(PID_FILE, {"pid": os.getpid(), "created": _created()})
    code = _Ranks(command, arguments.processes).run()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    _write(EXIT_FILE, {"code": code, "cpu_seconds": usage.ru_utime + usage.ru_stime})
    return code


class _Ranks:
    def __init__(self, command: list[str], count: int) -> None:
        self.command, self.count = command, count
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopping = 0.0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        environments = _environments(self.count)
        self.processes = [subprocess.Popen(self.command, env=e, preexec_fn=_die_with_parent) for e in environments]
        first_failure, failed_at = 0, 0.0
        while None in [p.poll() for p in self.processes]:  # all are asked: a rank may fail while the first goes on
            failed = next((p.returncode for p in self.processes if p.returncode not in (None, 0)), 0)
            if failed and not first_failure:
                first_failure, failed_at = failed, time.monotonic()
            if first_failure and not self.stopping and time.monotonic() - failed_at > PEER_SECONDS:
                self._end(signal.SIGTERM)  # the peers wait for it in a collective
            if self.stopping and time.monotonic() - self.stopping > GRACE_SECONDS:
                self._end(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        codes = [first_failure, *(p.returncode for p in self.processes)]
        worst = next((code for code in codes if code), 0)
        return 128 - worst if worst < 0 else worst

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        self.stopping = self.stopping or time.monotonic()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


def _environments(count: int) -> list[dict[str, str]]:
    """The environment of each rank; a single process needs no rendezvous."""
    if count == 1:
        return [dict(os.environ)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel (Linux) to send this process a signal when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def _created() -> float:
    """When this process began, in seconds since the epoch; with the process id it names it for good."""
    import psutil

    return psutil.Process().create_time()


def _write(variable: str, values: dict[str, float]) -> None:
    """Values as JSON in the file that an environment variable names, whole or not at all."""
    path = os.environ.get(variable)
    if path:
        temporary = Path(f"{path}.{os.getpid()}")
        temporary.write_text(json.dumps(values))
        temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
