"""The process above the ranks of a node: starts them, passes signals on, and ends with the true cause.

    python -m unified_reward.launch.entry --processes 2 -- -m unified_reward.stages --spec FILE

torchrun answers every failure with 1; here a rank that was killed by signal n gives 128 + n, SIGTERM gives 143, and the
first rank's own code is kept. The ranks die with this process, and this process dies with its launcher, kill -9 included.
Its process id goes to $UR_PID_FILE; exit code and CPU seconds go to $UR_EXIT_FILE. In a pod (UR_JOB is set) it is process 1:
it also unpacks the workspace, shows progress, keeps the output in the store and leaves a termination message.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar, cast

from unified_reward import names, progress
from unified_reward.errors import UserError
from unified_reward.launch.causes import EXIT_STOPPED, FIRST_CAUSES
from unified_reward.launch.ending import make_ending, write_ending
from unified_reward.launch.log_archive import LogArchive
from unified_reward.launch.rendezvous import elastic_command, environments

GRACE_SECONDS = 30.0  # a checkpoint fits in; Kubernetes' default grace period
PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.1
PEER_SECONDS = 3.0  # for the peers of a failed rank to fail of the same cause and say so themselves
PROGRESS_SECONDS = 10.0
LOOK_AHEAD = "unified_reward.pipeline.afterwards"
TAIL_LINES = 60
Result = TypeVar("Result")


def main() -> int:
    parser = argparse.ArgumentParser(prog="unified_reward.launch.entry", description="Run a stage's ranks.")
    parser.add_argument("--processes", type=int, default=1, help="ranks on this node")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of this job")
    parser.add_argument("--elastic", action="store_true", help="nodes may come and go (torchrun's rendezvous)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- then the arguments of the Python interpreter")
    arguments = parser.parse_args()
    launcher = os.getppid()
    _die_with_parent(signal.SIGTERM)
    if os.getppid() != launcher:  # it died before the request took hold
        return EXIT_STOPPED
    started = time.time()
    _write(names.PID_FILE, {"pid": os.getpid(), "created": _created()})
    in_pod = bool(os.environ.get(names.JOB))
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    ranks = _Ranks(words, piped=in_pod)
    try:
        if in_pod:
            ranks.unless_stopped(_prepare_pod)
            ranks.unless_stopped(_apply_workspace)
        if arguments.elastic:
            ranks.start_elastic(arguments.processes)
        else:
            # A peer may take minutes to have an address.
            ranks.start(ranks.unless_stopped(lambda: environments(arguments.processes, arguments.nodes)))
        code = ranks.wait()
        if in_pod and code == 0:
            ranks.look_ahead()
    except _StoppedError:
        code = ranks.explain("stopped before its ranks had started", EXIT_STOPPED)
    except UserError as error:
        code = ranks.explain(str(error), error.exit_code)
    except OSError as error:
        code = ranks.explain(str(error), 1)
    except Exception:  # a defect: its traceback is kept where the ranks' output is, and the ending still comes
        code = ranks.explain(traceback.format_exc(), 1)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    _write(names.EXIT_FILE, {"code": code, "cpu_seconds": cpu_seconds})
    ranks.drain()
    ending = make_ending(
        code, rank=ranks.first_failed, tail="\n".join(ranks.tails[ranks.first_failed]), started=started,
        cpu_seconds=cpu_seconds, peak_rss_bytes=usage.ru_maxrss * 1024,
    )  # fmt: skip
    write_ending(ending)
    ranks.close()  # may take so long that this process is killed over it
    return code


class _StoppedError(Exception):
    """SIGTERM came before there was a rank to pass it on to."""


class _Ranks:
    """The processes of this node. first_failed: local rank of the first that failed, -1 for none."""

    def __init__(self, words: list[str], *, piped: bool) -> None:
        self.words, self.piped = words, piped
        self.processes: list[subprocess.Popen[bytes]] = []
        self.tails: dict[int, collections.deque[str]] = collections.defaultdict(
            lambda: collections.deque(maxlen=TAIL_LINES)
        )
        self.first_failed = -1
        self.elastic = False
        self.archive = LogArchive.of_this_job() if piped else None
        self._readers: list[threading.Thread] = []
        self._print = threading.Lock()
        self._stopping = 0.0
        self._grace = float(os.environ.get(names.GRACE_SECONDS, GRACE_SECONDS))
        self._shown = (0, time.monotonic())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def unless_stopped(self, work: Callable[[], Result]) -> Result:
        """What may take long and starts no process. Raises _StoppedError when SIGTERM comes meanwhile, and what `work` does.

        It has a thread of its own: an exception out of a signal handler can leave the lock of an import held for good.
        """
        done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))

        if not self._stopping:
            threading.Thread(target=run, name="before-ranks", daemon=True).start()
        while not self._stopping:
            with contextlib.suppress(queue.Empty):
                result, error = done.get(timeout=POLL_SECONDS)
                if error is not None:
                    raise error
                return cast(Result, result)
        raise _StoppedError

    def explain(self, message: str, code: int) -> int:
        """Say what kept the ranks from starting, where their output would be."""
        self.tails[-1].append(message)
        line = message if message.endswith("\n") else f"error: {message}\n"
        if self.piped:
            self._say(line.encode())
        else:
            print(line, end="", file=sys.stderr, flush=True)
        return code

    def start(self, each: list[dict[str, str]]) -> None:
        for local, environment in enumerate(each):
            self._start(
                [sys.executable, *self.words],
                environment,
                local,
                f"[{environment.get('RANK', local)}] " if len(each) > 1 else "",
            )

    def start_elastic(self, processes: int) -> None:
        self.elastic = True
        self._start(elastic_command(processes, self.words), dict(os.environ), 0, "")

    def wait(self) -> int:
        """Until all have ended; the exit code of the node."""
        failed_at = 0.0
        while None in [p.poll() for p in self.processes]:  # all are asked: a rank may fail while the first goes on
            failed = next((n for n, p in enumerate(self.processes) if p.returncode not in (None, 0)), -1)
            if failed >= 0 and self.first_failed < 0:
                self.first_failed, failed_at = failed, time.monotonic()
            if self.first_failed >= 0 and not self._stopping and time.monotonic() - failed_at > PEER_SECONDS:
                self._end(signal.SIGTERM)  # the peers wait for it in a collective
            if self._stopping and time.monotonic() - self._stopping > self._grace:
                self._end(signal.SIGKILL)
            if self.piped:
                self._show_progress()
            time.sleep(POLL_SECONDS)
        codes = [p.returncode for p in self.processes]
        told = next((code for code in FIRST_CAUSES if code in codes), None)
        if told is not None:  # that of a peer may be noticed before it
            self.first_failed = codes.index(told)
        elif self.first_failed < 0:
            self.first_failed = next((n for n, code in enumerate(codes) if code), -1)
        worst = codes[self.first_failed] if self.first_failed >= 0 else 0
        if self.elastic and self._stopping and worst not in (0, *FIRST_CAUSES):
            return EXIT_STOPPED  # torchrun ends with 1 then
        return 128 - worst if worst < 0 else worst

    def look_ahead(self) -> None:
        """On node 0 of an operator's job: say what of the run is there already. The stage stands, whatever comes of it."""
        if not os.environ.get(names.DOCUMENT) or os.environ.get(names.NODE_RANK, "0") != "0" or self._stopping:
            return
        self._start([sys.executable, "-m", LOOK_AHEAD], dict(os.environ), -1, "")
        self.processes[-1].wait()

    def drain(self) -> None:
        """Let the last lines out."""
        for reader in self._readers:
            reader.join(timeout=5.0)

    def close(self) -> None:
        """Let the archive finish."""
        if self.archive is not None:
            self.archive.close()

    def _start(self, command: list[str], environment: dict[str, str], local: int, prefix: str) -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if self.piped else {}
        process = subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent, **pipes)  # type: ignore[call-overload]
        self.processes.append(process)
        if self._stopping:  # it came while this one was being started
            process.send_signal(signal.SIGTERM)
        if self.piped:
            reader = threading.Thread(target=self._read, args=(process, local, prefix.encode()), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _read(self, process: subprocess.Popen[bytes], local: int, prefix: bytes) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.tails[local].append(line.decode(errors="replace").rstrip())
            self._say(prefix + (line if line.endswith(b"\n") else line + b"\n"))

    def _say(self, line: bytes) -> None:
        with self._print:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            if self.archive is not None:
                self.archive.write(line)

    def _show_progress(self) -> None:
        """`progress 120/260 steps, 40 s left: loss 0.31`, a few times a minute."""
        done, at = self._shown
        if time.monotonic() - at < PROGRESS_SECONDS:
            return
        found = progress.read(Path(os.environ[names.PROGRESS_FILE]))
        self._shown = (found.done if found else 0, time.monotonic())
        if found and found.done != done:
            left = found.eta_seconds(time.time())
            eta = f", {left:.0f} s left" if left is not None else ""
            note = f": {found.note}" if found.note else ""
            self._say(f"progress {found.done}/{found.total} {found.unit}{eta}{note}\n".encode())

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        self._stopping = self._stopping or time.monotonic()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


def _prepare_pod() -> None:
    """Files for what the stage says of itself; the stage and its ranks inherit the names."""
    place = Path(os.environ.get(names.HOME, "/tmp"))
    place.mkdir(parents=True, exist_ok=True)
    for variable, name in (
        (names.PROGRESS_FILE, "progress.json"),
        (names.ERROR_FILE, "error.txt"),
        (names.RESULT_FILE, "result.json"),
    ):
        os.environ.setdefault(variable, str(place / name))
        Path(os.environ[variable]).unlink(missing_ok=True)


def _apply_workspace() -> None:
    digest = os.environ.get(names.WORKSPACE, "")
    if digest:
        from unified_reward.launch import overlay

        added = overlay.apply(digest, os.environ[names.STORE], Path(os.environ[names.HOME]) / "workspace")
        os.environ["PYTHONPATH"] = ":".join([added, *filter(None, [os.environ.get("PYTHONPATH", "")])])


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
