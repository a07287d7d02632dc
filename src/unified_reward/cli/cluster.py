"""`run`, `status`, `logs`, `cancel`, `summary` with `--on cluster`: they talk to the AlignmentRun and keep nothing here.

The namespace is that of --namespace, else the document's, else $UR_NAMESPACE, else that of the kubeconfig's context.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from unified_reward.cli.console import command, console, output, print_json, say
from unified_reward.cli.running import EXIT_CANCELLED
from unified_reward.cli.tables import show_summary
from unified_reward.cli.view import stage_table, watching
from unified_reward.config import AlignmentRun, load_document, validate
from unified_reward.config.graph import build_graph
from unified_reward.errors import EXIT_USER_ERROR, UserError
from unified_reward.launch import kube
from unified_reward.launch.causes import Cause
from unified_reward.launch.installation import offered_by
from unified_reward.launch.job_logs import ReplicaLog, archived_replicas
from unified_reward.launch.job_status import worker
from unified_reward.launch.kube import DroppedError, Kube, Resource, is_name, jobs_path, runs_path
from unified_reward.launch.pytorchjob import defaults_for, job_name
from unified_reward.launch.times import epoch_seconds, rfc3339
from unified_reward.launch.tunnel import cluster_store
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.resource import RETRY_AT, Phase, ResourceStatus, StageRecord
from unified_reward.pipeline.status import Cost, RunStatus, StageStatus
from unified_reward.pipeline.summary import summarise

CANCEL_SECONDS = 120.0
POLL_SECONDS = 1.0
STATES = {Phase.PENDING: RunState.RUNNING, Phase.RUNNING: RunState.RUNNING, Phase.SUSPENDED: RunState.SUSPENDED,
          Phase.SUCCEEDED: RunState.SUCCEEDED, Phase.FAILED: RunState.FAILED, Phase.CANCELLED: RunState.CANCELLED}  # fmt: skip


def run(file: Path, overrides: Sequence[str], namespace: str, *, as_json: bool) -> int:
    """Apply the document and follow it to its end. Ctrl-C leaves it running. Returns the exit code, as `run` here does."""
    document = load_document(file, overrides)
    cluster = kube.connect(namespace=namespace or document.metadata.namespace)
    name = document.metadata.name
    path = runs_path(cluster.namespace, name)
    before = cluster.get(path)
    if before is not None and (before["spec"].get("cancel") or before["metadata"].get("deletionTimestamp")):
        raise UserError(field="metadata.name", value=name, why=f"a run of this name in {cluster.namespace} was cancelled for good",
                        fix=f"kubectl -n {cluster.namespace} delete arun {name}; its results stay and are used again.")  # fmt: skip
    applied = cluster.apply(path, written(document))
    if before is not None and status_of(before).phase is Phase.FAILED:
        now = rfc3339(time.time())
        applied = cluster.merge(path, {"metadata": {"annotations": {RETRY_AT: now}}}) or applied
    say(f"{cluster.namespace}/{name} is on the cluster. Ctrl-C leaves it running.")
    try:
        with watching() as show:
            for resource in _changes(cluster, path, applied):
                show(as_run_status(resource))
    except KeyboardInterrupt:
        say(f"\nIt goes on without you. Come back: {_command(cluster, 'status', name)}")
        say(f"  its log: {_command(cluster, 'logs', name, '-f')}; end it: {_command(cluster, 'cancel', name)}")
        return EXIT_CANCELLED
    return _tell_end(cluster, resource, as_json=as_json)


def status(name: str, namespace: str, *, as_json: bool) -> int:
    cluster = kube.connect(namespace=namespace)
    if not name:
        return _all_runs(cluster, as_json=as_json)
    resource = _found(cluster, name)
    if as_json:
        resource["metadata"].pop("managedFields", None)
        print_json(resource)
        return 0
    found = status_of(resource)
    output().print(f"{name}: {found.phase.value}{_because(found)}", markup=False, soft_wrap=True)
    output().print(stage_table(as_run_status(resource)))
    _say_where_mlflow_is(cluster, found)
    return 0


def summary(name: str, namespace: str, *, as_json: bool) -> int:
    cluster = kube.connect(namespace=namespace)
    values = _summary(cluster, _found(cluster, name))
    if as_json:
        print_json(values)
    else:
        show_summary(values, output())
    return 0


def cancel(name: str, namespace: str) -> int:
    """Ask for the run's end and wait until its stages have saved."""
    cluster = kube.connect(namespace=namespace)
    found = status_of(_found(cluster, name))
    if found.phase.terminal:
        say(f"{name} is not running: {found.phase.value}.")
        return 0
    path = runs_path(cluster.namespace, name)
    cluster.merge(path, {"spec": {"cancel": True}})
    deadline = time.monotonic() + CANCEL_SECONDS
    while not status_of(_found(cluster, name)).phase.terminal:
        if time.monotonic() > deadline:
            raise UserError(field="run", value=name, why=f"it has not ended {CANCEL_SECONDS:.0f} s after it was asked to",
                            fix="Its stages may be saving; is the operator running? kubectl get pods.")  # fmt: skip
        time.sleep(POLL_SECONDS)
    say(f"{name} was cancelled; what its stages finished is in the store.")
    return 0


