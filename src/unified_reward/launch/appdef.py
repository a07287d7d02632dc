"""A stage as a TorchX AppDef: the command around its ranks, its environment, what it needs of a machine.

What the rendered components call, and what the executors start: both give the same AppDef for the same stage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchx.specs import AppDef, Resource, Role

from unified_reward.config import STAGE_CONFIGS, Stage, StageConfig, StageSpec, validate
from unified_reward.config.forms import RUN_NAME
from unified_reward.config.graph import Node
from unified_reward.errors import UserError

# One thread a process: stages bring their own processes, and small matrices lose by sharing cores.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}
MEMORY_MB = 2048  # of one process of the embedded models; a cluster's document says its own
PROCESSES = "unified_reward/processes"  # on each node
SHARED_CORES = "unified_reward/shared_cores"  # nobody said how many cores it needs
RUN_FIELDS = ("run", "home", "store", "seed")
NAMES = ("run", "policy")
POLICY_FIELDS = ("policy", "policy_kind", "policy_base")
# The policies of jobs/examples/shapes.yaml, so that a stage of one of them needs no more than its name.
EMBEDDED_POLICIES = {"vlm": ("vlm", "builtin:shapes/vlm_policy"), "image": ("diffusion", "builtin:shapes/image")}


def component_app(stage_name: str, values: Mapping[str, Any], inputs: Sequence[str]) -> AppDef:
    """The stage with what a component was called with. inputs: names whose artifact prefixes are the values `input_*`.

    Raises UserError naming the argument.
    """
    stage = Stage(stage_name)
    if values["spec"]:
        return _app(stage, ["--spec", values["spec"]], alone(_config_in(stage, values["spec"])))
    fields = STAGE_CONFIGS[stage].model_fields
    given = {
        name: _listed(values[name]) if _is_list(info.annotation) else values[name] for name, info in fields.items()
    }
    config = validate(STAGE_CONFIGS[stage], given, stage.value)
    for name in NAMES:
        _require_name(name, values.get(name))
    return _by_hand(
        stage, config, {name: values[name] for name in RUN_FIELDS} | _policy(values),
        {name: values[f"input_{name}"] for name in inputs},
    )  # fmt: skip


def _require_name(argument: str, value: str | None) -> None:
    """A run's or a policy's, by a document's rule; a policy may be left out. Raises UserError."""
    if value is None or (value == "" and argument == "policy"):
        return
    if not RUN_NAME.fits(value):
        raise UserError(field=argument, value=value, why=f"it is {RUN_NAME.else_it_is}", fix="As in judge-7b.")


def node_app(node: Node, run: str) -> AppDef:
    """A stage of a document, as one would start it by hand; store and tracking come from the environment."""
    options: dict[str, Any] = {"run": run, "seed": node.seed}
    if node.policy is not None:
        options |= {"policy": node.policy.name, "policy_kind": node.policy.kind.value, "policy_base": node.policy.base}
    return _by_hand(node.stage, node.config, options, {})


def _by_hand(stage: Stage, config: StageConfig, options: Mapping[str, Any], inputs: Mapping[str, str]) -> AppDef:
    arguments = ["--stage", stage.value, "--config", json.dumps(config.model_dump(mode="json"))]
    for name, value in options.items():
        arguments += ["--" + name.replace("_", "-"), str(value)] if value != "" else []
    for name, prefix in inputs.items():
        arguments += ["--input", f"{name}={prefix}"] if prefix else []
    return _app(stage, arguments, config)


def _app(stage: Stage, arguments: Sequence[str], config: StageConfig) -> AppDef:
    processes = config.processes_per_node
    nodes = ["--nodes", str(config.nodes)] if config.nodes > 1 or config.min_nodes else []
    elastic = ["--elastic"] if config.min_nodes else []
    command = ["-m", "unified_reward.launch.entry", "--processes", str(processes), *nodes, *elastic, "--",
               "-m", "unified_reward.stages", *arguments]  # fmt: skip
    role = Role(
        name=stage.value, image="", entrypoint=sys.executable,
        args=[word.replace("$", "$$") for word in command],  # TorchX substitutes macros in arguments
        env=dict(ENVIRONMENT), num_replicas=config.nodes, min_replicas=config.min_nodes or None,
        resource=Resource(cpu=config.cpu or processes, gpu=config.gpu, memMB=_memory_mb(config)),
        metadata={PROCESSES: str(processes), **({} if config.cpu else {SHARED_CORES: "true"})},
    )  # fmt: skip
    return AppDef(name=f"ur-{stage.value}", roles=[role])


def _memory_mb(config: StageConfig) -> int:
    if not config.memory:
        return MEMORY_MB * config.processes_per_node
    return int(config.memory[:-2]) * {"Mi": 1, "Gi": 1024, "Ti": 1024 * 1024}[config.memory[-2:]]


def alone(config: StageConfig) -> StageConfig:
    """The config with all its processes on this machine: a StageSpec is run by a launcher that has no other."""
    return config.model_copy(update={"nodes": 1, "min_nodes": 0})


def _config_in(stage: Stage, file: str) -> StageConfig:
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(field="spec", value=file, why=f"it is no readable JSON ({error})",
                        fix="Name a file that holds a StageSpec.") from error  # fmt: skip
    spec = validate(StageSpec, values, "spec")
    if spec.stage is not stage:
        fix = f"Use ur.{component_name(spec.stage)}."
        raise UserError(field="spec.stage", value=spec.stage, why=f"this component runs {stage}", fix=fix)
    return validate(STAGE_CONFIGS[stage], spec.config, "spec.config")


def component_name(stage: Stage) -> str:
    """`ur.<this>`; `import` is a word of Python's."""
    return "import_data" if stage is Stage.IMPORT else stage.value.replace("-", "_")


def _policy(values: Mapping[str, Any]) -> dict[str, str]:
    given = {name: str(values[name]) for name in POLICY_FIELDS if name in values}
    if given and not given["policy_kind"] and not given["policy_base"]:
        kind, base = EMBEDDED_POLICIES.get(given["policy"], ("", ""))
        given |= {"policy_kind": kind, "policy_base": base}
    return given


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is list


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
