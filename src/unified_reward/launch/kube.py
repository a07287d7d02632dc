"""A small client of the Kubernetes API: paths and dicts, over the official package's connection and credentials.

What a person can mend (no cluster, no right, a wrong manifest, a webhook that is down) raises a UserError; an object that
is not there is None. Reads are tried again for a while when the API server is away; so are writes that have not been sent.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unified_reward.config.forms import OBJECT
from unified_reward.errors import UserError

Resource = dict[str, Any]
NAMESPACE, CONTEXT = "UR_NAMESPACE", "UR_KUBE_CONTEXT"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
RETRY_SECONDS = 60.0
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
FIELD_MANAGER = "unified-reward"
TRANSIENT = {429, 500, 502, 503, 504}


class DroppedError(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class _Refused(Exception):
    """An answer that is no success. reason: Kubernetes' word for it. status 0: there was no answer; sent tells
    whether the request may have arrived."""

    status: int
    reason: str
    message: str
    details: Mapping[str, Any]
    sent: bool = True


class Kube:
    """The API of one cluster. namespace: of the kubeconfig's context, or this pod's."""

    def __init__(self, api: Any, namespace: str, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self.api, self.namespace, self.retry_seconds = api, namespace, retry_seconds

    @property
    def server(self) -> str:
        return str(self.api.configuration.host)

    def get(self, path: str) -> Resource | None:
        """The object at `path`, None when it is not there. Raises UserError."""
        try:
            return self._json("GET", path)
        except _Refused as error:
            if error.status == 404 and error.details.get("name"):
                return None
            raise _told(error, self.server, path) from None

    def objects(self, path: str, *, labels: str = "", fields: str = "", known: bool = False) -> list[Resource]:
        """All objects of a collection that match the selectors; [] where the cluster has no such kind. Raises UserError.

        known: that the cluster has no such kind is an error too.
        """
        query: list[tuple[str, str]] = [("limit", "500")]
        query += [("labelSelector", labels)] if labels else []
        query += [("fieldSelector", fields)] if fields else []
        items: list[Resource] = []
        token = ""
        while True:
            try:
                page = self._json("GET", path, query=[*query, *([("continue", token)] if token else [])])
            except _Refused as error:
                if error.status == 404 and not known:
                    return []
                raise _told(error, self.server, path) from None
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return items

    def create(self, path: str, body: Resource, *, dry_run: bool = False) -> Resource | None:
        """Create an object; unknown fields are refused. None when one of this name exists. Raises UserError."""
        query = [("fieldValidation", "Strict"), ("fieldManager", FIELD_MANAGER)]
        query += [("dryRun", "All")] if dry_run else []
        try:
            return self._json("POST", path, query=query, body=body)
        except _Refused as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return None
            raise _told(error, self.server, path) from None

    def merge(self, path: str, body: Resource) -> Resource | None:
        """A JSON merge patch; None when the object is not there. Raises UserError."""
        return self._patch(path, body, MERGE, [])

    def apply(self, path: str, body: Resource, *, dry_run: bool = False) -> Resource:
        """Server-side apply, taking fields over. Raises UserError."""
        query = [("fieldManager", FIELD_MANAGER), ("force", "true"), ("fieldValidation", "Strict")]
        query += [("dryRun", "All")] if dry_run else []
        found = self._patch(path, body, APPLY, query)
        assert found is not None
        return found

    def delete(self, path: str) -> bool:
        """Delete with all that it owns; False when it was not there. Raises UserError."""
        try:
            self._json("DELETE", path, query=[("propagationPolicy", "Background")])
        except _Refused as error:
            if error.status == 404:
                return False
            raise _told(error, self.server, path) from None
        return True

    def watch(self, path: str, *, name: str, version: str = "") -> Iterator[tuple[str, Resource]]:
        """(event, object) of one object until the server ends the watch. Raises DroppedError and UserError."""
        query = [
            ("watch", "true"),
            ("fieldSelector", f"metadata.name={name}"),
            ("timeoutSeconds", str(int(READ_SECONDS / 2))),
        ]
        query += [("resourceVersion", version)] if version else []
        for line in self._lines(path, query):
            event = json.loads(line)
            yield event["type"], event["object"]

    def pod_log(
        self, namespace: str, pod: str, *, container: str, follow: bool, since: str = "", previous: bool = False
    ) -> Iterator[bytes]:
        """Lines of a container, each with its time in front and its newline behind; the last one may lack the newline.

        since: RFC 3339, whole seconds. Raises DroppedError when the connection breaks (or is silent for a minute),
        and UserError; nothing when the pod is gone or has not started.
        """
        query = [("container", container), ("timestamps", "true")]
        query += [("follow", "true")] if follow else []
        query += [("previous", "true")] if previous else []
        query += [("sinceTime", since)] if since else []
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        return self._lines(path, query, absent_is_empty=True)

    def _lines(self, path: str, query: list[tuple[str, str]], *, absent_is_empty: bool = False) -> Iterator[bytes]:
        import urllib3

        try:
            response = self._send("GET", path, query, None, {})
        except _Refused as error:
            if absent_is_empty and error.status in (400, 404):
                return
            if error.status in TRANSIENT or error.status == 0:
                raise DroppedError(error.message) from None
            raise _told(error, self.server, path) from None
        rest = b""
        try:
            for chunk in response.stream(65536, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line + b"\n"
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DroppedError(str(error)) from None
        finally:
            response.close()  # back to the pool would keep what is unread
        if rest:
            yield rest

    def _patch(self, path: str, body: Resource, kind: str, query: list[tuple[str, str]]) -> Resource | None:
        try:
            return self._json("PATCH", path, query=query, body=body, headers={"Content-Type": kind})
        except _Refused as error:
            if error.status == 404 and kind == MERGE and error.details.get("name"):
                return None
            raise _told(error, self.server, path) from None

    def _json(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = (), body: Resource | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Resource:  # fmt: skip
        """The answer, after as many tries as are safe and make sense. Raises _Refused."""
        deadline, pause = time.monotonic() + self.retry_seconds, 0.2
        while True:
            try:
                response = self._send(method, path, query, body, headers or {})
                try:
                    return dict(json.loads(response.read()))
                finally:
                    response.release_conn()
            except (_Refused, OSError, ValueError) as error:
                refused = error if isinstance(error, _Refused) else _Refused(0, "", str(error), {})
                lost = refused.status == 0 or (refused.status in TRANSIENT and "webhook" not in refused.message)
                repeatable = method != "POST" or not refused.sent or refused.status == 429
                if not (lost and repeatable) or time.monotonic() + pause > deadline:
                    raise refused from None
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _send(
        self, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, headers: Mapping[str, str]
    ) -> Any:
        import urllib3
        from kubernetes.client import ApiException

        try:
            return self.api.call_api(
                path, method, query_params=list(query), body=body, auth_settings=["BearerToken"],
                header_params={"Accept": "application/json", "Content-Type": "application/json", **headers},
                _preload_content=False, _return_http_data_only=True, _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )  # fmt: skip
        except ApiException as error:
            raise _refused(error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
            raise _Refused(0, "", str(error), {}, sent=not isinstance(error, unsent)) from None


def connect(context: str = "", namespace: str = "", *, retry_seconds: float = RETRY_SECONDS) -> Kube:
    """The cluster of a kubeconfig's context (default: $UR_KUBE_CONTEXT, else its current one), or the one this pod is in.

    namespace: default $UR_NAMESPACE, else the context's. Raises UserError; nothing is asked of the cluster yet.
    """
    import yaml
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    context = context or os.environ.get(CONTEXT, "")
    namespace = namespace or os.environ.get(NAMESPACE, "")
    if namespace and not is_name(namespace):
        raise UserError(field="namespace", value=namespace, why="no namespace can have this name",
                        fix="Use lower-case letters, digits and dashes.")  # fmt: skip
    configuration = client.Configuration()
    configuration.retries = False
    file = os.environ.get("KUBECONFIG", "") or os.path.expanduser("~/.kube/config")
    in_pod = os.path.exists(f"{SERVICE_ACCOUNT}/token") and not any(map(os.path.exists, file.split(os.pathsep)))
    try:
        if in_pod:
            config.load_incluster_config(client_configuration=configuration)
            with open(f"{SERVICE_ACCOUNT}/namespace", encoding="utf-8") as stream:
                found = stream.read().strip()
        else:
            config.load_kube_config(file, context=context or None, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((one for one in contexts if one["name"] == context), active)
            found = chosen["context"].get("namespace", "")
    except (ConfigException, OSError, TypeError, ValueError, LookupError, AttributeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        readable = isinstance(error, (ConfigException, OSError, ValueError))
        raise UserError(
            field="context" if context else "KUBECONFIG", value=context or os.environ.get("KUBECONFIG"),
            why=f"it leads to no cluster ({said})" if readable else "it is no kubeconfig",
            fix="Name a kubeconfig in KUBECONFIG; `kubectl config get-contexts` lists its contexts.",
        ) from None  # fmt: skip
    return Kube(client.ApiClient(configuration), namespace or found or "default", retry_seconds=retry_seconds)


def is_name(text: str) -> bool:
    """Whether an object can have this name; what cannot would lead to another path."""
    return OBJECT.fits(text)


def jobs_path(namespace: str, name: str = "") -> str:
    """Of PyTorchJobs."""
    return f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs" + (f"/{name}" if name else "")


def core_path(namespace: str, kind: str, name: str = "") -> str:
    """Of pods, events, secrets, configmaps, services."""
    return f"/api/v1/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


def runs_path(namespace: str, name: str = "") -> str:
    """Of AlignmentRuns."""
    return f"/apis/unifiedreward.dev/v1alpha1/namespaces/{namespace}/alignmentruns" + (f"/{name}" if name else "")


def workloads_path(namespace: str, name: str = "") -> str:
    """Of Kueue's Workloads."""
    return f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{namespace}/workloads" + (f"/{name}" if name else "")


