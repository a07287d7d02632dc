"""One interface to a directory, to any S3 and to memory: whole objects under '/'-separated keys.

An object is there whole or not at all. `put_if_absent` is the only arbiter between writers: whatever has to happen
once (a manifest, a shard's result) is decided by it. Objects that it wrote carry a token of the call as metadata where
the store keeps metadata, because a conditional put whose answer is lost on the way cannot be repeated blindly: the
object is then read back and its token compared.

Has the verbs of `fsdp_utils.Storage`, so checkpoints can be kept in it too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import obstore.exceptions as foreign

from unified_reward.errors import UserError
from unified_reward.store.backends import RETRY_SECONDS, Backend, S3Access, connect
from unified_reward.store.errors import NotFound, StoreError, Unreachable, translated

MEBIBYTE = 1024 * 1024
CHUNK = 16 * MEBIBYTE  # of a multipart upload and of a ranged download; bounds memory per transfer
MAX_PARTS = 9_000  # S3 allows 10,000
LIST_CHUNK = 1000
TOKEN = "ur-writer"
UPLOAD_ATTEMPTS = 3
PROBE_RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class ObjectInfo:
    """What is known of an object without reading it. size: bytes. modified: by the store's clock, UTC."""

    key: str
    size: int
    modified: datetime


def open_store(
    url: str, *, retry_seconds: float = RETRY_SECONDS, create: bool = True, access: S3Access | None = None
) -> ObjectStore:
    """The store at `url`: a path, `file:///abs/dir`, `s3://bucket/prefix` or `memory://`.

    S3: the endpoint is UR_S3_ENDPOINT or AWS_ENDPOINT_URL, the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the
    region AWS_REGION. access: endpoint and keys in place of these. retry_seconds: how long a request is tried again while
    the server does not answer. create: make a missing local directory. Raises UserError. Nothing is asked of a server yet:
    see `check_writable`.
    """
    backend = connect(url, retry_seconds=retry_seconds, create=create, access=access)
    return ObjectStore(backend, retry_seconds=retry_seconds, access=access)


