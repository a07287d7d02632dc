"""What a scheduler has to start, free of TorchX: from an AppDef to plain data, from which manifests are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchx.specs import AppDef

from unified_reward.launch.appdef import PROCESSES, SHARED_CORES


@dataclass(frozen=True)
class JobPlan:
    """One job. command: as executed on every node; processes: ranks on each node; memory in bytes, cpu and gpu in
    devices, each per node. min_nodes: an elastic job goes on with so many; 0 = it needs all.
    shared_cores: `cpu` was not asked for; the job may use what the node has to spare."""

    name: str
    role: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    processes: int
    nodes: int
    min_nodes: int
    cpu: int
    shared_cores: bool
    gpu: int
    memory_bytes: int


def job_plan(app: AppDef) -> JobPlan:
    """The plan of a stage's AppDef. Raises ValueError when it has more than one role."""
    if len(app.roles) != 1:
        raise ValueError(f"{app.name} has {len(app.roles)} roles; a stage has one")
    role = app.roles[0]
    # TorchX writes $$ for $ in arguments, and gives each job its own copy of them.
    command = (role.entrypoint, *(word.replace("$$", "$") for word in role.args))
    return JobPlan(
        name=app.name, role=role.name, command=command, env=dict(role.env), processes=int(role.metadata.get(PROCESSES, "1")),
        nodes=role.num_replicas, min_nodes=role.min_replicas or 0, cpu=role.resource.cpu,
        shared_cores=SHARED_CORES in role.metadata, gpu=role.resource.gpu,
        memory_bytes=role.resource.memMB * 1024 * 1024,
    )  # fmt: skip
