"""The manifests of the stages are those of the example, and say truly how TorchX starts the same."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml
from torchx.specs.builders import materialize_appdef

from unified_reward.config import AlignmentRun, Stage
from unified_reward.launch import components, render_jobs
from unified_reward.launch.appdef import component_name
from unified_reward.launch.plan import job_plan


@pytest.mark.parametrize("stage", Stage)
def test_the_line_for_torchx_in_a_manifest_starts_the_same_stage(stage: Stage) -> None:
    text = render_jobs.render()[f"{stage}.yaml"]
    head = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    line = head.partition(f" ur.{component_name(stage)}")[2].partition("\n\n")[0]
    given = shlex.split(line.replace("\\\n", " "))
    plan = job_plan(materialize_appdef(getattr(components, component_name(stage)), given))
    worker = yaml.safe_load(text)["spec"]["pytorchReplicaSpecs"]["Worker"]
    made, wanted = list(plan.command[1:]), worker["template"]["spec"]["containers"][0]["command"][1:]
    at = wanted.index("--config") + 1
    assert json.loads(made.pop(at)) == json.loads(wanted.pop(at))
    assert made == wanted
    assert plan.nodes == worker["replicas"]


def test_a_policy_of_other_weights_is_named_whole() -> None:
    base = {"name": "mine", "kind": "vlm", "base": "store:models/mine"}
    run = AlignmentRun.model_validate({"metadata": {"name": "other"}, "spec": {"policies": [base]}})
    node = render_jobs.build_graph(run)["generate/mine"]
    line = render_jobs._torchx(node, "other")
    assert "--run other --policy mine --policy_kind vlm --policy_base store:models/mine" in line
