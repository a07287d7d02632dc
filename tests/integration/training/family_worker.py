"""A rank that trains a checkpoint directory of any family as a stage does, and exports it. Globals as in worker.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsdp_utils.context import DistContext
from unified_reward.config import TrainLoopConfig
from unified_reward.models.batching import Encoded, Segment, chat, encode
from unified_reward.models.processing import VlmProcessor
from unified_reward.models.vlm import load_vlm
from unified_reward.training.dpo import DpoObjective
from unified_reward.training.export import write_vlm
from unified_reward.training.loop import train
from unified_reward.training.packing import Tree, answer_tree
from unified_reward.training.parallel import prepare_vlm
from unified_reward.training.reference import reference_logprobs
from unified_reward.training.sft import SftObjective

WORDS = ["red", "blue", "green", "ring", "square", "cross", "yes", "no"]
EXAMPLES, SEED, BETA = 12, 3, 0.3


def words(rng: np.random.Generator) -> str:
    return " " + " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, 7)))


def user(rng: np.random.Generator, index: int) -> list[Segment]:
    """Two pictures, or a clip of 4 or 6 frames, or text alone; so that ranks of one step hold unlike media."""
    if index % 3 == 0:
        pictures = [Segment(image=rng.integers(0, 255, (32, 24 + 8 * i, 3), dtype=np.uint8)) for i in range(2)]
        return [pictures[0], Segment(words(rng)), pictures[1], Segment(words(rng))]
    if index % 3 == 1:
        return [
            Segment(video=rng.integers(0, 255, (4 + 2 * (index % 2), 32, 32, 3), dtype=np.uint8)),
            Segment(words(rng)),
        ]
    return [Segment(words(rng))]


def examples(processor: VlmProcessor) -> list[Encoded]:
    found = []
    for index in range(EXAMPLES):
        rng = np.random.default_rng(index)
        asked, reasons = user(rng, index), words(rng)
        answer = [Segment(reasons, weight=0.3), Segment(" yes", weight=1.0)]
        found.append(encode(processor, chat(processor, asked, answer)))
    return found


def pairs(processor: VlmProcessor) -> list[Tree]:
    found = []
    for index in range(EXAMPLES):
        rng = np.random.default_rng(index)
        asked = user(rng, index)
        found.append(answer_tree(processor, asked, [words(rng), words(rng)]))
    return found


class MemoryBlobs(dict[str, bytes]):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def head(self, key: str, /) -> object | None:
        return (self.directory / key).exists() or None

    def get(self, key: str, /) -> bytes:
        return (self.directory / key).read_bytes()

    def put_if_absent(self, key: str, data: bytes, /) -> bool:
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True


def bytes_held(tensors: list[torch.Tensor]) -> int:
    """By this rank."""
    held = (t.to_local() if hasattr(t, "to_local") else t for t in tensors)
    return sum(t.numel() * t.element_size() for t in held)


def main() -> None:
    case: dict[str, Any] = globals()["GIVEN"]
    os.environ.update(globals()["PLACE"])
    out = Path(case["out"])
    printed = os.open(out / f"rank-{os.environ['RANK']}.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    torch.set_num_threads(1)
    dist = DistContext.init("cpu", timeout_s=60)
    config = TrainLoopConfig(
        **{
            "processes": dist.world_size, "global_batch": 4, "steps": 4, "warmup_steps": 0, "decay_fraction": 0.0,
            "learning_rate": 1e-3, "optimizer": "adamw", "shard_units": "blocks", "micro_batch": 1,
            "activation_checkpointing": True, **case["config"],
        }
    )  # fmt: skip
    vlm = load_vlm(case["model"], meta=True)
    scorer = prepare_vlm(vlm, config, dist, seed=SEED)
    if case["objective"] == "sft":
        given = examples(vlm.processor)
        objective: Any = SftObjective(vlm, given.__getitem__, dist, lengths=[len(e) for e in given], scorer=scorer)
    else:
        trees = pairs(vlm.processor)
        known = reference_logprobs(
            scorer, trees, weights_digest="base", pad_id=vlm.processor.pad_id, blobs=MemoryBlobs(out / "blobs"),
            prefix="reference", dist=dist, batch=5,
        )  # fmt: skip
        objective = DpoObjective(vlm, trees, known, dist, beta=BETA, scorer=scorer)
    optimizers: list[torch.optim.Optimizer] = []
    stepped = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *given: Any, **named: Any) -> Any:
        optimizers[:] = [self]
        return stepped(self, *given, **named)

    torch.optim.AdamW.step = noted  # type: ignore[method-assign]
    # One log a step, to compare trajectories
    import unified_reward.training.loop as loop

    loop.LOG_EVERY = 1
    result = train(objective, dataset_size=EXAMPLES, config=config, dist=dist, seed=SEED)
    from fsdp_utils.sharding import reshard

    reshard(scorer)
    write_vlm(vlm, out / "trained", dist, scorer)
    state = [value for one in optimizers[0].state.values() for value in one.values() if value.ndim]
    held = {
        "parameters": [
            sum(p.numel() for p in scorer.parameters()),
            sum(p.numel() for p in scorer.parameters() if p.requires_grad),
        ],
        "weights": bytes_held(list(scorer.parameters())),
        "optimizer": bytes_held(state),
    }
    everyone = dist.gather_objects(held)
    if dist.is_main:
        losses = [metrics["loss"] for _, metrics in result.history]
        norms = [metrics["grad_norm"] for _, metrics in result.history]
        (out / "result.json").write_text(json.dumps({"losses": losses, "norms": norms, "held": everyone}))
    dist.close()


if __name__ == "__main__":
    main()
