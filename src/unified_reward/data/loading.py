"""An example's media from disk: found, read, decoded once to know that they can be, and named by digest.

The same file, or the same bytes under another name, is decoded once however many examples use it. Reading and decoding
run side by side; examples come out in the order they went in.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from unified_reward.data.decoded import AHEAD, DecodedCache, cores
from unified_reward.data.examples import Example, File, Frames, Inline, Medium
from unified_reward.data.frames import pack_frames
from unified_reward.data.limits import About, MediaError, MediaLimits
from unified_reward.data.media import decode_with_facts

VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
FRAME_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
Tag = TypeVar("Tag")


@dataclass
class Loaded:
    """A medium that decodes. data: its bytes until they are handed on, then None."""

    digest: str
    size: int
    about: About
    data: bytes | None = None


@dataclass(frozen=True)
class Loading:
    """An example with its media, or why one of them is none."""

    media: Sequence[Loaded] = ()
    error: MediaError | None = None


class MediaLoader:
    """Loads media of examples within limits. keep: takes the bytes of each medium once; called by the reading thread only."""

    def __init__(
        self,
        limits: MediaLimits,
        keep: Callable[[bytes], object],
        *,
        cache: DecodedCache | None = None,
        workers: int = 0,
    ) -> None:
        self.limits, self.keep, self.cache = limits, keep, cache
        self.workers = workers or cores()
        self.known: dict[str, Loaded] = {}
        self._by_name: dict[object, Future[Loaded]] = {}
        self._lock = threading.Lock()

    def load(self, examples: Iterable[tuple[Tag, Example, Sequence[Path]]]) -> Iterator[tuple[Tag, Example, Loading]]:
        """Each example with its media. folders: where they may lie, in the order they are tried."""
        waiting: deque[tuple[Tag, Example, list[Future[Loaded]]]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="media") as pool:
            for tag, example, folders in examples:
                waiting.append((tag, example, [self._begin(pool, medium, folders) for medium in example.media]))
                if len(waiting) >= AHEAD * self.workers:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())

    def _begin(self, pool: ThreadPoolExecutor, medium: Medium, folders: Sequence[Path]) -> Future[Loaded]:
        if isinstance(medium, Inline):
            return pool.submit(self._load, medium, folders)
        name = (medium, tuple(folders))
        if name not in self._by_name:
            self._by_name[name] = pool.submit(self._load, medium, folders)
        return self._by_name[name]

    def _finish(self, tag: Tag, example: Example, futures: Sequence[Future[Loaded]]) -> tuple[Tag, Example, Loading]:
        try:
            media = [future.result() for future in futures]
        except MediaError as error:
            return tag, example, Loading(error=error)
        for each in media:
            if each.data is not None:
                self.keep(each.data)
                each.data = None
        return tag, example, Loading(media)

    def _load(self, medium: Medium, folders: Sequence[Path]) -> Loaded:
        data = medium.data if isinstance(medium, Inline) else _read(medium, folders, self.limits)
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if digest in self.known:
                return self.known[digest]
        pixels, about = decode_with_facts(data, self.limits)
        if self.cache is not None:
            self.cache.put(digest, pixels, len(data))
        with self._lock:
            return self.known.setdefault(digest, Loaded(digest, len(data), about, data))


def _read(medium: File | Frames, folders: Sequence[Path], limits: MediaLimits) -> bytes:
    if isinstance(medium, Frames):
        return _packed([_found(name, folders, medium.folder) for name in medium.paths], limits)
    path = _found(medium.path, folders)
    if path.is_dir():
        frames = sorted((p for p in path.iterdir() if p.suffix.lower() in FRAME_ENDINGS), key=_natural)
        if not frames:
            raise MediaError("the folder holds no frames", str(path))
        return _packed(frames, limits)
    return _bytes(path, limits)


def _packed(paths: Sequence[Path], limits: MediaLimits) -> bytes:
    if len(paths) > limits.max_frames:
        raise MediaError("it has too many frames", f"{len(paths)}, more than {limits.max_frames}")
    return pack_frames([_bytes(path, limits) for path in paths])


def _bytes(path: Path, limits: MediaLimits) -> bytes:
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise MediaError("the file is too large", f"{size} bytes, more than {limits.max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise MediaError("the file cannot be read", f"{path}: {error.strerror}") from error


def _found(name: str, folders: Sequence[Path], inner: str = "") -> Path:
    """The first place where the named file lies; a video may be named without its ending."""
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        raise MediaError("the medium is an address, not a file", name)
    bare = Path(name)
    names = [name, *([f"{inner}/{name}", f"images/{inner}/{name}"] if inner else [])]
    names += [] if bare.suffix else [f"{name}{ending}" for ending in VIDEO_ENDINGS]
    for folder in folders or (Path(),):
        for each in names:
            path = Path(os.path.normpath(folder / each))
            if path.exists():
                return path
    looked = " and ".join(dict.fromkeys(str((folder / name).absolute()) for folder in folders or (Path(),)))
    raise MediaError("there is no such file", f"looked for {looked}")


def _natural(path: Path) -> list[object]:
    """2.png before 10.png."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