def logs(name: str, stage: str, namespace: str, *, follow: bool) -> int:
    cluster = kube.connect(namespace=namespace)
    resource = _found(cluster, name)
    nodes = _nodes(resource, stage)
    lines = _followed(cluster, name, nodes) if follow else _written(cluster, resource, nodes)
    shown = False
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in lines:
            shown = True
            sys.stdout.write(line)
            sys.stdout.flush()
    if not shown and not follow:
        fix = "Its results were made by another run." if stage else "Wait until a stage has started, or use -f."
        raise UserError(field="logs", value=stage or name, why="this run has written none", fix=fix)
    return 0


def written(document: AlignmentRun) -> Resource:
    """What the document's author wrote, as the cluster gets it: defaults are the cluster's to fill in."""
    body = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    body["metadata"].pop("namespace", None)
    return {**body, "apiVersion": document.api_version, "kind": document.kind}


def status_of(resource: Resource) -> ResourceStatus:
    return ResourceStatus.model_validate(resource.get("status") or {})


def as_run_status(resource: Resource) -> RunStatus:
    """The resource as the views of a run on this machine want it."""
    document = _document(resource)
    graph = build_graph(document)
    found = status_of(resource)
    records = {record.name: record for record in found.stages}
    stages = {}
    for node, spec in graph.items():
        record = records.get(node, StageRecord(name=node))
        told = record.progress.text if record.progress else ""
        stages[node] = StageStatus(
            stage=spec.stage.value, policy=spec.policy.name if spec.policy else "", state=record.state, reused=record.reused,
            key=record.key, attempt=record.attempt, started=epoch_seconds(record.started or record.launched),
            ended=epoch_seconds(record.ended), seconds=record.seconds, why=_why(record) or _waits(record),
            error=record.message or (record.last_failure.message if record.last_failure else ""),
            failures=[Cause(cause) for cause, count in record.failures.items() for _ in range(count)],
            needs=list(spec.needs), progress=told,
        )  # fmt: skip
    cost = Cost(
        cpu_seconds=sum(record.cpu_seconds for record in found.stages),
        peak_rss_bytes=max((record.peak_memory_bytes for record in found.stages), default=0),
    )
    return RunStatus(
        name=document.metadata.name, state=STATES[found.phase], store=document.spec.store, stages=stages, cost=cost,
        started=epoch_seconds(found.started), ended=epoch_seconds(found.ended), message=found.message,
        parent_run_id=found.tracking.run_id if found.tracking else "",
        report="", again=["run", "FILE", "--on", "cluster"], document=document.document(),
    )  # fmt: skip


def _changes(cluster: Kube, path: str, resource: Resource) -> Iterator[Resource]:
    """The resource whenever it changed, until the operator has seen this version of it and it has ended."""
    name, generation = resource["metadata"]["name"], resource["metadata"]["generation"]
    while True:
        yield resource
        found = status_of(resource)
        asked = (resource["metadata"].get("annotations") or {}).get(RETRY_AT, "")
        if found.phase.terminal and found.observed_generation >= generation and found.retried == asked:
            return
        with contextlib.suppress(DroppedError):
            for event, changed in cluster.watch(
                path.rpartition("/")[0], name=name, version=resource["metadata"]["resourceVersion"]
            ):
                if event in ("ADDED", "MODIFIED"):
                    resource = changed
                    break
                if event == "DELETED":
                    raise UserError(field="run", value=name, why="somebody deleted it", fix="Start it again.")
                break  # the version is too old to watch from
            else:
                continue
            if event in ("ADDED", "MODIFIED"):
                continue
        time.sleep(POLL_SECONDS)
        resource = _found(cluster, name)


