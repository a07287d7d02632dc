"""Stands for a stage: reads its spec, behaves as `faults.json` beside the store says, commits fixed outputs last.

faults.json: {node: {"do": "sleep" | "kill" | "exit", "code": n, "times": n}}; each fault is used `times` times.
Every execution leaves a line in `executions.txt`, so that a test counts what was done twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

from unified_reward import progress
from unified_reward.config import ArtifactRef, Stage, StageSpec
from unified_reward.stages.context import StageResult, commit
from unified_reward.store import open_store

OUTPUTS = {
    Stage.IMPORT: ["judge_records", "prompts_vlm", "prompts_diffusion"],
    Stage.REWARD_TRAIN: ["judge"],
    Stage.GENERATE: ["candidates"],
    Stage.SCORE: ["pairs"],
    Stage.DPO_TRAIN: ["policy"],
}
METRICS: dict[Stage, dict[str, Any]] = {
    Stage.REWARD_EVAL: {
        "image_generation_pair": {
            "accuracy": 0.9,
            "single_order_accuracy": 0.8,
            "swap_consistency": 0.7,
            "n": 10,
            "x": 1,
        },
        "video_generation_point": {"pearson": 0.6, "spearman": 0.5, "n": 10, "mae": 0.1},
    },
    Stage.POLICY_EVAL: {"before": 0.5, "after": 0.75, "n": 4, "metric": "right answers", "gain": 0.25},
}


def main(spec_file: str) -> None:
    spec = StageSpec.model_validate_json(Path(spec_file).read_text())
    store = open_store(spec.store)
    home = Path(urlparse(spec.store).path).parent
    node = f"{spec.stage}/{spec.policy}" if spec.policy else spec.stage.value
    with (home / "executions.txt").open("a") as log:
        log.write(f"{node} {os.getpid()}\n")
    print(f"working on {node}", flush=True)
    progress.report(1, 2, "steps")
    _misbehave(home, node)
    refs = {
        name: ArtifactRef(
            prefix=f"{spec.output_prefix}/{name}", digest=hashlib.sha256(f"{spec.key}{name}".encode()).hexdigest()
        )
        for name in OUTPUTS.get(spec.stage, [])
    }
    context: Any = SimpleNamespace(spec=spec, store=store)
    commit(context, StageResult(refs, METRICS.get(spec.stage, {})), started=time.time())


def _misbehave(home: Path, node: str) -> None:
    file = home / "faults.json"
    fault = json.loads(file.read_text()).get(node) if file.exists() else None
    if fault is None:
        return
    used = home / f"used-{node.replace('/', '.')}"
    count = int(used.read_text()) if used.exists() else 0
    if count >= fault["times"]:
        return
    used.write_text(str(count + 1))
    if fault["do"] == "sleep":
        (home / "asleep").touch()
        time.sleep(60)
    elif fault["do"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        Path(os.environ["UR_ERROR_FILE"]).write_text("rewardTrain.tasks is x: there is no such judge task.")
        sys.exit(fault["code"])


if __name__ == "__main__":
    main(sys.argv[-1])
