"""The TorchX scheduler `pytorchjob`: an AppDef becomes a Kubeflow PyTorchJob. App ids are NAMESPACE:NAME.

All that is known of a job is in the cluster. An app is the job that was submitted and its later attempts (label
`unifiedreward.dev/app`); status, log and cancel look at the latest. The cluster is asked nothing by a dry run but what the
installation offers (ConfigMap ur-cluster), and not even that when it does not answer.
"""

from __future__ import annotations

import difflib
import getpass
import re
import secrets
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from torchx.runner import config as torchx_config
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, Stream, filter_regex
from torchx.specs import AppDef, AppDryRunInfo, AppState, ReplicaStatus, Role, RoleStatus, macros, runopts

from unified_reward.config import ClusterDefaults, ClusterSpec, placement, read_defaults, validate
from unified_reward.errors import UserError
from unified_reward.launch import job_status, kube, pytorchjob
from unified_reward.launch.job_logs import ReplicaLog, archived_replicas
from unified_reward.launch.kube import Kube, core_path, jobs_path, workloads_path
from unified_reward.launch.overlay import workspace_key
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pytorchjob import APP, ATTEMPT, MANAGED_BY, MANAGER, JobIdentity, Manifest, pytorch_job
from unified_reward.launch.tunnel import cluster_store
from unified_reward.launch.workspace import Workspace, pack
from unified_reward.store import ObjectStore

NAME = "pytorchjob"
SESSION = "torchx"
CONFIGMAP = "ur-cluster"
ATTEMPT_DIGITS = len("-a99")
DRY_RUN_RETRY_SECONDS = 3.0
STATUS_RETRY_SECONDS = 120.0  # an API server's restart must not end `torchx run --wait`
_REPLICA = "\x00replica\x00"  # stands for the node's index until nothing is escaped any more
TEXT, LIST, PAIRS = str, typing.List[str], typing.Dict[str, str]  # noqa: UP006  (TorchX compares with these)


