"""The resource's definition on a real API server: what the models refuse it refuses too, before anything is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from unified_reward.config import AlignmentRun

from .conftest import Cluster

VLM = {"name": "vlm", "kind": "vlm", "base": "builtin:shapes/vlm_policy"}
IMAGE = {"name": "image", "kind": "diffusion", "base": "builtin:shapes/image_policy"}
FILES = {"source": "files", "paths": ["a.json"]}
ASKED = {**FILES, "vlmPrompts": ["p.json"]}
VLLM = {"engine": "vllm"}


def document(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "unifiedreward.dev/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "tried"}, "spec": spec,
    }  # fmt: skip


def answer(cluster: Cluster, spec: dict[str, Any]) -> str:
    return cluster.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(document(spec)), check=False
    )


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"policies": [VLM, IMAGE]},
        {"policies": [{**VLM, "policyEval": {"grader": "truth"}, "dpoTrain": {"validateEvery": 5, "select": "best"}}]},
        {"import": ASKED, "policies": [{**VLM, "generate": {**VLLM, "engineOptions": ["max_model_len=8192"]}}]},
        {"import": {**FILES, "imagePrompts": ["c.json"]}, "policies": [IMAGE]},
        {
            "cluster": {
                "queue": "team-a",
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100"},
                "env": {"A_1": "b c"},
            }
        },
        {"cluster": {"tolerations": [{"operator": "Exists"}], "annotations": {"a.b/c": "d e"}, "secrets": ["hf"]}},
        {"import": FILES, "rewardTrain": {"processes": 8, "nodes": 4, "minNodes": 2, "globalBatch": 24}},
        {"policies": [{**VLM, "generate": {**VLLM, "processes": 4, "nodes": 2, "gpu": 8, "tensorParallel": 4}}]},
    ],
)
def test_what_the_models_take_it_takes(cluster: Cluster, spec: dict[str, Any]) -> None:
    AlignmentRun.model_validate(document(spec))
    assert "created (server dry run)" in answer(cluster, spec)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"rewardTrain": {"processes": 3, "nodes": 2}}, "processes must be a multiple of nodes"),
        ({"rewardTrain": {"minNodes": 2}}, "minNodes must not be above nodes"),
        ({"rewardTrain": {"processes": 3, "globalBatch": 32}}, "globalBatch must be a multiple of processes"),
        ({"rewardTrain": {"select": "best", "validateEvery": 0}}, "set validateEvery"),
        ({"policies": [VLM, VLM]}, "Duplicate value"),
        ({"policies": [{**VLM, "generate": {"candidates": 3}}]}, "candidates must be even"),
        ({"policies": [{**VLM, "generate": {"tensorParallel": 2}}]}, "set engine to vllm"),
        ({"policies": [{**VLM, "generate": {**VLLM, "gpu": 1, "tensorParallel": 2}}]}, "processes of a pod x tensor"),
        ({"policies": [{**IMAGE, "generate": VLLM}]}, "a diffusion policy draws images"),
        ({"policies": [{**VLM, "policyEval": {"grader": "truth", "judge": "store:j"}}]}, "no judge is asked"),
        ({"policies": [{**VLM, "policyEval": {"judgeTemplate": "default"}}]}, "leave judgeTemplate out"),
        ({"import": FILES, "policies": [VLM]}, "import.vlmPrompts is empty"),
        ({"import": ASKED, "policies": [VLM, IMAGE]}, "import.imagePrompts is empty"),
        ({"import": ASKED, "policies": [{**VLM, "policyEval": {"grader": "truth"}}]}, "grader cannot be truth"),
        ({"import": ASKED, "policies": [{**VLM, "dpoTrain": {"validateEvery": 5}}]}, "validateEvery must be 0"),
        ({"cluster": {"image": "registry/ur-trainer:latest"}}, "an image needs a version"),
        ({"cluster": {"image": "judge"}}, "spec.cluster.image"),
        ({"cluster": {"queue": "a b"}}, "spec.cluster.queue"),
        ({"cluster": {"priorityClass": "A"}}, "spec.cluster.priorityClass"),
        ({"cluster": {"nodeSelector": {"a b": "c"}}}, "a key is no key of the form [domain/]name"),
        ({"cluster": {"nodeSelector": {"a": "b c"}}}, "spec.cluster.nodeSelector"),
        ({"cluster": {"annotations": {"a/b/c": ""}}}, "a key is no key of the form [domain/]name"),
        ({"cluster": {"env": {"1A": "b"}}}, "a key is no name of a variable"),
        ({"cluster": {"secrets": ["A_B"]}}, "spec.cluster.secrets"),
        ({"cluster": {"tolerations": [{"key": "a b"}]}}, "spec.cluster.tolerations"),
        ({"rewardTrain": {"memory": "12GB"}}, "spec.rewardTrain.memory"),
        ({"rewardTrain": {"learningRate": 0}}, "learningRate"),
    ],
)
def test_what_the_models_refuse_it_refuses_with_the_way_out(cluster: Cluster, spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError):
        AlignmentRun.model_validate(document(spec))
    said = answer(cluster, spec)
    assert told in said
    assert "created" not in said
