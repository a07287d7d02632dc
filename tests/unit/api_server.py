"""An API server for tests: it answers by path, as a real one says that something is not there, or not allowed."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


def offer(name: str, text: str) -> dict[str, Any]:
    """The ConfigMap of an installation; text: YAML of ClusterDefaults."""
    labels = {"unifiedreward.dev/cluster": "defaults"}
    return {"metadata": {"name": name, "labels": labels}, "data": {"cluster.yaml": text}}


class Api:
    """objects: by path; a list is filtered by the labels that are asked for, bytes are a log. written: bodies of what changes."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {"/api/v1/namespaces/ml": {}}
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.forbidden: tuple[str, ...] = ()  # "GET /path" begins with one of these
        self.unknown: tuple[str, ...] = ()  # groups that no CRD has made
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = urlsplit(self.path)
                if self.command != "GET":
                    api.written.append((asked.path, json.loads(sent or b"{}")))
                code, body = api.answer(self.command, asked.path, parse_qs(asked.query))
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        kind, _, name = path.rpartition("/")
        kind = kind.rpartition("/")[2]
        if path.startswith(self.unknown):
            return 404, b"404 page not found\n"
        if f"{method} {path}".startswith(self.forbidden):
            said = f'{kind} "{name}" is forbidden: User "ada" cannot do this in the namespace "ml"'
            return 403, self.status(403, "Forbidden", said, name=name, kind=kind)
        if path in self.objects:
            found = self.objects[path]
            if isinstance(found, list):
                labels = [pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair]
                chosen = [
                    one for one in found if all(one["metadata"]["labels"].get(key) == value for key, value in labels)
                ]
                found = {"items": chosen, "metadata": {}}
            return 200, found if isinstance(found, bytes) else json.dumps(found).encode()
        if name in ("alignmentruns", "configmaps", "pods", "pytorchjobs"):
            return 200, b'{"items": []}'
        return 404, self.status(404, "NotFound", f'{kind} "{name}" not found', name=name, kind=kind)

    @staticmethod
    def status(code: int, reason: str, message: str, **details: str) -> bytes:
        return json.dumps(
            {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
        ).encode()

    def kubeconfig(self, directory: Path) -> str:
        """A file that leads here, to the namespace ml."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.http.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ml"}}],
        }  # fmt: skip
        (directory / "kubeconfig").write_text(json.dumps(config))
        return str(directory / "kubeconfig")
