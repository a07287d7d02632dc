"""Objects brought to a local directory once, by the first of any number of processes, even if one is killed meanwhile.

The first process takes a file lock, which the kernel gives back when the process dies, fills `<name>.partial` and
renames it to `<name>` when it is whole. The others wait for the lock and find it done. What a killed process left in
the partial directory is kept when its digest is right.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.store.object_store import ObjectStore, require_disk_space

THREADS = 8


def fill_once(store: ObjectStore, entries: Mapping[str, tuple[str, int, str]], directory: Path, name: str) -> Path:
    """`directory`/`name` holding each entry's file.

    entries: relative path -> (key in the store, size in bytes, sha256 hex). Raises UserError.
    """
    target = directory / name
    if not target.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _fill(store, entries, directory / f"{name}.partial")
                (directory / f"{name}.partial").rename(target)
    for path, (_, size, _) in entries.items():
        if not (target / path).is_file() or (target / path).stat().st_size != size:
            raise UserError(field="cache", value=target / path, why="the local copy was changed or is incomplete",
                            fix=f"Remove {target} and run again.")  # fmt: skip
    return target


def _fill(store: ObjectStore, entries: Mapping[str, tuple[str, int, str]], partial: Path) -> None:
    partial.mkdir(exist_ok=True)
    missing = {path: entry for path, entry in entries.items() if not _has(partial / path, entry[2])}
    require_disk_space(partial, sum(size for _, size, _ in missing.values()), field="cache", shown=str(partial.parent))

    def bring(path: str) -> None:
        key, _, sha256 = missing[path]
        store.get_file(key, partial / path, sha256=sha256)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(bring, missing):
            pass


def _has(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
