"""From a JobPlan to the PyTorchJob that runs it: plain dicts, no client, no clock.

Every node is a Worker. With a Master, Kubeflow's operator would put an init container into the workers that restricted
Pod Security refuses; without one it hands out no rendezvous, so our entry makes it from the replica's index and the name
of worker 0, which has a Service. Node rank and replica index are then the same number, and a job has succeeded when
all its nodes have. `restartPolicy: Never`: one restarted node could not join its peers again; a further attempt is
a new job that goes on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unified_reward import names
from unified_reward.config import ClusterDefaults, Placement
from unified_reward.launch.plan import JobPlan

Manifest = dict[str, Any]
API_VERSION, KIND, PLURAL = "kubeflow.org/v1", "PyTorchJob", "pytorchjobs"
CONTAINER = "pytorch"  # the name that Kubeflow's webhook asks for
MANAGER = "unified-reward"
MANAGED_BY = "app.kubernetes.io/managed-by"
PREFIX = "unifiedreward.dev"
RUN, STAGE, NODE, ATTEMPT, APP = (f"{PREFIX}/{name}" for name in ("run", "stage", "node", "attempt", "app"))
INDEX_LABEL = "training.kubeflow.org/replica-index"
JOB_LABEL = "training.kubeflow.org/job-name"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PORT_NAME, PORT = "pytorchjob-port", 23456
LONGEST_NAME = 63 - len("-worker-999")
USER = 10001
GRACE_MARGIN_SECONDS = 5
TRACKING_CLOSE_SECONDS = 600  # a pod's undelivered metrics go with it; MLflow may be restarting
SHARED_CORE_MILLIS = 100
SHM_SHARE = 2  # /dev/shm may take the pod's memory divided by this
WORK, HOME = "/scratch", "/scratch/ur"


@dataclass(frozen=True)
class JobIdentity:
    """Whose job this is.

    namespace: "" = the one it is applied to. app: what one cancels and asks about, the same over all attempts. owner:
    an owner reference.
    """

    name: str
    namespace: str
    app: str
    run: str
    stage: str
    node: str
    attempt: int = 1
    owner: Mapping[str, Any] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def job_name(run: str, node: str, attempt: int) -> str:
    """`<run>-<node>-a<attempt>`, cut with a digest where `-worker-999` would not fit behind it. A DNS-1035 label."""
    name = f"{run}-{re.sub(r'[^a-z0-9]+', '-', node)}"
    tail = f"-a{attempt}"
    if len(name) + len(tail) > LONGEST_NAME:
        digest = hashlib.sha256(f"{run}/{node}".encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - len(tail) - 9].rstrip('-')}-{digest}"
    return name + tail


def node_label(node: str) -> str:
    """A node of the graph as a label's value: `score.vlm` for `score/vlm`."""
    return re.sub(r"[^A-Za-z0-9._-]+", ".", node)


def pytorch_job(plan: JobPlan, place: Placement, who: JobIdentity) -> Manifest:
    """The manifest of one attempt."""
    labels = _labels(who)
    metadata: Manifest = {"name": who.name, "labels": dict(labels)}
    if who.namespace:
        metadata["namespace"] = who.namespace
    if place.queue:
        metadata["labels"][QUEUE_LABEL] = place.queue
    if who.annotations:
        metadata["annotations"] = dict(who.annotations)
    if who.owner:
        metadata["ownerReferences"] = [dict(who.owner)]
    spec: Manifest = {
        "nprocPerNode": str(plan.processes),
        "runPolicy": _run_policy(place),
        "pytorchReplicaSpecs": {
            "Worker": {
                "replicas": plan.nodes,
                # ExitCode: of an elastic job, a node that was stopped or killed is started again (128 and above),
                # one that failed is not; the entry tells them apart.
                "restartPolicy": "ExitCode" if plan.min_nodes else "Never",
                "template": {"metadata": _pod_metadata(labels, place), "spec": _pod(plan, place, who)},
            }
        },
    }
    if plan.min_nodes:
        spec["elasticPolicy"] = {
            "minReplicas": plan.min_nodes, "maxReplicas": plan.nodes, "rdzvBackend": "c10d", "rdzvId": who.name,
            "maxRestarts": 3,
        }  # fmt: skip
        spec["runPolicy"]["backoffLimit"] = 10 * plan.nodes  # counts restarts over all pods
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _labels(who: JobIdentity) -> dict[str, str]:
    labels = {MANAGED_BY: MANAGER, APP: who.app, RUN: who.run, STAGE: who.stage}
    return {**labels, NODE: node_label(who.node), ATTEMPT: str(who.attempt)}


def _run_policy(place: Placement) -> Manifest:
    # cleanPodPolicy: without it, the other nodes of a failed job keep their GPUs.
    policy: Manifest = {"cleanPodPolicy": "Running", "backoffLimit": 0, "suspend": bool(place.queue)}
    if place.defaults.ttl_seconds_after_finished:
        policy["ttlSecondsAfterFinished"] = place.defaults.ttl_seconds_after_finished
    return policy


