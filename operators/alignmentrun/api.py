"""The API server, in the few calls the operator makes: JSON over one HTTP session, in a pod or by a kubeconfig.

Errors of the moment (429, 5xx, a lost connection) are tried again with a growing pause; what remains raises ApiError.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from unified_reward.errors import UserError

MANAGER = "unified-reward-operator"
POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ATTEMPTS = 5
RUNS = "apis/unifiedreward.dev/v1alpha1/namespaces/{}/alignmentruns"
JOBS = "apis/kubeflow.org/v1/namespaces/{}/pytorchjobs"
PODS = "api/v1/namespaces/{}/pods"
EVENTS = "api/v1/namespaces/{}/events"


class ApiError(Exception):
    """What the API server refused, or that it does not answer (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Access:
    """How the API server is reached. token_file: read anew for each call, since it is rotated."""

    server: str
    ssl: ssl.SSLContext | None
    token_file: Path | None = None
    token: str = ""

    @classmethod
    def find(cls) -> Access:
        """A pod's own account, else the kubeconfig. Raises UserError when there is neither."""
        if POD_ACCOUNT.joinpath("token").exists():
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            context = ssl.create_default_context(cafile=str(POD_ACCOUNT / "ca.crt"))
            return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", context, POD_ACCOUNT / "token")
        path = Path(os.environ.get("KUBECONFIG", "") or Path.home() / ".kube" / "config")
        if not path.is_file():
            raise UserError(field="KUBECONFIG", value=path, why="there is no such file, and this is no pod",
                            fix="Set KUBECONFIG to a cluster's configuration.")  # fmt: skip
        return cls._from_kubeconfig(yaml.safe_load(path.read_text(encoding="utf-8")))

    @classmethod
    def _from_kubeconfig(cls, config: Mapping[str, Any]) -> Access:
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        tls = ssl.create_default_context(cadata=_decoded(cluster, "certificate-authority"))
        certificate, key = _decoded(user, "client-certificate"), _decoded(user, "client-key")
        if certificate and key:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:  # the library reads files only
                both.write(certificate + "\n" + key)
                both.flush()
                tls.load_cert_chain(both.name)
        return cls(cluster["server"], tls, token=user.get("token", ""))

    def headers(self) -> dict[str, str]:
        token = self.token_file.read_text() if self.token_file else self.token
        return {"Authorization": f"Bearer {token.strip()}"} if token else {}


class Api:
    """Calls in one namespace. calls: how many of each verb and answer; writes: those that changed something."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.access, self.namespace = access, namespace
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self.writes = 0
        self._session: aiohttp.ClientSession | None = None

    async def list(self, path: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects, in chunks."""
        found: list[dict[str, Any]] = []
        query = {"limit": "500", **({"labelSelector": selector} if selector else {})}
        while True:
            page = await self.call("GET", path, query=query)
            found += page["items"]
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    async def apply(self, path: str, manifest: Mapping[str, Any], subresource: str = "") -> dict[str, Any]:
        """Server-side apply."""
        where = f"{path}/{manifest['metadata']['name']}" + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self.call("PATCH", where, body=manifest, kind="application/apply-patch+yaml", query=query)

    async def merge(self, path: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        return await self.call("PATCH", f"{path}/{name}", body=change, kind="application/merge-patch+json")

    async def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self.call("POST", path, body=manifest, kind="application/json")

    async def delete(self, path: str, name: str) -> None:
        """Gone already is well."""
        try:
            await self.call("DELETE", f"{path}/{name}", query={"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    async def log_tail(self, pod: str, lines: int) -> str:
        try:
            text = await self.call(
                "GET", f"{PODS}/{pod}/log", query={"tailLines": str(lines), "container": "pytorch"}, raw=True
            )
        except ApiError:
            return ""
        return str(text)

    async def call(
        self, verb: str, path: str, *, body: Any = None, kind: str = "", query: Mapping[str, str] | None = None, raw: bool = False
    ) -> Any:  # fmt: skip
        url = f"{self.access.server}/{path.format(self.namespace)}"
        resource = path.split("/")[-1 if path.count("/") < 5 else 5].split("/")[0]
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                headers = {**self.access.headers(), **({"Content-Type": kind} if kind else {})}
                data = json.dumps(body) if body is not None else None
                async with self.session.request(
                    verb, url, params=query, data=data, headers=headers, ssl=self.access.ssl or False
                ) as answer:
                    text = await answer.text()
                    self.calls[verb, resource, answer.status] += 1
                    if answer.status < 300:
                        self.writes += verb != "GET"
                        return text if raw else json.loads(text)
                    if last or (answer.status != 429 and answer.status < 500):
                        raise ApiError(answer.status, _message(text))
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                self.calls[verb, resource, 0] += 1
                if last:
                    raise ApiError(0, f"the API server does not answer: {error}") from None
            await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30, connect=5))
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _decoded(entry: Mapping[str, Any], name: str) -> str | None:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"]).decode()
    return Path(entry[name]).read_text(encoding="utf-8") if name in entry else None


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]
