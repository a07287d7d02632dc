"""A rank of the training tests: a small judge-like SFT or a DPO on random data, saved at the end for comparison.

Run as a script with two globals: PLACE, the environment that torchrun would set, and GIVEN, what differs from CASE.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.context import DistContext
from fsdp_utils.training_state import model_tensors
from unified_reward.config import TrainLoopConfig
from unified_reward.models.batching import Segment, encode
from unified_reward.models.tiny_vlm import tiny_tokenizer, tiny_vlm
from unified_reward.models.vlm import Vlm, generate_text
from unified_reward.training.dpo import DpoObjective
from unified_reward.training.logprobs import TokenScorer
from unified_reward.training.loop import train
from unified_reward.training.objective import Objective
from unified_reward.training.packing import Tree, answer_tree
from unified_reward.training.reference import reference_logprobs
from unified_reward.training.sft import SftObjective

WORDS = ["red", "blue", "green", "ring", "square", "cross", "yes", "no"]
CASE: dict[str, Any] = {
    "objective": "sft",  # or dpo
    "out": "",  # directory of the results; weights.pt and result.json are written by rank 0
    "checkpoints": "",  # directory, "" = none
    "config": {},
    "shard_units": "root",
    "modality": "mixed",  # or "by_rank": ranks hold pictures, clips or text only, in turn
    "kill_at": 0,  # the last rank SIGKILLs itself before this step
    "terminate_at": 0,  # the last rank SIGTERMs itself before this step
    "examples": 24,
    "poison": -1,  # the example (with a picture) whose pixels are NaN
}


class FolderBlobs:
    def __init__(self, root: Path) -> None:
        self.root = root

    def head(self, key: str, /) -> object | None:
        path = self.root / key
        return path.stat() if path.exists() else None

    def get(self, key: str, /) -> bytes:
        return (self.root / key).read_bytes()

    def put_if_absent(self, key: str, data: bytes, /) -> bool:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_suffix(f".{os.getpid()}")
        arriving.write_bytes(data)
        arriving.replace(path)
        return True


def words(rng: np.random.Generator) -> str:
    return " " + " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, 7)))


def media(rng: np.random.Generator, kind: int) -> list[Segment]:
    if kind == 0:
        return [Segment(image=rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))]
    if kind == 1:
        return [Segment(video=rng.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8))]
    return []


def sft_objective(vlm: Vlm, case: dict[str, Any], dist: DistContext) -> Objective:
    examples = []
    for index in range(case["examples"]):
        rng = np.random.default_rng(index)
        pieces = [Segment(words(rng)), Segment(words(rng), weight=0.3), Segment(" yes", weight=1.0)]
        example = encode(vlm.processor, [*media(rng, index % 3), *pieces])
        if index == case["poison"]:
            example.image_patches[0] *= np.nan
        examples.append(example)
    if case["modality"] == "by_rank":  # each rank's share has one modality, another on each rank
        places = {kind: [i for i in range(case["examples"]) if i % 3 == kind] for kind in range(3)}
        mine = places[dist.rank % 3]
        return SftObjective(vlm, lambda index: examples[mine[index % len(mine)]], dist)
    return SftObjective(vlm, examples.__getitem__, dist, lengths=[len(e) for e in examples])


def dpo_objective(vlm: Vlm, case: dict[str, Any], dist: DistContext) -> Objective:
    trees: list[Tree] = []
    for index in range(case["examples"]):
        rng = np.random.default_rng(index)
        user = [*media(rng, index % 3), Segment(words(rng))]
        trees.append(answer_tree(vlm.processor, user, [words(rng), words(rng)]))
    known = reference_logprobs(
        TokenScorer(vlm.model), trees, weights_digest="base", pad_id=vlm.processor.pad_id,
        blobs=FolderBlobs(Path(case["out"]) / "blobs"), prefix="reference", dist=dist, batch=5,
    )  # fmt: skip
    return DpoObjective(vlm, trees, known, dist, beta=0.3)


def interrupt(objective: Objective, case: dict[str, Any], dist: DistContext) -> None:
    """Die, or be asked to end, in the forward of a chosen step."""
    steps = 0
    forward = objective.loss

    def loss(batch: dict[str, torch.Tensor]) -> Any:
        nonlocal steps
        steps += 1
        if dist.rank == dist.world_size - 1 and steps == case["kill_at"]:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if dist.rank == dist.world_size - 1 and steps == case["terminate_at"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(batch)

    objective.loss = loss  # type: ignore[method-assign]


def main() -> None:
    case = CASE | globals()["GIVEN"]
    os.environ.update(globals()["PLACE"])
    printed = os.open(Path(case["out"], f"rank-{os.environ['RANK']}.txt"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    torch.set_num_threads(1)
    dist = DistContext.init("cpu", timeout_s=60)
    vlm = tiny_vlm(tiny_tokenizer([" red blue green ring square cross yes no user assistant"], WORDS), seed=0)
    vlm.model.train()
    objective = {"sft": sft_objective, "dpo": dpo_objective}[case["objective"]](vlm, case, dist)
    interrupt(objective, case, dist)
    config = TrainLoopConfig(**{"processes": dist.world_size, "global_batch": 6, "warmup_steps": 2,
                                "shard_units": case["shard_units"], **case["config"]})  # fmt: skip
    checkpoints = Checkpointer.local(Path(case["checkpoints"]), dist) if case["checkpoints"] else None

    losses: list[float] = []
    step = objective.loss

    def recorded(batch: dict[str, torch.Tensor]) -> Any:
        result = step(batch)
        total, count = result.metrics["loss"]
        sums = dist.gather_objects((float(total), float(count)))
        losses.append(sum(t for t, _ in sums) / sum(c for _, c in sums))
        return result

    objective.loss = recorded  # type: ignore[method-assign]

    def validate(done: int) -> dict[str, float]:
        prompt = encode(vlm.processor, [Segment(" red ring")])
        assert generate_text(vlm, [prompt] * (1 + dist.rank), max_new_tokens=2 + dist.rank)  # ranks do unlike work
        return {"score": -abs(done - 4.0), "rank": float(dist.rank)}

    result = train(
        objective, dataset_size=case["examples"], config=config, dist=dist, seed=3, checkpoints=checkpoints,
        validate=validate, select_by="score",
    )  # fmt: skip
    weights = {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in model_tensors(objective.root).items()
    }
    if dist.is_main:
        out = Path(case["out"])
        torch.save({name: tensor.detach().clone() for name, tensor in weights.items()}, out / "weights.pt")
        (out / "result.json").write_text(json.dumps({"losses": losses, **dataclasses.asdict(result)}))
    dist.close()


if __name__ == "__main__":
    main()
