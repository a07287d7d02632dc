"""One interface to `file://` directories, `memory://` (tests) and any S3 such as MinIO, over obstore.

Foreign errors are translated here and nowhere else. A put is atomic: a reader sees the whole object or none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as foreign
from obstore.store import LocalStore, MemoryStore, S3Store

from unified_reward.errors import UserError

MULTIPART_BYTES = 8 * 1024 * 1024
RETRY_SECONDS = 180  # an S3 that restarts is back well within this
T = TypeVar("T")


class NotFoundError(KeyError):
    """There is no object under this key."""


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size: int


def open_store(url: str) -> ObjectStore:
    """The store at `file:///DIR`, a plain directory, `memory://`, or `s3://BUCKET/PREFIX`.

    S3 takes its endpoint from UR_S3_ENDPOINT or AWS_ENDPOINT_URL, its keys from the usual AWS_* variables.
    Raises UserError when the URL is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path) if parts.scheme else url).expanduser().resolve()
        return ObjectStore(_local(path), path.as_uri(), directory=path)
    if parts.scheme == "memory":
        return ObjectStore(MemoryStore(), url)
    if parts.scheme == "s3" and parts.netloc:
        return ObjectStore(_s3(parts.netloc, parts.path.strip("/")), url)
    raise UserError(field="store", value=url, why="it is no store URL", fix="Use file:///DIR or s3://BUCKET/PREFIX.")


class ObjectStore:
    """Keys are relative paths with `/`. Safe to use from several threads and processes."""

    def __init__(self, backend: Any, url: str, directory: Path | None = None) -> None:
        self.url, self.directory = url, directory
        self._backend = backend

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        return self._call(key, lambda: bytes(obstore.get(self._backend, key).bytes()))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from offset `start`. Raises NotFoundError."""
        return self._call(key, lambda: bytes(obstore.get_range(self._backend, key, start=start, length=length)))

    def get_file(self, key: str, path: Path) -> None:
        """Stream an object to `path`, which appears whole or not at all. Raises NotFoundError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            try:
                for chunk in self._call(key, lambda: obstore.get(self._backend, key)):
                    stream.write(chunk)
                stream.close()
                os.replace(stream.name, path)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over an existing one."""
        self._call(key, lambda: obstore.put(self._backend, key, data))

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file, in parts when it is large."""
        multipart = path.stat().st_size > MULTIPART_BYTES
        self._call(
            key, lambda: obstore.put(self._backend, key, path, use_multipart=multipart, chunk_size=MULTIPART_BYTES)
        )

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one: of several writers exactly one gets True.

        A create that fails on the way may or may not have been carried out, so it is settled by reading back: whoever finds
        its own bytes has won. Bytes that must name one winner therefore have to differ between writers.
        """
        try:
            obstore.put(self._backend, key, data, mode="create")
        except (foreign.AlreadyExistsError, foreign.PreconditionError):
            return False
        except foreign.GenericError as error:
            existing = self.get(key) if self.head(key) else None
            if existing is None:
                raise self._translated(key, error) from error
            return existing == data
        except Exception as error:
            raise self._translated(key, error) from error
        return True

    def head(self, key: str) -> ObjectInfo | None:
        """Size of an object, or None when there is none."""
        try:
            return ObjectInfo(key, self._call(key, lambda: obstore.head(self._backend, key))["size"])
        except NotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with the directory `prefix`, in no order."""
        pages = self._call(prefix, lambda: list(obstore.list(self._backend, prefix=prefix or None)))
        for page in pages:
            for entry in page:
                yield ObjectInfo(entry["path"], entry["size"])

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        with contextlib.suppress(NotFoundError):
            self._call(key, lambda: obstore.delete(self._backend, key))

    def check_writable(self) -> None:
        """Write and remove a small object. Raises UserError when the store refuses."""
        key = f".write-check-{os.getpid()}"
        self.put(key, b"ok")
        self.delete(key)

    def require_space(self, size: int) -> None:
        """Raise UserError when a local store's disk has less than `size` bytes free. S3 cannot be asked."""
        if self.directory is None:
            return
        free = shutil.disk_usage(self.directory).free
        if free < size:
            fix = "Free some space, or name another store."
            why = f"its disk has {free / 1e6:.0f} MB free and {size / 1e6:.0f} MB are needed"
            raise UserError(field="store", value=self.url, why=why, fix=fix)

    def _call(self, key: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as error:
            raise self._translated(key, error) from error

    def _translated(self, key: str, error: Exception) -> Exception:
        """Our error for obstore's; its own text is kept to the first line, which holds no secrets."""
        text = str(error).split("\n", 1)[0][:300]
        if isinstance(error, FileNotFoundError | foreign.NotFoundError) and "NoSuchBucket" not in str(error):
            return NotFoundError(key)
        if "NoSuchBucket" in str(error):
            return self._fault("there is no such bucket", "Create the bucket, or name another one.")
        if isinstance(error, PermissionError | foreign.PermissionDeniedError | foreign.UnauthenticatedError):
            return self._fault(f"access is denied ({text})", "Check the permissions and the keys.")
        if "No space left" in str(error):
            return self._fault("its disk is full", "Free some space, or name another store.")
        if "Read-only file system" in str(error) or "Permission denied" in str(error):
            return self._fault(f"it refuses writes ({text})", "Make it writable, or name another store.")
        if isinstance(error, foreign.BaseError | OSError):
            return self._fault(f"it does not answer as a store ({text})", "Check that it runs and can be reached.")
        return error

    def _fault(self, why: str, fix: str) -> UserError:
        return UserError(field="store", value=self.url, why=why, fix=fix)


def _local(directory: Path) -> LocalStore:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"the directory cannot be made ({error.strerror})"
        raise UserError(field="store", value=directory, why=why, fix="Name a directory you may write to.") from error
    return LocalStore(str(directory))


def _s3(bucket: str, prefix: str) -> S3Store:
    endpoint = os.environ.get("UR_S3_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"region": os.environ.get("AWS_REGION", "us-east-1")}
    if endpoint:
        options["endpoint"] = endpoint
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
        retry_config={
            "max_retries": 30,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
        },
        **options,
    )
