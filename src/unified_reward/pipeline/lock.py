"""One executor per run: who holds `lock` in the run's directory drives it, and its process id stands there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unified_reward.errors import UserError

FILE = "lock"
PATIENCE_SECONDS = 1.0  # `driver_of` of another process holds the lock for an instant


@contextmanager
def locked(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock of run `name`. Raises UserError naming the process that has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = (directory / FILE).open("a+")
    except OSError as error:
        raise UserError(field="--home", value=directory, why=f"it cannot be written ({error.strerror})",
                        fix="Name a directory of yours with --home or UR_HOME.") from error  # fmt: skip
    with stream:
        if not _take(stream):
            stream.seek(0)
            raise UserError(field="run", value=name, why=f"process {stream.read().strip() or '?'} is running it",
                            fix=f"Watch it with: unified-reward status {name}; end it with: unified-reward cancel {name}.",
                            )  # fmt: skip
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def driver_of(directory: Path) -> int:
    """The id of the process that drives the run in `directory`, 0 when nobody does."""
    try:
        with (directory / FILE).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(stream.read().strip() or 0)
    except FileNotFoundError:
        pass
    return 0


def _take(stream: IO[str]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True
