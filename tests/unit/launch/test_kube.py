"""What a cluster's refusals become, and what is asked again: a server that answers from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration

from unified_reward.errors import UserError
from unified_reward.launch.kube import DroppedError, Kube, core_path, jobs_path

Answer = tuple[int, dict[str, Any] | bytes]


class Server:
    """answers: taken one by one; asked: method and path of each request."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                server.asked.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, body = server.answers.pop(0)
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                if raw.endswith(b"..."):  # as the API server sends a log, and is killed
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", str(len(raw)))
                    self.end_headers()
                    self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        configuration = Configuration(host=f"http://127.0.0.1:{self.http.server_port}")
        configuration.retries = False
        self.kube = Kube(ApiClient(configuration), "ns", retry_seconds=5)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def status(code: int, reason: str, message: str, **details: str) -> Answer:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(401, "Unauthorized", "Unauthorized"), "it does not know you"),
        (status(403, "Forbidden", "User bob cannot create"), "namespace is ns: you may not do this there (User bob"),
        (status(403, "Forbidden", 'exceeded quota: gpus, used: 8'), "namespace is ns: exceeded quota: gpus"),
        (status(404, "NotFound", "no namespace", kind="namespaces", name="ns"), "the cluster has no such namespace"),
        ((404, b"404 page not found"), "it does not know pytorchjobs. Install Kubeflow's training-operator"),
        (status(422, "Invalid", "spec.x: Required", name="j"), "pytorchjobs is j: the cluster refuses it (spec.x: Required)"),
        (status(500, "InternalError", 'failed calling webhook "v": refused'), "a webhook that checks objects does not answer"),
        (status(400, "BadRequest", 'admission webhook "v" denied the request: no'), "the cluster refuses it (admission"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_that_names_the_way_out(server: Server, answer: Answer, told: str) -> None:
    server.answers = [answer]
    with pytest.raises(UserError) as caught:
        server.kube.create(jobs_path("ns"), {"metadata": {"name": "j"}})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_read_outlasts_a_restart_and_a_write_that_may_have_arrived_is_not_sent_twice(server: Server) -> None:
    gone = (503, b"apiserver is shutting down")
    server.answers = [gone, gone, (200, {"kind": "Pod"})]
    assert server.kube.get(core_path("ns", "pods", "p")) == {"kind": "Pod"}
    server.answers = [gone]
    with pytest.raises(UserError):
        server.kube.create(jobs_path("ns"), {})
    assert len(server.asked) == 4


def test_what_is_not_there_is_none_and_what_is_there_already_too(server: Server) -> None:
    server.answers = [
        status(404, "NotFound", "pods p not found", kind="pods", name="p"),
        status(409, "AlreadyExists", "j"),
    ]
    assert server.kube.get(core_path("ns", "pods", "p")) is None
    assert server.kube.create(jobs_path("ns"), {}) is None


def test_a_long_list_is_read_page_by_page(server: Server) -> None:
    server.answers = [
        (200, {"items": [{"n": 1}], "metadata": {"continue": "t"}}),
        (200, {"items": [{"n": 2}], "metadata": {}}),
    ]
    assert server.kube.objects(core_path("ns", "pods"), labels="a=b") == [{"n": 1}, {"n": 2}]
    assert "continue=t" in server.asked[1]


def test_a_log_keeps_a_last_line_without_newline_and_tells_a_broken_stream(server: Server) -> None:
    server.answers = [(200, b"a\nb"), (200, b"a\nb..."), status(400, "BadRequest", "container is waiting to start")]

    def lines() -> Iterator[bytes]:
        return server.kube.pod_log("ns", "p", container="c", follow=False)

    assert list(lines()) == [b"a\n", b"b"]
    with pytest.raises(DroppedError):
        list(lines())
    assert list(lines()) == []


def test_a_cluster_that_does_not_answer_is_named(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    quick = Kube(server.kube.api, "ns", retry_seconds=0)
    with pytest.raises(UserError, match=r"cluster is http://127\.0\.0\.1:\d+: it does not answer"):
        quick.get(core_path("ns", "pods", "p"))