def _tell_end(cluster: Kube, resource: Resource, *, as_json: bool) -> int:
    name, found = resource["metadata"]["name"], status_of(resource)
    values = _summary(cluster, resource)
    if as_json:
        print_json(values)
    else:
        show_summary(values, console())
    for record in found.stages:
        if record.state is State.FAILED:
            failure = record.last_failure
            say(f"error: {record.name}: {(failure.message if failure else '') or record.message}")
            say(f"  its log: {_command(cluster, 'logs', name, record.name)}")
    if found.phase is Phase.SUCCEEDED:
        _say_where_mlflow_is(cluster, found)
        return 0
    say(f"{found.phase.value}{_because(found)}")
    if found.phase is Phase.CANCELLED:
        return EXIT_CANCELLED
    causes = {
        record.last_failure.cause for record in found.stages if record.last_failure and record.state is State.FAILED
    }
    return EXIT_USER_ERROR if Cause.USER in causes or not found.stages else 1


def _say_where_mlflow_is(cluster: Kube, found: ResourceStatus) -> None:
    """A Service's short name is known inside of the cluster only."""
    if not found.tracking or not found.tracking.url:
        return
    parts = urlsplit(found.tracking.url)
    if not parts.hostname or "." in parts.hostname:
        say(f"MLflow: {found.tracking.url}")
        return
    here = urlunsplit(parts._replace(netloc="127.0.0.1:5000"))
    say(f"MLflow: {here}")
    say(f"  after: kubectl -n {cluster.namespace} port-forward service/{parts.hostname} 5000:{parts.port or 80}")


def _summary(cluster: Kube, resource: Resource) -> dict[str, Any]:
    """As `summarise` gives it; what was measured is read from the store."""
    offered = offered_by(cluster, cluster.namespace)
    run_status = as_run_status(resource)
    defaults = defaults_for(offered, store=run_status.store, tracking_uri="")
    run_status.store = defaults.store
    if run_status.started:
        run_status.cost.wall_seconds = (run_status.ended or time.time()) - run_status.started
    with cluster_store(cluster, cluster.namespace, defaults) as store:
        return summarise(run_status, store)


def _all_runs(cluster: Kube, *, as_json: bool) -> int:
    runs = {run["metadata"]["name"]: run for run in cluster.objects(runs_path(cluster.namespace), known=True)}
    if not runs:
        _check_namespace(cluster)
    if as_json:
        print_json({name: status_of(run).phase.value for name, run in runs.items()})
    for name, run in ({} if as_json else runs).items():
        found = status_of(run)
        output().print(f"{name}: {found.phase.value}{_because(found)}", markup=False, soft_wrap=True)
    if not runs and not as_json:
        say(
            f"No runs in namespace {cluster.namespace}. Start one: {_command(cluster, 'run', 'jobs/examples/shapes.yaml')}"
        )
    return 0


def _found(cluster: Kube, name: str) -> Resource:
    resource = cluster.get(runs_path(cluster.namespace, name)) if is_name(name) else None
    if resource is not None:
        return resource
    known = sorted(run["metadata"]["name"] for run in cluster.objects(runs_path(cluster.namespace)))
    if not known:
        _check_namespace(cluster)
    fix = f"Runs there: {', '.join(known)}." if known else "Set UR_NAMESPACE, or start one."
    raise UserError(field="run", value=name, why=f"there is no such run in namespace {cluster.namespace}", fix=fix)


def _check_namespace(cluster: Kube) -> None:
    """The cluster answers about a namespace that it has not as about an empty one."""
    try:
        there = cluster.get(f"/api/v1/namespaces/{cluster.namespace}")
    except UserError:  # most may not look at namespaces
        return
    if there is None:
        raise UserError(field="namespace", value=cluster.namespace, why="the cluster has no such namespace",
                        fix="Name another with -n, UR_NAMESPACE or the kubeconfig's context.")  # fmt: skip