class Options(runopts):  # type: ignore[misc]  # TorchX is untyped here
    """TorchX ignores -cfg names it does not know, and shows a traceback for a bad number. Here both are one line."""

    def cfg_from_str(self, cfg_str: str) -> dict[str, Any]:
        """`name=value,name2=a;b`. A piece that starts with no `name=` belongs to the option before it."""
        texts: dict[str, list[str]] = {}
        for piece in filter(None, re.split("[,;]", cfg_str or "")):
            named = re.match(r"\s*(\w+)=(.*)", piece)
            if named:
                self._known(named[1])
                texts[named[1]] = [named[2]]
            elif texts:
                texts[next(reversed(texts))].append(piece)
            else:
                raise UserError(field="-cfg", value=piece, why="it names no option", fix="Write name=value,name2=a;b.")
        return {name: _value(name, self.get(name).opt_type, pieces) for name, pieces in texts.items()}

    def resolve(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        for name in cfg:
            self._known(name)
        resolved: dict[str, Any] = super().resolve(cfg)
        return resolved

    def _known(self, name: str) -> None:
        names = [known for known, _ in self]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
            raise UserError(field="-cfg", value=name, why=f"{NAME} has no such option", fix=hint)


class _Dumper(yaml.SafeDumper):
    """Quotes what kubectl's reader takes for something else and PyYAML's does not: y, n, 1e3, 0o7."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_AMBIGUOUS = re.compile(r"[yYnN]|[-+.]?[0-9][0-9a-fA-FxXoO_.:+-]*")
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if _AMBIGUOUS.fullmatch(text) else None
    ),
)


@dataclass
class Request:
    """What is submitted, and the workspace that is uploaded before it."""

    manifest: Manifest
    context: str
    defaults: ClusterDefaults
    workspace: Workspace | None = None

    def __str__(self) -> str:
        return str(yaml.dump(self.manifest, Dumper=_Dumper, sort_keys=False, width=1000))


class PyTorchJobScheduler(Scheduler):  # type: ignore[misc]
    def __init__(self, session_name: str) -> None:
        super().__init__(NAME, session_name)
        self._cluster: Kube | None = None

    def _run_opts(self) -> runopts:
        options = Options()
        for name, kind, text in OPTIONS:
            options.add(name, kind, text)
        return options

    def submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo:
        return super().submit_dryrun(app, cfg)

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo:
        if len(app.roles) != 1:
            raise UserError(field=app.name, value=f"{len(app.roles)} roles", why="a PyTorchJob has one kind of node",
                            fix="Submit one job for each role.")  # fmt: skip
        given = {name: value for name, value in cfg.items() if value not in (None, "", [], {})}
        context = str(given.get("context", ""))
        cluster, namespace = self._where(context, str(given.get("namespace", "")))
        defaults = self._offered(cluster, namespace) if cluster else ClusterDefaults()
        defaults = _overridden(defaults, given)
        workspace = _workspace(str(given.get("workspace", "")))
        spec = _cluster_spec(given, workspace)
        name = _name(app, str(given.get("job_id", "")))
        role = _substituted(app.roles[0], name, f"{NAME}://{SESSION}/{namespace}:{name}")
        plan = job_plan(AppDef(name=app.name, roles=[role]))
        spec = spec.model_copy(update={"image": spec.image or role.image})
        who = JobIdentity(
            name=name, namespace=namespace, app=name, run=_run_of(role), stage=_label(role.name), node=_label(role.name),
            annotations={job_status.RETRIES: _retries(given)},
        )  # fmt: skip
        manifest = _resolved(pytorch_job(plan, placement(defaults, spec), who), role)
        overlay = str(given.get("overlay", ""))
        if overlay:
            manifest = _merged(manifest, _read_overlay(overlay))
        return AppDryRunInfo(Request(manifest, context, defaults, workspace), str)

    def schedule(self, dryrun_info: AppDryRunInfo) -> str:
        request: Request = dryrun_info.request
        metadata = request.manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        cluster = self._connect(request.context)
        if request.workspace is not None:
            with cluster_store(cluster, namespace, request.defaults) as store:
                store.put_if_absent(workspace_key(request.workspace.digest), request.workspace.packed)
        if cluster.create(jobs_path(namespace), request.manifest) is None:
            self._same(cluster, namespace, name, request.manifest)
        return f"{namespace}:{name}"

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        cluster, namespace, name = self._located(app_id)
        job = _latest(cluster, namespace, name)
        if job is None:
            return None
        state = _state(cluster, job)
        role = job_status.role_of(job)
        restarts = state.attempt - 1 + sum(one.restarts for one in state.replicas)
        statuses = [
            ReplicaStatus(one.index, one.state, role.name, one.host, job_status.structured_error(one))
            for one in state.replicas
        ]
        message = f"attempt {state.attempt}: {state.message}" if state.attempt > 1 and state.message else state.message
        response = DescribeAppResponse(
            app_id=app_id, state=state.state, num_restarts=restarts, msg=message or "<NONE>", roles=[role],
            roles_statuses=[RoleStatus(role.name, statuses)],
        )  # fmt: skip
        if state.state is AppState.FAILED and state.first is not None:
            response.structured_error_msg = job_status.structured_error(state.first)
        return response

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:  # noqa: ARG002  (of TorchX after 0.7)
        cluster = self._connect("")
        jobs = cluster.objects(jobs_path(cluster.namespace), labels=f"{MANAGED_BY}={MANAGER}")
        pods = cluster.objects(core_path(cluster.namespace, "pods"), labels=f"{MANAGED_BY}={MANAGER}")
        of_job: dict[str, list[Manifest]] = {}
        for pod in pods:
            of_job.setdefault(pod["metadata"]["labels"].get(pytorchjob.JOB_LABEL, ""), []).append(pod)
        latest: dict[str, Manifest] = {}
        for job in sorted(jobs, key=_attempt):
            latest[job["metadata"]["labels"].get(APP, job["metadata"]["name"])] = job
        newest = sorted(latest.items(), key=lambda pair: pair[1]["metadata"]["creationTimestamp"], reverse=True)
        return [
            ListAppResponse(
                f"{job['metadata']['namespace']}:{app}",
                job_status.job_state(job, of_job.get(job["metadata"]["name"], [])).state,
            )
            for app, job in newest
        ]

    def _cancel_existing(self, app_id: str) -> None:
        """Say who and when on the job, then have its pods ended: SIGTERM, a checkpoint, and their devices are free."""
        cluster, namespace, name = self._located(app_id)
        job = _latest(cluster, namespace, name)
        if job is None or job_status.nothing_follows(job):
            return
        marks = {
            job_status.CANCELLED_AT: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            job_status.CANCELLED_BY: _user(),
        }
        workload = _workload(cluster, job)
        if workload is not None:  # Kueue would undo a suspension that is not its own
            cluster.merge(workloads_path(namespace, workload["metadata"]["name"]), {"spec": {"active": False}})
        path = jobs_path(namespace, job["metadata"]["name"])
        cluster.merge(path, {"metadata": {"annotations": marks}, "spec": {"runPolicy": {"suspend": True}}})

    def delete(self, app_id: str) -> bool:
        """Remove all attempts of an app with their pods; False when there is none. The archived log stays."""
        cluster, namespace, name = self._located(app_id)
        found = False
        for job in reversed(_attempts(cluster, namespace, name)):  # the last first, so that none is made in between
            found = cluster.delete(jobs_path(namespace, job["metadata"]["name"])) or found
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
        job = _latest(cluster, namespace, name)
        if job is not None:
            name = job_status.role_name(job)
            if role and role != name:
                raise UserError(
                    field="role", value=role, why=f"{app_id} has the role {name}", fix="Use it, or leave it out."
                )
            return name, range(int(job_status.worker(job).get("replicas", 1)))
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
            jobs = [job["metadata"]["name"] for job in _attempts(cluster, namespace, name)] or [name]
            new = [job for job in jobs if job not in read]
            if not new:
                return
            for place, job in enumerate(new):
                read.add(job)
                yield from ReplicaLog(
                    cluster, namespace, job, k, open_store=lambda: self._store(cluster, namespace),
                    follow=follow and place == len(new) - 1, since=since,
                ).lines()  # fmt: skip

    def _store(self, cluster: Kube, namespace: str) -> AbstractContextManager[ObjectStore]:
        return cluster_store(cluster, namespace, self._offered(cluster, namespace))

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

    def _offered(self, cluster: Kube, namespace: str) -> ClusterDefaults:
        quick = Kube(cluster.api, cluster.namespace, retry_seconds=DRY_RUN_RETRY_SECONDS)
        try:
            found = quick.get(core_path(namespace, "configmaps", CONFIGMAP))
        except UserError as error:
            _note(f"{error} Package defaults are used instead of ConfigMap {CONFIGMAP}.")
            return ClusterDefaults()
        return read_defaults((found.get("data") or {}).get("cluster.yaml", "")) if found else ClusterDefaults()

    def _same(self, cluster: Kube, namespace: str, name: str, manifest: Manifest) -> None:
        """A job id that is taken is fine when it stands for the same work."""
        found = cluster.get(jobs_path(namespace, name)) or {}
        there = job_status.main_container(found).get("command") if found else None
        if there != job_status.main_container(manifest).get("command"):
            raise UserError(field="job_id", value=name, why=f"namespace {namespace} has another job of this name",
                            fix=f"Choose another job_id, or torchx delete {NAME}://{SESSION}/{namespace}:{name}.")  # fmt: skip
        _note(f"{namespace}:{name} is there already; nothing was submitted.")

    def _located(self, app_id: str) -> tuple[Kube, str, str]:
        cluster = self._connect("")
        namespace, colon, name = app_id.partition(":")
        return (cluster, namespace, name) if colon else (cluster, cluster.namespace, app_id)

    def _connect(self, context: str) -> Kube:
        if self._cluster is None:
            section: dict[str, Any] = {}
            torchx_config.apply(scheduler=NAME, cfg=section)
            self._cluster = kube.connect(
                context or str(section.get("context") or ""), retry_seconds=STATUS_RETRY_SECONDS,
                namespace=str(section.get("namespace") or ""),
            )  # fmt: skip
        return self._cluster


def create_scheduler(session_name: str, **_: object) -> PyTorchJobScheduler:
    """TorchX's entry point; it hands over every TORCHX_* variable of the environment."""
    return PyTorchJobScheduler(session_name)


OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("namespace", TEXT, "where the job goes; default $UR_NAMESPACE, else the kubeconfig context's"),
    ("context", TEXT, "kubeconfig context; default $UR_KUBE_CONTEXT, else the current one"),
    ("image", TEXT, "image of the job; default the component's, else the installation's"),
    (
        "job_id",
        TEXT,
        "name of the job; submitting it again does nothing. Default: the component's name and a random end",
    ),
    ("queue", TEXT, "Kueue LocalQueue; the job starts when Kueue admits it"),
    ("priority_class", TEXT, "priorityClassName of the pods"),
    ("service_account", TEXT, "of the pods, which get no token"),
    ("node_selector", PAIRS, "labels a node must have: key:value;key2:value2"),
    ("tolerations", LIST, "of nodes' taints: key=value:effect is written key:value:effect, any value key::effect; a;b"),
    ("secrets", LIST, "Secrets whose keys become environment: a;b"),
    ("image_pull_secrets", LIST, "Secrets to pull the image with: a;b"),
    ("env", PAIRS, "more environment: NAME:value;NAME2:value2"),
    ("annotations", PAIRS, "more annotations of the pods: key:value;key2:value2"),
    ("shm", TEXT, "size of /dev/shm, as in 8Gi; default half of the memory"),
    ("grace", int, "seconds from SIGTERM to SIGKILL; a checkpoint must fit in. Default 60"),
    ("deadline", int, "longest seconds of an attempt; default no limit"),
    ("ttl", int, "seconds after its end when the job goes; 0 = never. Default the installation's"),
    (
        "retries",
        PAIRS,
        "further attempts by cause, made by the operator: preempted:20;memory:1;crashed:0 (the default)",
    ),
    ("workspace", TEXT, "true = put the current directory's code over the image's; or a path"),
    ("overlay", TEXT, "YAML file that is merged over the PyTorchJob; null removes"),
    ("gpu_resource", TEXT, "resource that counts GPUs; default nvidia.com/gpu"),
)
RETRY_DEFAULTS = {"preempted": "20", "memory": "1", "crashed": "0"}