class ObjectStore:
    """All methods raise UserError where a person can mend it, and NotFound where a key must exist but does not."""

    def __init__(
        self, backend: Backend, *, retry_seconds: float = RETRY_SECONDS, access: S3Access | None = None
    ) -> None:
        self.url = backend.url
        self.root = backend.root
        self.retry_seconds = retry_seconds
        self._access = access
        self._client = backend.client
        self._keeps_metadata = backend.url.startswith("s3://")

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., ObjectStore], tuple[str, float, S3Access | None]]:
        return _reopen, (self.url, self.retry_seconds, self._access)

    def get(self, key: str) -> bytes:
        """The whole object."""
        with translated(self.url, key):
            return bytes(self._client.get(_checked(key)).bytes())

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object, clipped to its end; b"" when start is at or beyond it."""
        if not 0 <= start <= stop:
            raise ValueError(f"range [{start}, {stop}) of {key} is not a range")
        if start == stop:
            return b""
        try:
            with translated(self.url, key):
                return bytes(self._client.get_range(_checked(key), start=start, end=stop))
        except StoreError:
            if start >= self.info(key).size:
                return b""
            raise

    def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, replacing what was there."""
        with translated(self.url, key, writing=True):
            self._client.put(_checked(key), data, use_multipart=False)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store `data` unless the key exists. True when this call stored it: of any number of callers, one gets True."""
        token, lost = uuid.uuid4().hex, 0
        attributes = {TOKEN: token} if self._keeps_metadata else None
        deadline = time.monotonic() + self.retry_seconds
        while True:
            try:
                with translated(self.url, key, writing=True):
                    self._client.put(_checked(key), data, mode="create", attributes=attributes)
            except foreign.AlreadyExistsError:
                return self._keeps_metadata and self._token(key) == token
            except Unreachable:
                # Sent, but the answer was lost. Absent now does not mean absent later, so the next try is conditional
                # too, and losing it still means to compare tokens.
                stored = self._token(key)
                if stored is not None:
                    return stored == token
                lost += 1
                if lost > 1 and time.monotonic() > deadline:
                    raise
                time.sleep(min(2.0, 0.1 * lost))
            else:
                return True

    def put_file(self, local: Path, key: str) -> None:
        """Store a file, streamed and in parts when large, replacing what was there. The object appears when complete."""
        size = local.stat().st_size
        chunk = max(CHUNK, -(-size // MAX_PARTS))
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            try:
                with translated(self.url, key, writing=True):
                    self._client.put(_checked(key), local, chunk_size=chunk, max_concurrency=4)
                return
            except NotFound:  # the server forgot the upload when it restarted, or finished it and its answer was lost
                if attempt == UPLOAD_ATTEMPTS:
                    raise StoreError(f"the upload of {key} to {self.url} was dropped {attempt} times") from None

    def get_file(self, key: str, local: Path, *, sha256: str = "") -> None:
        """Write the object to `local`, which appears whole or not at all; its directory is made.

        sha256: hex digest the content must have. Raises UserError when it has another.
        """
        size = self.info(key).size
        local.parent.mkdir(parents=True, exist_ok=True)
        arriving = local.with_name(f".{local.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        digest = hashlib.sha256()
        try:
            with arriving.open("wb") as stream:
                for start in range(0, size, CHUNK):
                    part = self.get_range(key, start, min(start + CHUNK, size))
                    digest.update(part)
                    stream.write(part)
            check_digest(key, digest.hexdigest(), sha256 or digest.hexdigest(), self.url)
            arriving.replace(local)
        finally:
            arriving.unlink(missing_ok=True)

    def head(self, key: str) -> ObjectInfo | None:
        """Size and time of the object, or None when there is none."""
        try:
            return self.info(key)
        except NotFound:
            return None

    def info(self, key: str) -> ObjectInfo:
        """Size and time of the object. Raises NotFound."""
        with translated(self.url, key):
            meta = self._client.head(_checked(key))
        return ObjectInfo(key, int(meta["size"]), meta["last_modified"])

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in no order. Cheap when the prefix ends with '/' or is ""."""
        folder = prefix.rpartition("/")[0]
        with translated(self.url, prefix):
            for page in self._client.list(folder or None, chunk_size=LIST_CHUNK):
                for meta in page:
                    if meta["path"].startswith(prefix):
                        yield ObjectInfo(meta["path"], int(meta["size"]), meta["last_modified"])

    def list(self, prefix: str = "") -> dict[str, int]:
        """{key: size in bytes} of every key that starts with `prefix`, sorted."""
        return dict(sorted((found.key, found.size) for found in self.objects(prefix)))

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        deadline, pause = time.monotonic() + self.retry_seconds, 0.1
        while True:
            try:
                with translated(self.url, key, writing=True):
                    self._client.delete(_checked(key))
            except NotFound:
                return
            except Unreachable:
                # The client does not ask again when an answer is lost, since it takes a delete for something that may not
                # be done twice. Nobody minds a second one.
                if time.monotonic() + pause > deadline:
                    raise
            else:
                return
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def check_writable(self) -> None:
        """Write and remove a small object, so that a store that refuses shows at once. Raises UserError."""
        quick = self if not self._keeps_metadata else _reopen(self.url, PROBE_RETRY_SECONDS, self._access)
        key = f".writable-{uuid.uuid4().hex}"
        quick.put(key, b"unified-reward looks whether it may write here")
        quick.delete(key)

    def require_space(self, size: int) -> None:
        """Raise UserError when a local store's disk has less than `size` bytes free. Servers do not tell; see errors."""
        if self.root is not None:
            require_disk_space(self.root, size, field="store", shown=self.url)

    def _token(self, key: str) -> str | None:
        """The token of the call that wrote the object ("" when it has none), or None when there is no object."""
        try:
            with translated(self.url, key):
                found = self._client.get(_checked(key))
        except NotFound:
            return None
        return str(found.attributes.get(TOKEN, ""))


def require_disk_space(directory: Path, size: int, *, field: str, shown: str) -> None:
    """Raise UserError when the disk of `directory` (or of its nearest existing parent) has less than `size` bytes free."""
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(field=field, value=shown, why=f"{_sized(free)} are free there and {_sized(size)} are needed",
                        fix="Free some space, or choose a place with more room.")  # fmt: skip


def check_digest(key: str, found: str, expected: str, url: str) -> None:
    """Raise UserError when an object is not what its digest says."""
    if found != expected:
        raise UserError(field=key, value=f"sha256 {found[:12]}", why=f"{expected[:12]} was stored there in {url}, so it is damaged",
                        fix="Restore the object from a backup, or make it again.")  # fmt: skip


def _sized(size: int) -> str:
    return f"{size / MEBIBYTE / 1024:.1f} GiB" if size >= 1024 * MEBIBYTE else f"{size / MEBIBYTE:.1f} MiB"


def _checked(key: str) -> str:
    if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is not a key: segments joined by single slashes")
    return key


def _reopen(url: str, retry_seconds: float, access: S3Access | None) -> ObjectStore:
    return open_store(url, retry_seconds=retry_seconds, access=access)
