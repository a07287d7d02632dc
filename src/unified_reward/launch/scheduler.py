"""The TorchX scheduler `pytorchjob`: an AppDef becomes a Kubeflow PyTorchJob. App ids are NAMESPACE:NAME, and
NAMESPACE:NAME@CONTEXT where `-cfg context` named another cluster than status, log and cancel would ask.

All that is known of a job is in the cluster. An app is the job that was submitted and its later attempts (label
`unifiedreward.dev/app`); status, log and cancel look at the latest. The cluster is asked nothing by a dry run but what the
installation offers (a ConfigMap of the chart), and not even that when it does not answer.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, Stream, filter_regex
from torchx.specs import AppDef, AppDryRunInfo, AppState, ReplicaStatus, RoleStatus, is_terminal, runopts

from unified_reward.config import ClusterDefaults
from unified_reward.errors import UserError
from unified_reward.launch import config_files, kube
from unified_reward.launch.apps import all_apps, app_of, attempts, latest, state_of, workload_of
from unified_reward.launch.installation import offered_by
from unified_reward.launch.job_logs import ReplicaLog, archived_replicas
from unified_reward.launch.job_status import (
    CANCELLED_AT,
    CANCELLED_BY,
    annotation,
    has_ended,
    has_succeeded,
    job_state,
    role_name,
    role_of,
    structured_error,
    worker,
)
from unified_reward.launch.kube import Kube, jobs_path, workloads_path
from unified_reward.launch.overlay import workspace_key
from unified_reward.launch.pods import name as name_of
from unified_reward.launch.pytorchjob import Manifest
from unified_reward.launch.retries import settled
from unified_reward.launch.sameness import difference
from unified_reward.launch.scheduler_options import Options
from unified_reward.launch.submission import Request, make_request
from unified_reward.launch.times import rfc3339
from unified_reward.launch.tunnel import cluster_store
from unified_reward.store import ObjectStore

NAME = "pytorchjob"
SESSION = "torchx"
HANDLES = f"{NAME}://{SESSION}/"
DRY_RUN_RETRY_SECONDS = 3.0
POLL_SECONDS = 2.0
STATUS_RETRY_SECONDS = 120.0  # an API server's restart must not end `torchx run --wait`


class PyTorchJobScheduler(Scheduler):  # type: ignore[misc]
    def __init__(self, session_name: str) -> None:
        super().__init__(NAME, session_name)
        self._clusters: dict[str, Kube] = {}

    def _run_opts(self) -> runopts:
        return Options()

    def submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo:
        return super().submit_dryrun(app, cfg)

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo:
        given = {name: value for name, value in cfg.items() if value not in (None, "", [], {})}
        cluster, namespace = self._where(str(given.get("context", "")), str(given.get("namespace", "")))
        offered = self._offered(cluster, namespace) if cluster else None
        request = make_request(app, given, offered or ClusterDefaults(), namespace, HANDLES)
        request.offered = offered is not None
        if request.workspace is not None and request.workspace.left_out:
            left_out = ", ".join(request.workspace.left_out)
            _note(f"of the workspace, links that lead to none of its files are left out: {left_out}")
        return AppDryRunInfo(request, str)

    def schedule(self, dryrun_info: AppDryRunInfo) -> str:
        request: Request = dryrun_info.request
        metadata = request.manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        cluster = self._connect(request.context)
        app_id = f"{namespace}:{name}" + (
            "" if request.context in ("", _usual_context()) else f"@{quote(request.context, safe='')}"
        )
        if not request.offered:
            _require_no_offer(cluster, namespace)
        if request.workspace is not None:
            with cluster_store(cluster, namespace, request.defaults) as store:
                store.put_if_absent(workspace_key(request.workspace.digest), request.workspace.packed)
        while cluster.create(jobs_path(namespace), request.manifest) is None:
            found = cluster.get(jobs_path(namespace, name))
            if found is not None:  # else it went just now
                _require_same(found, request.manifest, app_id)
                _note(f"{app_id} is there already; nothing was submitted.")
                break
        return app_id

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        cluster, namespace, name = self._located(app_id)
        job = latest(cluster, namespace, name)
        if job is None:
            return None
        state = state_of(cluster, job)
        role = role_of(job)
        restarts = state.attempt - 1 + sum(one.restarts for one in state.replicas)
        statuses = [
            ReplicaStatus(one.index, one.state, role.name, one.host, structured_error(one)) for one in state.replicas
        ]
        message = f"attempt {state.attempt}: {state.message}" if state.attempt > 1 and state.message else state.message
        response = DescribeAppResponse(
            app_id=app_id, state=state.state, num_restarts=restarts, msg=message or "<NONE>", roles=[role],
            roles_statuses=[RoleStatus(role.name, statuses)],
        )  # fmt: skip
        if state.state is AppState.FAILED and state.first is not None:
            response.structured_error_msg = structured_error(state.first)
        return response

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:  # noqa: ARG002  (of TorchX after 0.7)
        return [
            ListAppResponse(
                f"{job['metadata']['namespace']}:{app_of(job)}",
                settled(job_state(job, pods), job, pods, time.time()).state,
            )
            for job, pods in all_apps(self._connect(""))
        ]

    def _cancel_existing(self, app_id: str) -> None:
        """Say who and when on the job, then have its pods ended: SIGTERM, a checkpoint, and their devices are free."""
        cluster, namespace, name = self._located(app_id)
        job = latest(cluster, namespace, name)
        if job is None or has_succeeded(job) or annotation(job, CANCELLED_AT):
            return
        marks = {CANCELLED_AT: rfc3339(time.time()), CANCELLED_BY: _user()}
        path = jobs_path(namespace, name_of(job))
        if has_ended(job):
            if state_of(cluster, job).state is AppState.PENDING:  # it would be tried again
                cluster.merge(path, {"metadata": {"annotations": marks}})
            return
        workload = workload_of(cluster, job)
        if workload is not None:  # Kueue would undo a suspension that is not its own
            cluster.merge(workloads_path(namespace, name_of(workload)), {"spec": {"active": False}})
        cluster.merge(path, {"metadata": {"annotations": marks}, "spec": {"runPolicy": {"suspend": True}}})

    def delete(self, app_id: str) -> bool:
        """Remove all attempts of an app with their pods; False when there is none. The archived log stays."""
        cluster, namespace, name = self._located(app_id)
        found = False
        for job in reversed(attempts(cluster, namespace, name)):  # the last first, so that none is made in between
            found = cluster.delete(jobs_path(namespace, name_of(job))) or found
        return found

    def log_iter(
        self, app_id: str, role_name: str, k: int = 0, regex: str | None = None, since: datetime | None = None,  # noqa: ARG002
        until: datetime | None = None, should_tail: bool = False, streams: Stream | None = None,
    ) -> Iterable[str]:  # fmt: skip
        if streams not in (None, Stream.COMBINED):
            raise UserError(field="--streams", value=streams, why="containers have one stream", fix="Leave it out.")
        if until is not None:
            raise UserError(field="until", value=until, why="logs are read to their end", fix="Leave it out.")
        lines = self._lines(app_id, k, since, follow=should_tail)
        return filter_regex(regex, lines) if regex else lines

    def replicas(self, app_id: str, role: str = "") -> tuple[str, Sequence[int]]:
        """Role and replicas whose log can be read: of the job, else of what is archived. Raises UserError."""
        cluster, namespace, name = self._located(app_id)
        job = latest(cluster, namespace, name)
        if job is not None:
            name = role_name(job)
            if role and role != name:
                raise UserError(
                    field="role", value=role, why=f"{app_id} has the role {name}", fix="Use it, or leave it out."
                )
            return name, range(int(worker(job).get("replicas", 1)))
        with self._store(cluster, namespace) as store:
            found = archived_replicas(store, name)
        if not found:
            raise UserError(field="app", value=app_id, why="neither the cluster nor the archive has it",
                            fix=f"torchx list -s {NAME} shows what there is.")  # fmt: skip
        return role or "worker", found

    def _lines(self, app_id: str, k: int, since: datetime | None, *, follow: bool) -> Iterator[str]:
        """Of all attempts, one after the other; a later one is waited for as long as it can come."""
        cluster, namespace, name = self._located(app_id)
        read: set[str] = set()
        while True:
            there = attempts(cluster, namespace, name)
            new = [job for job in [name_of(job) for job in there] or [name] if job not in read]
            if not new and follow and there and not is_terminal(state_of(cluster, there[-1]).state):
                time.sleep(POLL_SECONDS)
                continue
            if not new:
                return
            for place, job in enumerate(new):
                read.add(job)
                yield from ReplicaLog(
                    cluster, namespace, job, k, open_store=lambda: self._store(cluster, namespace),
                    follow=follow and place == len(new) - 1, since=since,
                ).lines()  # fmt: skip

    def _store(self, cluster: Kube, namespace: str) -> AbstractContextManager[ObjectStore]:
        return cluster_store(cluster, namespace, self._offered(cluster, namespace) or ClusterDefaults())

    def _where(self, context: str, namespace: str) -> tuple[Kube | None, str]:
        """The cluster, None where a dry run has to do without."""
        try:
            cluster = self._connect(context)
        except UserError as error:
            if context:
                raise
            _note(f"{error} Package defaults are used.")
            return None, namespace or "default"
        return cluster, namespace or cluster.namespace

    def _offered(self, cluster: Kube, namespace: str) -> ClusterDefaults | None:
        """None when the cluster does not say."""
        quick = Kube(cluster.api, cluster.namespace, retry_seconds=DRY_RUN_RETRY_SECONDS)
        try:
            return offered_by(quick, namespace)
        except UserError as error:
            _note(f"{error} Package defaults are used instead of the installation's.")
            return None

    def _located(self, app_id: str) -> tuple[Kube, str, str]:
        app, _, context = app_id.partition("@")
        cluster = self._connect(unquote(context))
        namespace, colon, name = app.partition(":")
        return (cluster, namespace, name) if colon else (cluster, cluster.namespace, app)

    def _connect(self, context: str) -> Kube:
        context = context or _usual_context()
        if context not in self._clusters:
            self._clusters[context] = kube.connect(
                context, retry_seconds=STATUS_RETRY_SECONDS, namespace=config_files.texts().get("namespace", "")
            )
        return self._clusters[context]


def create_scheduler(session_name: str, **_: object) -> PyTorchJobScheduler:
    """TorchX's entry point; it hands over every TORCHX_* variable of the environment."""
    return PyTorchJobScheduler(session_name)


def _usual_context() -> str:
    """That is asked when no option and no app id names one; "" = the kubeconfig's current one."""
    return config_files.texts().get("context") or os.environ.get(kube.CONTEXT, "")


def _require_no_offer(cluster: Kube, namespace: str) -> None:
    """What a dry run could do without, because the cluster was slow, decides over image and store. Raises UserError."""
    try:
        found = offered_by(cluster, namespace)
    except UserError:  # who may not read it goes on with the package's own; who reaches no cluster is told so next
        return
    if found != ClusterDefaults():
        raise UserError(field="cluster", value=cluster.server, why="it said too late what its installation offers",
                        fix="Submit again.")  # fmt: skip


def _require_same(there: kube.Resource, asked: Manifest, app_id: str) -> None:
    """A job id that is taken is fine when it stands for the same work. Raises UserError."""
    differs = difference(there, asked)
    if differs:
        metadata = asked["metadata"]
        raise UserError(
            field="-cfg job_id",
            value=metadata["name"],
            why=f"namespace {metadata['namespace']} has another job of this name: {differs}",
            fix=f"Choose another job_id, or torchx delete {HANDLES}{app_id}.",
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