def _value(name: str, kind: Any, pieces: list[str]) -> Any:
    """An option's value of its type, from the text between commas and semicolons."""
    if kind is LIST:
        return [piece for piece in pieces if piece]
    if kind is PAIRS:
        pairs = [piece.partition(":") for piece in pieces if piece]
        bare = next((key for key, colon, _ in pairs if not colon), None)
        if bare is not None:
            raise UserError(field=f"-cfg {name}", value=bare, why="it has no colon", fix="Write key:value;key2:value2.")
        return {key: value for key, _, value in pairs}
    text = ",".join(pieces)
    if kind is int and not text.isdigit():
        raise UserError(field=f"-cfg {name}", value=text, why="it is no whole number", fix="Write digits only.")
    return kind(text)


def _overridden(defaults: ClusterDefaults, given: Mapping[str, Any]) -> ClusterDefaults:
    """What an option says of the job and no document could: it takes the place of the installation's."""
    changed: dict[str, Any] = {"allowed_secrets": given.get("secrets", [])}  # who may create pods may name any
    for option, name in (("service_account", "service_account"), ("gpu_resource", "gpu_resource"),
                         ("image_pull_secrets", "image_pull_secrets"), ("ttl", "ttl_seconds_after_finished")):  # fmt: skip
        if option in given:
            changed[name] = given[option]
    return validate(ClusterDefaults, {**defaults.model_dump(), **changed}, "-cfg")


