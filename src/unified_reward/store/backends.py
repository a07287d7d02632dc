"""From a store's URL to a client: a local directory, any S3 (MinIO), or memory for tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore.store as clients

from unified_reward.errors import UserError
from unified_reward.store.errors import translate

RETRY_SECONDS = 180.0  # a server's restart takes about a minute; obstore advises to stay below five minutes
READ_TIMEOUT = "60s"
ENDPOINT_VARIABLES = ("UR_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_memories: dict[str, Any] = {}


@dataclass(frozen=True)
class S3Access:
    """How an S3 is reached. An endpoint or keys that are "" come from the environment; keys go together."""

    endpoint: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Backend:
    """A client and what it stands for. url holds no credentials. root: the directory of a local store, else None."""

    client: Any
    url: str
    root: Path | None = None


def connect(
    url: str, *, retry_seconds: float = RETRY_SECONDS, create: bool = True, access: S3Access | None = None
) -> Backend:
    """The backend that `url` names; nothing is asked of a server yet.

    url: `file:///abs/dir`, a path, `s3://bucket/prefix`, `memory://` (new each time) or `memory://name` (shared in
    this process). create: make the local directory when it is missing. Raises UserError.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("", "file"):
        return _local(url, create=create)
    if scheme == "memory":
        return _memory(url)
    if scheme == "s3":
        return _s3(url, retry_seconds, access or S3Access())
    shown = f"{scheme}://{url.partition('://')[2].rpartition('@')[2]}"
    raise UserError(field="store", value=shown, why=f"stores of kind {scheme}:// are not known",
                    fix="Use a path, file:///DIR or s3://BUCKET/PREFIX.")  # fmt: skip


def _local(url: str, *, create: bool) -> Backend:
    if url.startswith("file:"):
        parts = urlsplit(url)
        if parts.netloc or not parts.path.startswith("/"):
            raise UserError(field="store", value=url, why="a file URL needs three slashes and an absolute path",
                            fix="Write file:///abs/dir, or a plain path.")  # fmt: skip
        root = Path(unquote(parts.path))
    elif url:
        root = Path(url).expanduser().absolute()
    else:
        raise UserError(field="store", value=None, why="there is no store to use", fix="Give a path or a URL.")
    if root.exists() and not root.is_dir():
        raise UserError(field="store", value=url, why="it is a file", fix="Name a directory.")
    if not create and not root.is_dir():
        raise UserError(field="store", value=url, why="there is no such directory",
                        fix="Check the path, or run a pipeline that makes it.")  # fmt: skip
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"the directory cannot be made ({error.strerror})"
        raise UserError(field="store", value=url, why=why, fix="Choose a directory this user may write.") from None
    return Backend(clients.LocalStore(root), root.as_uri(), root)


def _memory(url: str) -> Backend:
    name = url.removeprefix("memory://")
    if not name:
        return Backend(clients.MemoryStore(), url)
    return Backend(_memories.setdefault(name, clients.MemoryStore()), url)


def _s3(url: str, retry_seconds: float, access: S3Access) -> Backend:
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not bucket or "@" in bucket or parts.query:
        shown = f"s3://{bucket.rpartition('@')[2]}{parts.path}"
        raise UserError(field="store", value=shown, why="it is not of the form s3://BUCKET/PREFIX",
                        fix="Name bucket and prefix only; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")  # fmt: skip
    config: dict[str, Any] = {
        "virtual_hosted_style_request": False,
        "region": os.environ.get("AWS_REGION", "us-east-1"),
    }
    endpoint = access.endpoint or _endpoint()
    if endpoint:
        config["endpoint"] = endpoint
    provider: Callable[[], Any] | None = None
    if access.access_key_id:
        # Given as a whole: beside keys in `config` the client would send an AWS_SESSION_TOKEN that belongs to other keys.
        keys = {"access_key_id": access.access_key_id, "secret_access_key": access.secret_access_key}
        provider = partial(dict, keys, token=None, expires_at=None)
    elif endpoint:
        # Without keys the client would ask the cloud's metadata service, which a MinIO's machine has not.
        config["access_key_id"] = _variable("AWS_ACCESS_KEY_ID", url)
        config["secret_access_key"] = _variable("AWS_SECRET_ACCESS_KEY", url)
    # A stalled server is noticed by the read timeout, so that the whole of a large transfer needs no limit of its own.
    options = {"allow_http": True, "timeout": "6h", "connect_timeout": "5s", "read_timeout": READ_TIMEOUT}
    retry = {"max_retries": 1000, "retry_timeout": timedelta(seconds=retry_seconds),
             "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}}  # fmt: skip
    try:
        client = clients.S3Store(
            bucket, prefix=prefix or None, config=config, client_options=options, retry_config=retry,
            credential_provider=provider,
        )  # fmt: skip
    except Exception as error:
        raise translate(error, url, "") from None
    return Backend(client, f"s3://{bucket}/{prefix}".rstrip("/"))


def _endpoint() -> str:
    for name in ENDPOINT_VARIABLES:
        value = os.environ.get(name, "")
        if not value:
            continue
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UserError(field=name, value=f"{parts.scheme}://{parts.hostname or ''}", why="it is not an http(s) address",
                            fix="Write http://HOST:PORT, without user and password.")  # fmt: skip
        return value
    return ""


def _variable(name: str, url: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UserError(field=name, value=None, why=f"the store {url} needs it", fix=f"Set {name} in the environment.")
    return value
