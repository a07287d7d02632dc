"""Pictures and videos by content: `media/sha256/ab/<hex>`, stored once however often it is used.

Writing is idempotent, so nothing has to arbitrate; reading checks the digest, so a damaged object is never used.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from unified_reward.errors import UserError
from unified_reward.store.errors import NotFound
from unified_reward.store.object_store import MEBIBYTE, ObjectStore, check_digest

THREADS = 16
IN_FLIGHT = 64  # puts that wait or run; times the largest video bounds memory
CACHE_BYTES = 64 * MEBIBYTE


def media_key(digest: str) -> str:
    """Where the medium with this sha256 (hex) lies."""
    if len(digest) != 64 or not all(c in "0123456789abcdef" for c in digest):
        raise UserError(field="media", value=digest, why="it is not a sha256 in hex", fix="Name media by their digest.")
    return f"media/sha256/{digest[:2]}/{digest}"


def read_media(store: ObjectStore, digest: str) -> bytes:
    """A medium's bytes, checked. Raises UserError when it is missing or damaged."""
    key = media_key(digest)
    try:
        data = store.get(key)
    except NotFound:
        raise UserError(field="media", value=digest, why=f"{store.url} has no such medium",
                        fix="Import the data again into this store.") from None  # fmt: skip
    check_digest(key, hashlib.sha256(data).hexdigest(), digest, store.url)
    return data


def put_media(store: ObjectStore, data: bytes) -> str:
    """Store a medium unless it is there already; returns its sha256 (hex)."""
    digest = hashlib.sha256(data).hexdigest()
    key = media_key(digest)
    there = store.head(key)
    if there is None or there.size != len(data):
        store.put(key, data)
    return digest


class MediaWriter:
    """Stores media while the caller goes on. A failure shows at the next `add`, or at `flush`."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.written: set[bytes] = set()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._running: set[Future[None]] = set()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="media")

    def add(self, data: bytes) -> str:
        """Store `data` unless it is there already; returns its sha256 (hex)."""
        digest = hashlib.sha256(data)
        if digest.digest() not in self.written:
            self.written.add(digest.digest())
            self._room.acquire()
            self._running.add(self._pool.submit(self._store, data))
            self._collect()
        return digest.hexdigest()

    def flush(self) -> None:
        """Return when everything added is stored. Raises UserError when something could not be."""
        while self._running:
            self._running.pop().result()

    def close(self) -> None:
        """Give up what is not yet begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _store(self, data: bytes) -> None:
        try:
            put_media(self.store, data)
        finally:
            self._room.release()

    def _collect(self) -> None:
        if len(self._running) > 4 * IN_FLIGHT:
            for future in [f for f in self._running if f.done()]:
                self._running.discard(future)
                future.result()


class MediaCache:
    """Reads media by digest, and keeps the latest in memory: at most `limit` bytes."""

    def __init__(self, store: ObjectStore, limit: int = CACHE_BYTES) -> None:
        self.store, self.limit = store, limit
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, digest: str) -> bytes:
        """See read_media."""
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest]
        data = read_media(self.store, digest)
        self._keep(digest, data)
        return data

    def _keep(self, digest: str, data: bytes) -> None:
        with self._lock:
            if digest in self._kept or len(data) > self.limit:
                return
            self._kept[digest] = data
            self._size += len(data)
            while self._size > self.limit:
                self._size -= len(self._kept.popitem(last=False)[1])