def _nodes(resource: Resource, stage: str) -> list[str]:
    all_nodes = list(build_graph(_document(resource)))
    nodes = [node for node in all_nodes if not stage or node == stage or node.startswith(f"{stage}/")]
    if not nodes:
        raise UserError(
            field="stage", value=stage, why="the run has no such stage", fix=f"Stages: {', '.join(all_nodes)}."
        )
    return nodes


def _written(cluster: Kube, resource: Resource, nodes: Sequence[str]) -> Iterator[str]:
    """All attempts of the stages, one after the other."""
    records = {record.name: record for record in status_of(resource).stages}
    for node in nodes:
        record = records.get(node)
        for job in _jobs(resource["metadata"]["name"], record) if record else []:
            for replica, log in _replica_logs(cluster, resource, job, follow=False):
                for line in log.lines():
                    yield _prefixed(line, node, replica, alone=len(nodes) == 1)


def _followed(cluster: Kube, name: str, nodes: Sequence[str]) -> Iterator[str]:
    """Lines of all the stages as they come, until the run has ended and all of them were read."""
    lines: queue.Queue[str | UserError | None] = queue.Queue(10_000)
    started: set[str] = set()
    open_logs = 0
    ended = False
    while not ended or open_logs or not lines.empty():
        if not ended:
            resource = _found(cluster, name)
            found = status_of(resource)
            ended = found.phase.terminal
            for record in found.stages:
                if record.name not in nodes:
                    continue
                for job in _jobs(name, record):
                    if job in started:
                        continue
                    started.add(job)
                    for replica, log in _replica_logs(cluster, resource, job, follow=True):
                        open_logs += 1
                        arguments = (log, record.name, replica, len(nodes) == 1, lines)
                        threading.Thread(target=_read, args=arguments, daemon=True).start()
        until = time.monotonic() + POLL_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(line, UserError):
                raise line
            if line is None:
                open_logs -= 1
            else:
                yield line


def _read(log: ReplicaLog, node: str, replica: int, alone: bool, lines: queue.Queue[str | UserError | None]) -> None:
    try:
        for line in log.lines():
            lines.put(_prefixed(line, node, replica, alone=alone))
    except UserError as error:
        lines.put(error)
    finally:
        lines.put(None)


def _replica_logs(cluster: Kube, resource: Resource, job: str, *, follow: bool) -> list[tuple[int, ReplicaLog]]:
    """One for each node of a job; of a job that is gone, as many as the archive has."""
    offered = offered_by(cluster, cluster.namespace)
    defaults = defaults_for(offered, store=_document(resource).spec.store, tracking_uri="")

    def open_store() -> Any:
        return cluster_store(cluster, cluster.namespace, defaults)

    found = cluster.get(jobs_path(cluster.namespace, job))
    if found is not None:
        replicas = list(range(int(worker(found).get("replicas", 1))))
    else:
        with open_store() as store:
            replicas = archived_replicas(store, job)
    return [
        (replica, ReplicaLog(cluster, cluster.namespace, job, replica, open_store=open_store, follow=follow))
        for replica in replicas
    ]


def _jobs(run_name: str, record: StageRecord) -> list[str]:
    """Of every attempt, the first one first."""
    return [] if record.reused else [job_name(run_name, record.name, number) for number in range(1, record.attempt + 1)]


def _prefixed(line: str, node: str, replica: int, *, alone: bool) -> str:
    who = f"{node}[{replica}]" if replica else node
    return line if alone and not replica else f"{who}: {line}"


def _document(resource: Resource) -> AlignmentRun:
    """Without what the cluster adds to metadata."""
    metadata = {"name": resource["metadata"]["name"], "namespace": resource["metadata"].get("namespace", "")}
    return validate(AlignmentRun, {"metadata": metadata, "spec": resource.get("spec") or {}})


def _why(record: StageRecord) -> str:
    if record.reason and record.message:
        return f"{record.reason}: {record.message}"
    return record.message or record.reason


def _waits(record: StageRecord) -> str:
    return "waits for the operator" if record.state is State.WAITING else ""


def _because(found: ResourceStatus) -> str:
    said = ": ".join(filter(None, (found.reason, found.message)))
    return f" ({said})" if said else ""


def _command(cluster: Kube, *words: str) -> str:
    """That finds the run again also when the kubeconfig's context has another namespace by then."""
    return command(*words, "--on", "cluster", "-n", cluster.namespace)