def _pod_metadata(labels: Mapping[str, str], place: Placement) -> Manifest:
    annotations = {"sidecar.istio.io/inject": "false", **place.spec.annotations}
    return {"labels": dict(labels), "annotations": annotations}


def _pod(plan: JobPlan, place: Placement, who: JobIdentity) -> Manifest:
    defaults, spec = place.defaults, place.spec
    pod: Manifest = {
        "serviceAccountName": defaults.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # else every Service of the namespace becomes environment
        "terminationGracePeriodSeconds": spec.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(plan, place, who)],
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shm or _mebibytes(plan.memory_bytes // SHM_SHARE)}},
        ],
    }  # fmt: skip
    if place.node_selector:
        pod["nodeSelector"] = place.node_selector
    if place.tolerations:
        pod["tolerations"] = [
            {name: value for name, value in toleration.model_dump().items() if value}
            for toleration in place.tolerations
        ]
    if place.priority_class:
        pod["priorityClassName"] = place.priority_class
    if defaults.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in defaults.image_pull_secrets]
    if spec.deadline_seconds:
        pod["activeDeadlineSeconds"] = spec.deadline_seconds
    return pod


def _container(plan: JobPlan, place: Placement, who: JobIdentity) -> Manifest:
    defaults = place.defaults
    secrets = [defaults.store_secret] if defaults.store_secret else []
    return {
        "name": CONTAINER,
        "image": place.image,
        "imagePullPolicy": defaults.image_pull_policy,
        "command": ["python", *map(_literal, plan.command[1:])],
        "env": _environment(plan, place, who),
        "envFrom": [{"secretRef": {"name": name}} for name in [*secrets, *place.spec.secrets]],
        "resources": _resources(plan, defaults.gpu_resource),
        "ports": [{"name": PORT_NAME, "containerPort": PORT}],
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "work", "mountPath": WORK}, {"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }  # fmt: skip


def _resources(plan: JobPlan, gpu_resource: str) -> Manifest:
    """Requests equal limits, so that the pod is of the class that a node under pressure evicts last.

    Cores that nobody asked for are shared: a small share is reserved, and no limit slows the job down.
    """
    limits = {"memory": _mebibytes(plan.memory_bytes)}
    if plan.gpu:
        limits[gpu_resource] = str(plan.gpu)
    if plan.shared_cores:
        return {"requests": {**limits, "cpu": f"{SHARED_CORE_MILLIS * plan.processes}m"}, "limits": limits}
    limits["cpu"] = str(plan.cpu)
    return {"requests": dict(limits), "limits": limits}


def _environment(plan: JobPlan, place: Placement, who: JobIdentity) -> list[Manifest]:
    """Later ones win, so what makes the job work stands last."""
    defaults = place.defaults
    values = {
        **plan.env,
        **place.env,
        **who.env,
        "HOME": "/tmp",
        names.HOME: HOME,
        names.STORE: defaults.store,
        **({"UR_S3_ENDPOINT": defaults.store_endpoint} if defaults.store_endpoint else {}),
        "MLFLOW_TRACKING_URI": defaults.tracking_uri,
        names.JOB: who.name,
        names.APP: who.app,
        names.ATTEMPT: str(who.attempt),
        names.GRACE_SECONDS: str(place.spec.grace_seconds - GRACE_MARGIN_SECONDS),
        names.TRACKING_CLOSE_SECONDS: str(TRACKING_CLOSE_SECONDS),
        names.TERMINATION_FILE: "/dev/termination-log",
        **({names.WORKSPACE: place.spec.workspace} if place.spec.workspace else {}),
        names.MASTER: f"{who.name}-worker-0:{PORT}",
        # torchrun 2.13 says the shared store's address in a job's first round only: a node that came later would wait for it.
        **({"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if plan.min_nodes else {}),
    }
    index = {"name": names.NODE_RANK, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX_LABEL}']"}}}
    return [index, *({"name": name, "value": _literal(value)} for name, value in values.items())]


def _literal(text: str) -> str:
    """The kubelet expands $(NAME) and makes $$ into $; everything here is meant as it stands."""
    return text.replace("$", "$$")


def _mebibytes(count: int) -> str:
    return f"{max(1, count // (1024 * 1024))}Mi"


def owner_reference(resource: Mapping[str, Any]) -> Manifest:
    """So that the job goes when its run is deleted."""
    metadata = resource["metadata"]
    return {
        "apiVersion": resource["apiVersion"], "kind": resource["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def defaults_for(defaults: ClusterDefaults, *, store: str, tracking_uri: str) -> ClusterDefaults:
    """The installation's offer with the store and the tracking server that a document names instead."""
    changed = {name: value for name, value in (("store", store), ("tracking_uri", tracking_uri)) if value}
    return defaults.model_copy(update=changed)
