"""Runs as small as they can be and still do everything: about a minute on two cores."""

from __future__ import annotations

import time
from typing import Any

SESSION = f"{time.time():.0f}"  # an installation that was kept has results of these runs in its store


def judge_only(name: str, *, steps: int = 180, **spec: Any) -> dict[str, Any]:
    """Import, judge training on two nodes with a checkpoint every few steps, judge evaluation."""
    return {
        "apiVersion": "unifiedreward.dev/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": name},
        "spec": {
            "store": f"s3://unified-reward/{SESSION}/{name}",
            "import": {"trainRecords": 640, "evalRecords": 16, "prompts": 24, "evalPrompts": 24, "imageRepeats": 1},
            "rewardTrain": {"steps": steps, "globalBatch": 16, "processes": 2, "nodes": 2, "checkpointEvery": 10},
            **spec,
        },
    }


def with_policy(name: str, *, steps: int = 30, **spec: Any) -> dict[str, Any]:
    """All seven stages, for the VLM policy."""
    document = judge_only(name, steps=steps, **spec)
    document["spec"]["policies"] = [
        {
            "name": "vlm", "kind": "vlm", "base": "builtin:shapes/vlm_policy",
            "generate": {"candidates": 4, "shardPrompts": 2, "batch": 8, "processes": 1},
            "dpoTrain": {"steps": 6, "globalBatch": 4, "validateEvery": 3, "select": "best", "validationPrompts": 8,
                         "optimizer": "adamw", "learningRate": 1e-4},
        }
    ]  # fmt: skip
    return document
