"""Where checkpoints are kept: five verbs that a directory and an object store both have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

ARRIVING = ".arriving"


class Storage(Protocol):
    """Files under '/'-separated keys. A key is either there whole or not there."""

    def put_file(self, local: Path, key: str) -> None:
        """Store the file under `key`, replacing what was there. The local file may be moved away."""

    def get_file(self, key: str, local: Path) -> None:
        """Write the stored bytes to `local`. Raises FileNotFoundError when there is no such key."""

    def list(self, prefix: str) -> dict[str, int]:
        """{key: size in bytes} of every key that starts with `prefix`."""

    def exists(self, key: str) -> bool:
        """Whether the key is there."""

    def delete(self, key: str) -> None:
        """Remove the key; nothing happens when it is not there."""


class LocalDirectory:
    """Storage in a directory that every rank sees. Files appear under their key only once whole and synced to disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, local: Path, key: str) -> None:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(local)
        try:
            os.replace(local, target)
        except (
            OSError
        ):  # another filesystem: copy beside the target first, under a name that a repeated save takes again
            arriving = self.root / ARRIVING / key.replace("/", "%")
            arriving.parent.mkdir(exist_ok=True)
            shutil.copyfile(local, arriving)
            _sync(arriving)
            os.replace(arriving, target)
        _sync(target.parent)

    def get_file(self, key: str, local: Path) -> None:
        source = self.root / key
        if not source.is_file():
            raise FileNotFoundError(source)
        try:
            os.link(source, local)
        except OSError:  # another filesystem, or one without hard links
            shutil.copyfile(source, local)

    def list(self, prefix: str) -> dict[str, int]:
        start = self.root / prefix
        folder = start if prefix.endswith("/") or not prefix else start.parent
        found = {
            path.relative_to(self.root).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        kept = ((key, size) for key, size in sorted(found.items()) if not key.startswith(f"{ARRIVING}/"))
        return {key: size for key, size in kept if key.startswith(prefix)}

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def delete(self, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        parent = path.parent
        while parent != self.root and parent.is_relative_to(self.root):
            try:
                parent.rmdir()
            except OSError:  # not empty, or gone already
                return
            parent = parent.parent


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
