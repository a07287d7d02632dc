"""The API server, in the few calls the operator makes: JSON over one HTTP session, in a pod or by a kubeconfig.

Errors of the moment (429, 5xx, a lost connection) are tried again with a growing pause; what remains raises ApiError.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from unified_reward.errors import UserError
from unified_reward.launch.pytorchjob import CONTAINER

MANAGER = "unified-reward-operator"
POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ATTEMPTS = 5
CALL_SECONDS, LOG_SECONDS = 30.0, 5.0
PAGE = 250  # objects of a list at once: a page of jobs is a few megabytes
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
    """How the API server is reached. token_file: read anew for each call, since it is rotated. cluster: a digest of its
    authority, which no other cluster has."""

    server: str
    ssl: ssl.SSLContext | None
    token_file: Path | None = None
    token: str = ""
    cluster: str = ""

    @classmethod
    def find(cls) -> Access:
        """A pod's own account, else the kubeconfig. Raises UserError when there is neither."""
        if POD_ACCOUNT.joinpath("token").exists():
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            authority = (POD_ACCOUNT / "ca.crt").read_text(encoding="utf-8")
            context = ssl.create_default_context(cadata=authority)
            server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
            return cls(server, context, POD_ACCOUNT / "token", cluster=_digest(authority))
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
        authority = _decoded(cluster, "certificate-authority")
        tls = ssl.create_default_context(cadata=authority)
        certificate, key = _decoded(user, "client-certificate"), _decoded(user, "client-key")
        if certificate and key:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:  # the library reads files only
                both.write(certificate + "\n" + key)
                both.flush()
                tls.load_cert_chain(both.name)
        digest = _digest(authority or cluster["server"])
        return cls(cluster["server"], tls, token=user.get("token", ""), cluster=digest)

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

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """All objects, a page at a time, each with the version of the whole list."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        version = ""
        while True:
            page = await self._object("GET", path, query=query)
            version = version or str(page["metadata"]["resourceVersion"])
            yield page["items"], version
            if not page["metadata"].get("continue"):
                return
            query["continue"] = page["metadata"]["continue"]

    async def get(self, path: str, name: str) -> dict[str, Any]:
        return await self._object("GET", f"{path}/{name}")

    async def apply(self, path: str, manifest: Mapping[str, Any], subresource: str = "") -> dict[str, Any]:
        """Server-side apply."""
        where = f"{path}/{manifest['metadata']['name']}" + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._object("PATCH", where, body=manifest, kind="application/apply-patch+yaml", query=query)

    async def merge(self, path: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        return await self._object("PATCH", f"{path}/{name}", body=change, kind="application/merge-patch+json")

    async def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ApiError 409 when there is one of this name."""
        query = {"fieldManager": MANAGER}
        return await self._object("POST", path, body=manifest, kind="application/json", query=query)

    async def delete(self, path: str, name: str, uid: str) -> None:
        """This one, and no other that has its name by now. Gone already is well."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._object("DELETE", f"{path}/{name}", body=body, kind="application/json")
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def log_tail(self, pod: str, lines: int) -> str:
        """Once and briefly: it is asked for again soon. "" where it cannot be had."""
        query = {"tailLines": str(lines), "container": CONTAINER}
        try:
            return str(
                await self.call("GET", f"{PODS}/{pod}/log", query=query, raw=True, attempts=1, seconds=LOG_SECONDS)
            )
        except ApiError:
            return ""

    async def _object(self, verb: str, path: str, **what: Any) -> dict[str, Any]:
        answer = await self.call(verb, path, **what)
        return dict(answer)

    async def call(
        self, verb: str, path: str, *, body: Any = None, kind: str = "", query: Mapping[str, str] | None = None,
        raw: bool = False, attempts: int = ATTEMPTS, seconds: float = CALL_SECONDS,
    ) -> Any:  # fmt: skip
        url = f"{self.access.server}/{path.format(self.namespace)}"
        resource = resource_of(path)
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                headers = {**self.access.headers(), **({"Content-Type": kind} if kind else {})}
                data = json.dumps(body) if body is not None else None
                timeout = aiohttp.ClientTimeout(total=seconds, connect=min(5.0, seconds))
                async with self.session.request(
                    verb, url, params=query, data=data, headers=headers, ssl=self.access.ssl or True, timeout=timeout
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
            self._session = aiohttp.ClientSession()
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def resource_of(path: str) -> str:
    """What a path is about, without the name of any object: `pods`, `pods/log`, `alignmentruns/status`."""
    parts = path.split("/")
    place = 5 if parts[0] == "apis" else 4  # after group and version, and `namespaces/NAMESPACE`
    return "/".join([parts[place], *parts[place + 2 :]])


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


def _digest(authority: str) -> str:
    return hashlib.sha256(authority.strip().encode()).hexdigest()[:12]
