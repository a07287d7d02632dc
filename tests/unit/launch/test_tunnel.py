"""The installation's store from outside: two readers at once, each by its own way, and the environment stays as it was."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from unified_reward.config import ClusterDefaults
from unified_reward.launch import tunnel
from unified_reward.launch.tunnel import cluster_store

DEFAULTS = ClusterDefaults(
    store="s3://bucket", store_endpoint="http://ur-minio:9000", store_service="ur-minio", store_secret="ur-store"
)


class Cluster:
    """Has the jobs' Secret and nothing else."""

    def get(self, path: str) -> dict[str, Any]:
        assert path.endswith("/secrets/ur-store")
        return {"data": {name: base64.b64encode(b"of-the-jobs").decode() for name in tunnel.KEYS}}


@contextlib.contextmanager
def server(name: bytes) -> Iterator[int]:
    """Answers every object with its own name and the key id that signed the request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signer = self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
            body = name + b" for " + signer.encode()
            self.send_response(200)
            for header, value in (
                ("Content-Length", str(len(body))),
                ("ETag", '"e"'),
                ("Last-Modified", self.date_time_string()),
            ):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def test_the_second_of_two_readers_keeps_its_way_when_the_first_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*tunnel.KEYS, *tunnel.OWN_ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    with server(b"first") as one, server(b"second") as two:
        ports = iter((one, two))

        class Way:
            def __init__(self, *_: object) -> None:
                self.port = next(ports)

            def __enter__(self) -> Way:
                return self

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr(tunnel, "Tunnel", Way)
        before = dict(os.environ)
        first, second = (cluster_store(Cluster(), "ns", DEFAULTS) for _ in range(2))  # type: ignore[arg-type]
        with contextlib.ExitStack() as rest:
            with first as store:
                other = rest.enter_context(second)
                assert os.environ == before
                assert store.get("a") == b"first for of-the-jobs"
            assert other.get("a") == b"second for of-the-jobs"
        assert os.environ == before


def test_a_persons_own_keys_go_before_those_of_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tunnel.KEYS:
        monkeypatch.setenv(name, "mine")
    for name in tunnel.OWN_ENDPOINT:
        monkeypatch.delenv(name, raising=False)
    with server(b"it") as port:
        near = DEFAULTS.model_copy(update={"store_service": "", "store_endpoint": f"http://127.0.0.1:{port}"})
        with cluster_store(Cluster(), "ns", near) as store:  # type: ignore[arg-type]
            assert store.get("a") == b"it for mine"
