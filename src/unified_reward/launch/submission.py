"""Pure but for the files that options name: an AppDef and options -> the PyTorchJob that is submitted."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchx.specs import AppDef, Role, macros

from unified_reward.config import ClusterDefaults, placement
from unified_reward.errors import UserError
from unified_reward.launch.job_status import RETRIES
from unified_reward.launch.manifest import manifest_text, overlaid, read_overlay
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pytorchjob import LONGEST_NAME, JobIdentity, Manifest, pytorch_job
from unified_reward.launch.sameness import marked
from unified_reward.launch.scheduler_options import cluster_spec, offer_for, retry_counts
from unified_reward.launch.workspace import Workspace, asked_workspace

ATTEMPT_DIGITS = len("-a99")
_REPLICA = "\x00replica\x00"  # stands for the node's index until nothing is escaped any more


@dataclass
class Request:
    """What is submitted, and the workspace that is uploaded before it. offered: whether `defaults` are an installation's word."""

    manifest: Manifest
    context: str
    defaults: ClusterDefaults
    workspace: Workspace | None = None
    offered: bool = True

    def __str__(self) -> str:
        return manifest_text(self.manifest)


def make_request(
    app: AppDef, given: Mapping[str, Any], offered: ClusterDefaults, namespace: str, handles: str
) -> Request:
    """given: the options that say something. offered: by the installation. handles: what stands before an app's id in its
    handle. Raises UserError."""
    if len(app.roles) != 1:
        raise UserError(field=app.name, value=f"{len(app.roles)} roles", why="a PyTorchJob has one kind of node",
                        fix="Submit one job for each role.")  # fmt: skip
    defaults = offer_for(offered, given)
    workspace = asked_workspace(str(given.get("workspace", "")))
    spec = cluster_spec(given, workspace.digest if workspace else "")
    name = _name(app, str(given.get("job_id", "")))
    role = _substituted(app.roles[0], name, f"{handles}{namespace}:{name}")
    spec = spec.model_copy(update={"image": spec.image or role.image})
    who = JobIdentity(
        name=name, namespace=namespace, app=name, run=_run_of(role), stage=_label(role.name), node=_label(role.name),
        annotations={RETRIES: retry_counts(given)},
    )  # fmt: skip
    plan = job_plan(AppDef(name=app.name, roles=[role]))
    manifest = _resolved(pytorch_job(plan, placement(defaults, spec), who), role)
    _require_environment(manifest, given.get("env", {}))
    overlay = str(given.get("overlay", ""))
    if overlay:
        manifest = overlaid(manifest, read_overlay(overlay), overlay)
    return Request(marked(manifest), str(given.get("context", "")), defaults, workspace)


def _name(app: AppDef, job_id: str) -> str:
    """A DNS-1035 label that leaves room for a pod's and an attempt's number behind it."""
    longest = LONGEST_NAME - ATTEMPT_DIGITS
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


def _require_environment(manifest: Manifest, asked: Mapping[str, str]) -> None:
    """Raises UserError for a variable that the job sets itself."""
    there = manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"]
    for name, value in asked.items():
        if [one.get("value") for one in there if one["name"] == name] != [value.replace("$", "$$")]:
            raise UserError(field="-cfg env", value=name, why="the job sets it itself", fix="Leave it out.")


def _run_of(role: Role) -> str:
    """The run that a stage's command names, for the label."""
    words = list(role.args)
    return _label(words[words.index("--run") + 1]) if "--run" in words[:-1] else _label(role.name)


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._") or "none"
