"""Decoded media by the digest of their bytes and the limits they were decoded under: decoded once, then read.

Two layers: the latest in memory, and, where a directory is given, files on its disk that outlive the process (and that
the next stage or epoch finds). A file that is cut or foreign is decoded anew. `many` decodes side by side: FFmpeg and
Pillow let go of the interpreter while they work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from unified_reward.data.limits import MediaLimits, Pixels
from unified_reward.data.media import decode

MEMORY_BYTES = 256 * 1024 * 1024
DISK_BYTES = 8 * 1024**3  # at most, and at most a quarter of what is free: stages share their disk with checkpoints
WORTH_KEEPING = 16 * 1024  # bytes of a file from which on reading its pixels back is faster than decoding it again
AHEAD = 4  # media under way for each worker
Item = TypeVar("Item")
Result = TypeVar("Result")


class DecodedCache:
    """uint8 [H, W, 3] or [T, H, W, 3] by digest; do not write to them. Safe to use from several threads and processes."""

    def __init__(
        self, limits: MediaLimits, directory: Path | None = None, *, memory: int = MEMORY_BYTES, disk: int = DISK_BYTES
    ) -> None:
        self.limits, self.memory = limits, memory
        self.directory = directory / _options(limits) if directory else None
        self.decoded = 0
        self._kept: OrderedDict[str, Pixels] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._written = _size(self.directory)
        self.disk = min(disk, self._written + _free(directory) // 4) if directory else 0

    def get(self, digest: str, read: Callable[[], bytes]) -> Pixels:
        """The pixels of the medium with this sha256 (hex); `read` gives its bytes when it has to be decoded.

        Raises MediaError.
        """
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest]
        pixels = self._from_disk(digest)
        if pixels is None:
            data = read()
            pixels = decode(data, self.limits)
            self.put(digest, pixels, len(data))
            self.decoded += 1
        self._keep(digest, pixels)
        return pixels

    def many(self, media: Iterable[tuple[str, Callable[[], bytes]]], workers: int = 0) -> Iterator[Pixels]:
        """`get` of each, in order, `workers` at a time (0 = one for each core) and not far ahead of the reader."""
        workers = workers or cores()
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            yield from in_order(pool, lambda item: self.get(*item), media, AHEAD * workers)

    def put(self, digest: str, pixels: Pixels, size: int) -> None:
        """Keep pixels on disk, unless the file they came from (`size` bytes) is small or the room is used up."""
        if self.directory is None or size < WORTH_KEEPING or self._written + pixels.nbytes > self.disk:
            return
        path = self._path(digest)
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                np.save(stream, pixels)
            partial.rename(path)
        except OSError:  # a full or read-only disk: the cache is for speed only
            partial.unlink(missing_ok=True)
            self._written = self.disk
            return
        self._written += pixels.nbytes

    def _from_disk(self, digest: str) -> Pixels | None:
        if self.directory is None:
            return None
        try:
            pixels: Pixels = np.load(self._path(digest), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return pixels if pixels.dtype == np.uint8 and pixels.ndim in (3, 4) and pixels.shape[-1] == 3 else None

    def _path(self, digest: str) -> Path:
        assert self.directory is not None
        return self.directory / digest[:2] / f"{digest}.npy"

    def _keep(self, digest: str, pixels: Pixels) -> None:
        with self._lock:
            if digest in self._kept or pixels.nbytes > self.memory:
                return
            self._kept[digest] = pixels
            self._held += pixels.nbytes
            while self._held > self.memory:
                self._held -= self._kept.popitem(last=False)[1].nbytes


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """work(item) of each, in order; at most `ahead` are begun before their result is taken."""
    running: list[Future[Result]] = []
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) >= ahead:
            yield running.pop(0).result()
    while running:
        yield running.pop(0).result()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def _options(limits: MediaLimits) -> str:
    return hashlib.sha256(f"{limits.frames} {limits.max_side}".encode()).hexdigest()[:12]


def _size(directory: Path | None) -> int:
    if directory is None or not directory.is_dir():
        return 0
    return sum(entry.stat().st_size for entry in directory.rglob("*.npy"))


def _free(directory: Path) -> int:
    """Bytes free on the disk of a directory that need not be there yet."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