def _refused(error: Any) -> _Refused:
    body = error.body or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        status = json.loads(text)
        return _Refused(
            error.status or 0, status.get("reason", ""), status.get("message", ""), status.get("details") or {}
        )
    except (ValueError, AttributeError):
        return _Refused(error.status or 0, "", text.strip() or str(error.reason), {}, sent=bool(error.status))


def _told(error: _Refused, server: str, path: str) -> UserError:
    """The refusal as one line that names the way out."""
    found = re.search(r"/namespaces/([^/]+)", path)
    namespace = found.group(1) if found else ""
    message = " ".join(re.sub(r"<\w[\w.]* object at \w+>: ", "", error.message).split())
    kind = "/".join(path.split("/namespaces/")[-1].split("/")[1:2]) or "namespaces"
    if error.status == 0:
        return UserError(field="cluster", value=server, why=f"it does not answer ({message})",
                         fix="Check that it runs and that KUBECONFIG names it: kubectl get nodes.")  # fmt: skip
    if error.status == 401:
        return UserError(field="cluster", value=server, why="it does not know you (401 Unauthorized)",
                         fix="Log in again, so that the kubeconfig has fresh credentials.")  # fmt: skip
    if "failed calling webhook" in message:
        return UserError(field="cluster", value=server, why=f"a webhook that checks objects does not answer ({message})",
                         fix="An admin looks at the webhook's pods: kubectl get pods -A.")  # fmt: skip
    if "denied the request" in message:
        return UserError(field=kind, value=error.details.get("name") or namespace, why=f"the cluster refuses it ({message})",
                         fix="Change what it names.")  # fmt: skip
    if error.status == 403 and "exceeded quota" in message:
        return UserError(field="namespace", value=namespace, why=message, fix="Ask for less, or delete finished jobs.")
    if error.status == 403 and "is being terminated" in message:
        return UserError(field="namespace", value=namespace, why="it is being deleted", fix="Wait, or use another one.")
    if error.status == 403:
        return UserError(field="namespace", value=namespace, why=f"you may not do this there ({message})",
                         fix="Ask an admin for the chart's Role ur-user (users.subjects), or use another one.")  # fmt: skip
    if error.status == 404 and error.details.get("kind") == "namespaces":
        return UserError(field="namespace", value=namespace, why="the cluster has no such namespace",
                         fix=f"kubectl create namespace {namespace}, or name another one.")  # fmt: skip
    if error.status == 404 and not error.details.get("name"):
        return UserError(field="cluster", value=server, why=f"it does not know {kind}", fix=_install(kind))
    if error.status == 404:
        return UserError(field=kind, value=error.details.get("name"), why=f"there is none in namespace {namespace}",
                         fix="Check the name.")  # fmt: skip
    return UserError(field=kind, value=error.details.get("name") or namespace, why=f"the cluster refuses it ({message})",
                     fix="Change what it names." if error.status in (400, 409, 422) else "Try again later.")  # fmt: skip


def _install(kind: str) -> str:
    return {
        "pytorchjobs": "Install Kubeflow's training-operator (the chart has it: --set trainingOperator.install=true).",
        "alignmentruns": "Install the operator: helm install ur charts/unified-reward.",
    }.get(kind, "Install what provides it.")