def _cluster_spec(given: Mapping[str, Any], workspace: Workspace | None) -> ClusterSpec:
    names = {"grace": "grace_seconds", "deadline": "deadline_seconds"}
    same = ("image", "queue", "priority_class", "node_selector", "secrets", "env", "annotations", "shm")
    values = {names.get(name, name): given[name] for name in (*same, *names) if name in given}
    values["tolerations"] = [_toleration(text) for text in given.get("tolerations", [])]
    values["workspace"] = workspace.digest if workspace else ""
    return validate(ClusterSpec, values, "-cfg")


def _toleration(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UserError(field="-cfg tolerations", value=text, why="it is not key, key:value or key:value:effect",
                        fix="As in nvidia.com/gpu::NoSchedule.")  # fmt: skip
    key, value, effect = (*parts, "", "")[:3]
    return {"key": key, "operator": "Equal" if value else "Exists", "value": value, "effect": effect}


def _retries(given: Mapping[str, Any]) -> str:
    asked = dict(given.get("retries", {}))
    for cause, count in asked.items():
        if cause not in RETRY_DEFAULTS or not count.isdigit():
            raise UserError(field="-cfg retries", value=f"{cause}:{count}", why="it is no cause with a count",
                            fix="Causes are preempted, memory and crashed, as in preempted:20;memory:1.")  # fmt: skip
    return ",".join(f"{cause}={count}" for cause, count in {**RETRY_DEFAULTS, **asked}.items())


def _workspace(asked: str) -> Workspace | None:
    if asked.lower() in ("", "false", "none"):
        return None
    return pack(Path.cwd() if asked.lower() == "true" else Path(asked).expanduser())


def _name(app: AppDef, job_id: str) -> str:
    """A DNS-1035 label that leaves room for a pod's and an attempt's number behind it."""
    longest = pytorchjob.LONGEST_NAME - ATTEMPT_DIGITS
    if job_id:
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job_id) or len(job_id) > longest:
            raise UserError(field="-cfg job_id", value=job_id, why=f"it is no name of at most {longest} lower-case letters, "
                            "digits and dashes that starts with a letter", fix="As in judge-7b-1.")  # fmt: skip
        return job_id
    end = "-" + "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
    name = re.sub(r"[^a-z0-9]+", "-", app.name.lower()).strip("-") or "app"
    name = name if name[0].isalpha() else f"j-{name}"
    return name[: longest - len(end)].rstrip("-") + end


