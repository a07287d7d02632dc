"""A stage asked for by hand or by a cluster's job is the stage of the document: same inputs, same key; and on which device."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unified_reward.config import (
    AlignmentRun,
    ArtifactRef,
    GenerateConfig,
    PolicyEvalConfig,
    PolicyKind,
    Stage,
    StageSpec,
)
from unified_reward.config.graph import build_graph
from unified_reward.errors import UserError
from unified_reward.launch.appdef import node_app
from unified_reward.stages import generate, policy_eval, reward_eval
from unified_reward.stages.__main__ import _parser
from unified_reward.stages.context import Commit, StageContext
from unified_reward.stages.standalone import Request, make_spec, request_spec
from unified_reward.store import open_store, write_artifact

POLICY = {"name": "p", "kind": "vlm", "base": "builtin:shapes/vlm_policy"}
IMPORT = {"source": "files", "paths": ["r.jsonl"], "vlmPrompts": ["q.jsonl"]}


@pytest.mark.parametrize("evaluation", [{}, {"judge": "builtin:shapes/vlm"}, {"grader": "judge"}], ids=str)
def test_a_job_of_the_cluster_has_the_key_of_its_document(tmp_path: Path, evaluation: dict[str, Any]) -> None:
    store = open_store(tmp_path.as_uri())
    run = AlignmentRun.model_validate(
        {"metadata": {"name": "r"}, "spec": {"import": IMPORT, "policies": [{**POLICY, "policyEval": evaluation}]}}
    )
    node = build_graph(run)["policy-eval/p"]
    inputs = {name: write_artifact(store, f"made/{name}", {"f": name.encode()}, kind="test") for name in node.inputs}
    wanted = make_spec(node, inputs, store, run="r", work_dir="w", tracking=None)

    words = list(node_app(node, "r").roles[0].args)
    given = _parser().parse_args(words[words.index("unified_reward.stages") + 1 :])
    request = Request(
        stage=Stage(given.stage), run=given.run, home=str(tmp_path / "home"), store=store.url, config=given.config,
        inputs=[f"{name}={ref.prefix}" for name, ref in inputs.items()], policy=given.policy,
        policy_kind=given.policy_kind, policy_base=given.policy_base, seed=given.seed,
    )  # fmt: skip
    spec = request_spec(request)
    assert (spec.key, set(spec.inputs)) == (wanted.key, set(node.inputs))
    assert json.loads(given.config)["grader"] == "judge"


def test_an_import_without_prompts_is_told_by_hand_too() -> None:
    made = {"judge_records": ArtifactRef(prefix="a", digest="0" * 64)}
    done = Commit("import", "k", "", made, {}, {}, {}, {}, 1.0, 2.0)
    assert done.output("judge_records").prefix == "a"
    with pytest.raises(
        UserError, match=r"input prompts_vlm is not set: import k made judge_records. Import again with files of"
    ):
        done.output("prompts_vlm")


class LoadedError(Exception):
    """Raised in the place of loading a policy, with how it would be loaded."""


def context(tmp_path: Path, stage: Stage, device: str) -> StageContext:
    spec = StageSpec(
        stage=stage, run="r", store=tmp_path.as_uri(), key="00000000", config={}, work_dir=str(tmp_path), policy="p",
        policy_kind=PolicyKind.VLM, policy_base="builtin:shapes/vlm_policy", inputs={},
    )  # fmt: skip
    dist: Any = SimpleNamespace(device=torch.device(device))
    track: Any = None
    return StageContext(spec, open_store(tmp_path.as_uri()), dist, track, tmp_path)


def test_the_judge_stands_on_the_device_of_its_rank(tmp_path: Path) -> None:
    place = context(tmp_path, Stage.SCORE, "meta")
    judge = reward_eval.load_judge(place, place.base("builtin:shapes/vlm"), no_media, batch=1, template="shapes")
    assert judge.vlm.model.device.type == "meta"


def no_media(digest: str) -> Any:
    raise AssertionError(f"{digest} is not asked for")


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda:3", torch.bfloat16)])
def test_vlm_policies_are_loaded_on_the_device_of_their_rank_in_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype
) -> None:
    def load(*how: object) -> None:
        raise LoadedError(*how[1:])

    monkeypatch.setattr("unified_reward.models.vlm.load_vlm", load)
    monkeypatch.setattr(policy_eval, "_models", lambda _: {"before": tmp_path})
    media: Any = no_media
    with pytest.raises(LoadedError) as drawn:
        generate._engine(context(tmp_path, Stage.GENERATE, device), GenerateConfig(), media)
    with pytest.raises(LoadedError) as measured:
        policy_eval._answers(context(tmp_path, Stage.POLICY_EVAL, device), PolicyEvalConfig(), [], media)
    assert drawn.value.args == measured.value.args == (dtype, torch.device(device))
