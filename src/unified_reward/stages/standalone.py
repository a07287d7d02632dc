"""A stage asked for by hand: inputs that are not named are those of the run's last committed stages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unified_reward.config import (
    STAGE_CONFIGS,
    AlignmentRun,
    ArtifactRef,
    PolicyKind,
    PolicySpec,
    Stage,
    StageSpec,
    TrackingSpec,
    validate,
)
from unified_reward.config.graph import Node, build_graph
from unified_reward.config.keys import identity, key_of
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.models.refs import model_digest
from unified_reward.names import PARENT_KEY
from unified_reward.stages.context import read_commit, read_pointer
from unified_reward.store import ObjectStore, open_store, resolve
from unified_reward.tracking import embedded_uri


@dataclass(frozen=True)
class Request:
    """What a person gives on the command line of one stage; empty = not given."""

    stage: Stage
    run: str
    home: str = ""
    store: str = ""
    config: str = "{}"
    inputs: Sequence[str] = ()
    policy: str = ""
    policy_kind: str = ""
    policy_base: str = ""
    seed: int = 0


def request_spec(request: Request) -> StageSpec:
    """The full spec of the stage. Raises UserError for what is missing or wrong.

    Store and tracking that are not named are those of the environment, as a cluster's jobs have them, else the embedded ones.
    """
    home = Home.at(request.home)
    store = open_store(request.store or home.named_store_url)
    node = _node(request)
    given = dict(_pair(text) for text in request.inputs)
    inputs = {name: _input(store, request.run, node, name, given) for name in node.inputs}
    return make_spec(
        node, inputs, store, run=request.run, work_dir=str(home.work), tracking=tracking_of_environment(home),
        parent_key=os.environ.get(PARENT_KEY, ""),
    )  # fmt: skip


def tracking_of_environment(home: Home) -> TrackingSpec:
    """MLflow's own variables where they are set, else the embedded database."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri(home.tracking_directory)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return TrackingSpec(uri=uri, experiment=experiment) if experiment else TrackingSpec(uri=uri)


def make_spec(
    node: Node, inputs: Mapping[str, ArtifactRef], store: ObjectStore, *, run: str, work_dir: str,
    tracking: TrackingSpec | None, parent_key: str = "",
) -> StageSpec:  # fmt: skip
    """The spec of a node whose inputs are known, under the key that all of it gives."""
    return StageSpec(
        stage=node.stage, run=run, store=store.url, key=key_of(node_identity(node, inputs, store)),
        config=node.config.model_dump(mode="json"), inputs=dict(inputs), seed=node.seed,
        policy=node.policy.name if node.policy else "", policy_kind=node.policy.kind if node.policy else None,
        policy_base=node.policy.base if node.policy else "", work_dir=work_dir, tracking=tracking, parent_key=parent_key,
    )  # fmt: skip


def node_identity(node: Node, inputs: Mapping[str, ArtifactRef], store: ObjectStore) -> dict[str, object]:
    """What the node's output depends on. The name of a policy is not part of it: equal work is done once."""
    policy = {"kind": node.policy.kind.value} if node.policy else {}
    models = {name: _digest(node, name, ref, store) for name, ref in node.models.items()}
    return identity(node.stage, node.config, inputs, seed=node.seed, policy=policy, models=models)


def _digest(node: Node, name: str, ref: str, store: ObjectStore) -> str:
    try:
        return model_digest(ref, store)
    except UserError as error:
        fix = "Put it there first (docs/data.md), or name a directory." if node.stage is Stage.IMPORT else error.fix
        raise UserError(field=f"{node.id} {name}", value=ref, why=error.why, fix=fix) from error


def _node(request: Request) -> Node:
    """The node as the graph of a run has it, with this request's config."""
    try:
        values = json.loads(request.config)
    except ValueError as error:
        raise UserError(
            field="--config", value=request.config, why=f"it is no JSON ({error})", fix="Give an object."
        ) from error
    config = validate(STAGE_CONFIGS[request.stage], values, request.stage.value)
    own = {_section(request.stage): config}
    spec = {"policies": [_policy(request) | own]} if request.stage.per_policy else own
    run = validate(AlignmentRun, {"metadata": {"name": request.run}, "spec": {"seed": request.seed, **spec}})
    return next(n for n in build_graph(run).values() if n.stage is request.stage)


def _section(stage: Stage) -> str:
    """The stage's field in a document; `import` is a word of Python's, and goes by its alias."""
    return stage.value if stage is Stage.IMPORT else stage.value.replace("-", "_")


def _policy(request: Request) -> dict[str, object]:
    for name in ("policy", "policy_kind", "policy_base"):
        if not getattr(request, name):
            raise UserError(field=name, value=None, why=f"{request.stage} works on one policy",
                            fix="Give policy (its name), policy_kind (vlm or diffusion) and policy_base.")  # fmt: skip
    if request.policy_kind not in set(PolicyKind):
        raise UserError(field="policy_kind", value=request.policy_kind, why="there is no such kind",
                        fix=f"Use {' or '.join(PolicyKind)}.")  # fmt: skip
    policy = PolicySpec.model_validate(
        {"name": request.policy, "kind": request.policy_kind, "base": request.policy_base}
    )
    return policy.model_dump(mode="json")


def _pair(text: str) -> tuple[str, str]:
    name, separator, prefix = text.partition("=")
    if not separator:
        raise UserError(field="--input", value=text, why="it is not of the form NAME=PREFIX", fix="Write NAME=PREFIX.")
    return name, prefix


def _input(store: ObjectStore, run: str, node: Node, name: str, given: Mapping[str, str]) -> ArtifactRef:
    if name in given:
        return resolve(store, given[name])
    source = node.inputs[name]
    key = read_pointer(store, run, source.node)
    done = read_commit(store, source.node.split("/")[0], key) if key else None
    if done is None:
        raise UserError(field=f"input {name}", value=None, why=f"run {run} has no finished {source.node} in {store.url}",
                        fix=f"Run that stage first, or give --input {name}=PREFIX (torchx: --input_{name} PREFIX).")  # fmt: skip
    return done.output(source.output)
