"""The installation's store as a laptop reaches it: the person's own endpoint and keys, or a way through the API server.

With UR_S3_ENDPOINT or AWS_ENDPOINT_URL set, that is used with the AWS_* keys of the environment. Else each connection to a
local port goes through the cluster's API server to a pod behind the store's Service, and the keys are those of the jobs'
Secret, where the person may read it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from unified_reward.config import ClusterDefaults
from unified_reward.errors import UserError
from unified_reward.launch.kube import Kube, core_path
from unified_reward.store import ObjectStore, S3Access, open_store

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
OWN_ENDPOINT = ("UR_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
RETRY_SECONDS = 20.0


@contextlib.contextmanager
def cluster_store(kube: Kube, namespace: str, defaults: ClusterDefaults) -> Iterator[ObjectStore]:
    """The store of the installation in `namespace`. Raises UserError."""
    if not defaults.store.startswith("s3://"):
        raise UserError(field="store", value=defaults.store, why="only object stores can be reached from outside of the cluster",
                        fix="Give the installation an s3:// store.")  # fmt: skip
    if any(os.environ.get(name) for name in OWN_ENDPOINT):
        yield open_store(defaults.store, retry_seconds=RETRY_SECONDS)
        return
    key, secret = _keys(kube, namespace, defaults)
    with contextlib.ExitStack() as stack:
        endpoint = defaults.store_endpoint
        if defaults.store_service:
            tunnel = stack.enter_context(
                Tunnel(kube, namespace, defaults.store_service, _port(defaults.store_endpoint))
            )
            endpoint = f"http://127.0.0.1:{tunnel.port}"
        yield open_store(defaults.store, retry_seconds=RETRY_SECONDS, access=S3Access(endpoint, key, secret))


class Tunnel:
    """A local port whose connections end in a pod behind a Service. Raises UserError when no pod is ready."""

    def __init__(self, kube: Kube, namespace: str, service: str, service_port: int) -> None:
        self.kube, self.namespace = kube, namespace
        self.pod, self.pod_port = _behind(kube, namespace, service, service_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = threading.Lock()

    def __enter__(self) -> Tunnel:
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(local,), name="tunnel-connection", daemon=True).start()

    def _carry(self, local: socket.socket) -> None:
        from kubernetes.client import ApiClient, ApiException, CoreV1Api
        from kubernetes.stream import portforward

        try:
            # A client of its own: portforward puts another method into it while it connects.
            api = CoreV1Api(ApiClient(self.kube.api.configuration))
            forward = portforward(
                api.connect_get_namespaced_pod_portforward, self.pod, self.namespace, ports=str(self.pod_port)
            )
            remote = forward.socket(self.pod_port)
        except (ApiException, OSError):
            local.close()  # the store's client tries again
            return
        back = threading.Thread(target=_pump, args=(remote, local), name="tunnel-back", daemon=True)
        back.start()
        _pump(local, remote)
        back.join()
        local.close()
        forward.close()


def _pump(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(262144):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        source.shutdown(socket.SHUT_RD)


def _behind(kube: Kube, namespace: str, service: str, port: int) -> tuple[str, int]:
    """A ready pod of a Service and its port there."""
    found = kube.objects(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        labels=f"kubernetes.io/service-name={service}",
    )
    described = kube.get(core_path(namespace, "services", service)) or {}
    ports = {p.get("name"): p for p in (described.get("spec") or {}).get("ports") or []}
    name = next((name for name, p in ports.items() if p["port"] == port), None)
    for piece in found:
        target = next((p["port"] for p in piece.get("ports") or [] if (p.get("name") or None) == (name or None)), None)
        for endpoint in piece.get("endpoints") or []:
            if (
                target
                and (endpoint.get("conditions") or {}).get("ready")
                and (endpoint.get("targetRef") or {}).get("kind") == "Pod"
            ):
                return endpoint["targetRef"]["name"], int(target)
    raise UserError(field="store", value=f"Service {service}:{port}", why=f"no ready pod is behind it in namespace {namespace}",
                    fix="Wait for the installation, or set UR_S3_ENDPOINT and AWS_* to reach the store yourself.")  # fmt: skip


def _keys(kube: Kube, namespace: str, defaults: ClusterDefaults) -> tuple[str, str]:
    """Key id and secret; "" where the environment has them."""
    if all(os.environ.get(name) for name in KEYS) or not defaults.store_secret:
        return "", ""
    secret = kube.get(core_path(namespace, "secrets", defaults.store_secret))
    data = (secret or {}).get("data") or {}
    if not all(name in data for name in KEYS):
        raise UserError(field="store", value=f"Secret {defaults.store_secret}", why=f"it is not in namespace {namespace}",
                        fix="Install the chart there, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")  # fmt: skip
    key_id, secret_key = (base64.b64decode(data[name]).decode() for name in KEYS)
    return key_id, secret_key


def _port(endpoint: str) -> int:
    from urllib.parse import urlsplit

    parts = urlsplit(endpoint)
    return parts.port or (443 if parts.scheme == "https" else 80)