def _substituted(role: Role, name: str, handle: str) -> Role:
    """The role with TorchX's macros filled in. Arguments keep TorchX's $$ for $."""
    values = macros.Values(img_root="", app_id=name, replica_id=_REPLICA, rank0_env="TORCHX_RANK0_HOST")
    filled = values.apply(role)
    filled.args = [word.replace("$", "$$") for word in filled.args]
    filled.env["TORCHX_JOB_ID"] = handle
    filled.env["TORCHX_RANK0_HOST"] = f"{name}-worker-0"
    return filled


def _resolved(manifest: Manifest, role: Role) -> Manifest:
    """With what only this scheduler knows: an entrypoint of another than ours, and the node's index."""
    container = manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    if role.entrypoint != sys.executable:
        container["command"][0] = role.entrypoint.replace("$", "$$")
    index = "$(UR_NODE_RANK)"  # the kubelet fills it in
    container["command"] = [word.replace(_REPLICA, index) for word in container["command"]]
    for one in container["env"]:
        if "value" in one:
            one["value"] = one["value"].replace(_REPLICA, index)
    return manifest


def _run_of(role: Role) -> str:
    """The run that a stage's command names, for the label."""
    words = list(role.args)
    return _label(words[words.index("--run") + 1]) if "--run" in words[:-1] else _label(role.name)


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._") or "none"


def _read_overlay(file: str) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(field="-cfg overlay", value=file, why=f"it cannot be read ({' '.join(str(error).split())})",
                        fix="Name a YAML file with a part of a PyTorchJob.") from None  # fmt: skip
    if not isinstance(values, dict):
        raise UserError(
            field="-cfg overlay", value=file, why="it is no mapping", fix="Start it with spec: or metadata:."
        )
    return values


def _merged(below: Any, above: Any) -> Any:
    """`above` over `below`: mappings by key, null removes, lists of named things by name, all else replaces."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [*below, *(key for key in above if key not in below)]
        kept = [key for key in keys if not (key in above and above[key] is None)]
        return {key: _merged(below.get(key), above[key]) if key in above else below[key] for key in kept}
    if _is_named(below) and _is_named(above):
        changes = {one["name"]: one for one in above}
        old = [_merged(one, changes.pop(one["name"], {})) for one in below]
        return old + list(changes.values())
    return above


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "name" in one for one in value)


def _attempt(job: Mapping[str, Any]) -> int:
    return int((job["metadata"].get("labels") or {}).get(ATTEMPT, "1"))


def _attempts(cluster: Kube, namespace: str, app: str) -> list[Manifest]:
    """All jobs of an app, the first attempt first; also a job that somebody else submitted, by its name."""
    jobs = cluster.objects(jobs_path(namespace), labels=f"{APP}={app},{MANAGED_BY}={MANAGER}")
    if not jobs:
        found = cluster.get(jobs_path(namespace, app))
        jobs = [found] if found else []
    return sorted(jobs, key=_attempt)


def _latest(cluster: Kube, namespace: str, app: str) -> Manifest | None:
    jobs = _attempts(cluster, namespace, app)
    return jobs[-1] if jobs else None


def _state(cluster: Kube, job: Manifest) -> job_status.JobState:
    """With pods, and with events and Kueue's view only when something waits."""
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    pods = cluster.objects(core_path(namespace, "pods"), labels=f"{pytorchjob.JOB_LABEL}={name}")
    state = job_status.job_state(job, pods)
    if state.state is not AppState.PENDING:
        return state
    if (job["spec"].get("runPolicy") or {}).get("suspend"):
        return job_status.job_state(job, pods, (), _workload(cluster, job))
    blocked = [name] + [pod["metadata"]["name"] for pod in pods[:1]]
    events = [
        event for one in blocked
        for event in cluster.objects(core_path(namespace, "events"), fields=f"involvedObject.name={one},type=Warning")
    ]  # fmt: skip
    return job_status.job_state(job, pods, events)


def _workload(cluster: Kube, job: Mapping[str, Any]) -> Manifest | None:
    """Kueue's Workload of a job; None where there is no Kueue or it does not manage the job."""
    if pytorchjob.QUEUE_LABEL not in (job["metadata"].get("labels") or {}):
        return None
    found = cluster.objects(
        workloads_path(job["metadata"]["namespace"]), labels=f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"
    )
    return found[0] if found else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
