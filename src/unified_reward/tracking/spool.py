"""What a run has to say, kept in a directory until MLflow has it.

    <root>/<name>/
        entries.jsonl   one JSON object per line, appended only
        files/          pictures, tables and pages that wait to be uploaded
        cursor.json     how far MLflow has it, replaced atomically after each delivered chunk
        writer.lock     held (flock) as long as the process that writes lives, so a kill -9 is seen at once
        courier.lock    held by whoever delivers

An entry is applied at least once and every entry is idempotent, so it counts exactly once. The operating system keeps
what was written when the process dies; only a crash of the machine can lose the last entries.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError

Entry = dict[str, Any]

ENTRIES = "entries.jsonl"
FILES = "files"
CURSOR = "cursor.json"
WRITER_LOCK = "writer.lock"
COURIER_LOCK = "courier.lock"
LOCK_WAIT_S = 5.0


@dataclass(frozen=True)
class Cursor:
    """offset: bytes of entries.jsonl delivered. ended: the status MLflow was told last, "" while the run is open."""

    offset: int = 0
    run_id: str = ""
    ended: str = ""


class SpoolWriter:
    """The one writer of a spool. Thread-safe. Opening it again goes on where a killed process stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = self._open()
        path = directory / ENTRIES
        _cut_torn_line(path)
        earlier = list(read_entries(path, 0)[0])
        self.attempt = 1 + sum(entry["op"] == "open" for entry in earlier)
        self._replayed = _last_steps(earlier)
        self._files = sum(1 for entry in earlier if "payload" in entry)
        self._mutex = threading.Lock()
        self._stream = path.open("ab", buffering=0)

    def append(self, entry: Entry) -> None:
        line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        with self._mutex:
            self._stream.write(line)

    def is_replay(self, metric: str, step: int) -> bool:
        """Whether an earlier attempt has logged this metric at this step or a later one: a resumed loop repeats steps."""
        return step <= self._replayed.get(metric, -1)

    def next_step(self, metric: str) -> int:
        return self._replayed.get(metric, -1) + 1

    def payload(self, name: str) -> Path:
        """A new path to write a file to, before the entry that names it is appended."""
        with self._mutex:
            self._files += 1
            folder = self.directory / FILES / f"{self.attempt:03d}-{self._files:06d}"
        folder.mkdir(parents=True)
        return folder / name

    def close(self) -> None:
        with self._mutex:
            self._stream.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> int:
        """Make the directory and hold its writer's lock, though a courier may just be removing an earlier one."""
        path = self.directory / WRITER_LOCK
        while True:
            try:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                why = f"it cannot be created ({error.strerror})"
                fix = "Choose a directory that can be written, or free the disk."
                raise UserError(field="tracking spool", value=self.directory, why=why, fix=fix) from error
            lock = _hold(path, LOCK_WAIT_S)
            if lock is None and path.exists():
                why, fix = "another process writes this run at this moment", "Wait until it has ended, or stop it."
                raise UserError(field="tracking spool", value=self.directory, why=why, fix=fix)
            if lock is not None and _still_at(lock, path):
                return lock
            if lock is not None:
                os.close(lock)


def spools(root: Path) -> list[Path]:
    """The spool directories under a root, oldest first."""
    found = [path.parent for path in root.glob(f"*/{ENTRIES}")]
    return sorted(found, key=lambda path: ((path / ENTRIES).stat().st_ctime_ns, path.name))


def read_entries(path: Path, offset: int, limit: int = 1 << 62) -> tuple[list[Entry], int]:
    """Whole lines from a byte offset, about `limit` bytes of them, and the offset after them."""
    entries: list[Entry] = []
    read = 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n") or (entries and read + len(line) > limit):
                break
            entries.append(json.loads(line))
            read += len(line)
    return entries, offset + read


def load_cursor(directory: Path) -> Cursor:
    try:
        return Cursor(**json.loads((directory / CURSOR).read_text()))
    except FileNotFoundError:
        return Cursor()


def save_cursor(directory: Path, cursor: Cursor) -> None:
    temporary = directory / f"{CURSOR}.{os.getpid()}.{threading.get_ident()}"
    temporary.write_text(json.dumps(asdict(cursor)))
    temporary.replace(directory / CURSOR)


def pending(directory: Path) -> int:
    """Entries that MLflow does not have yet."""
    try:
        with (directory / ENTRIES).open("rb") as stream:
            stream.seek(load_cursor(directory).offset)
            return stream.read().count(b"\n")
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def without_writer(directory: Path) -> Iterator[bool]:
    """Whether no process writes the spool; none can begin to within the block."""
    descriptor = _hold(directory / WRITER_LOCK, 0.0)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def delivering(directory: Path) -> Iterator[bool]:
    """Whether this caller alone may deliver the spool, for the length of the block."""
    descriptor = _hold(directory / COURIER_LOCK, 0.0)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def discard_payload(directory: Path, entry: Entry) -> None:
    if "payload" in entry:
        shutil.rmtree(directory / Path(entry["payload"]).parent, ignore_errors=True)


def _hold(path: Path, wait_s: float) -> int | None:
    """An exclusive flock as an open descriptor. None: another process kept it for `wait_s`, or the folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor


def _still_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at `path` now, not one that was removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _cut_torn_line(path: Path) -> None:
    """Remove the half line that a process killed in the middle of a write leaves."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)


def _last_steps(entries: list[Entry]) -> dict[str, int]:
    last: dict[str, int] = {}
    for entry in entries:
        if entry["op"] == "metrics":
            for key in entry["values"]:
                last[key] = max(last.get(key, -1), entry["step"])
    return last
