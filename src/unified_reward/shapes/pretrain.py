"""Rebuild the weights that ship with the package: the base VLM, and the imperfect VLM policy made from it.

    python -m unified_reward.shapes.pretrain --out DIR

One thread. The base stands for "the pretrained model one starts from": it knows the world, and how to compare in words. The
policy is the base after a short lesson in systematic errors: what DPO is to mend.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from unified_reward.models.batching import Encoded, Segment, chat, collate, encode
from unified_reward.models.processing import VlmProcessor
from unified_reward.models.tiny_vlm import tiny_tokenizer, tiny_vlm
from unified_reward.models.vlm import Vlm, generate_text, model_inputs, save_vlm
from unified_reward.records import Modality, Task
from unified_reward.shapes import exercises, language
from unified_reward.shapes.dataset import render
from unified_reward.shapes.render import clean_look
from unified_reward.shapes.scenes import Clip, Scene, clips_of, pick, scenes_of

BATCH = 32
WARMUP = 40
DECAY = 0.35
LEARNING_RATE = 4e-3
POLICY_STEPS = 120
POLICY_LEARNING_RATE = 1e-3
POLICY_ERROR_SHARE = 0.6
# What the policy mistakes for what: DPO must unlearn these.
POLICY_ERRORS: Mapping[str, Mapping[str, str]] = {
    "size": {"small": "large"},
    "color": {"red": "purple", "yellow": "orange", "blue": "green"},
    "shape": {"ring": "square", "cross": "triangle"},
    "position": {"left": "right", "top": "center"},
    "background": {"black": "gray"},
}

Exercise = Callable[[VlmProcessor, np.random.Generator], list[Segment]]


@dataclass(frozen=True)
class Stage:
    """steps of batches whose samples are drawn from kinds of exercise by share."""

    steps: int
    shares: Mapping[str, float]


# Words alone first: without that stage, comparing never emerges.
CURRICULUM = (
    Stage(240, {"text": 1.0}),
    Stage(300, {"text": 0.2, "describe_image": 0.25, "ask_image": 0.25, "describe_video": 0.15, "ask_video": 0.15}),
    Stage(1500, {
        "text": 0.12, "describe_image": 0.06, "ask_image": 0.09, "describe_video": 0.06, "ask_video": 0.07,
        "match_image": 0.34, "match_video": 0.26,
    }),
)  # fmt: skip


TASKS = tuple(Task)
IMAGE_TASKS = tuple(t for t in TASKS if t.modality is Modality.IMAGE)
VIDEO_TASKS = tuple(t for t in TASKS if t.modality is Modality.VIDEO)

EXERCISES: Mapping[str, Exercise] = {
    "text": lambda p, rng: exercises.text_judging(p, pick(TASKS, rng), rng),
    "describe_image": lambda p, rng: exercises.describing(p, exercises.training_item(rng, False), rng),
    "describe_video": lambda p, rng: exercises.describing(p, exercises.training_item(rng, True), rng),
    "ask_image": lambda p, rng: exercises.questions(p, exercises.training_item(rng, False), rng),
    "ask_video": lambda p, rng: exercises.questions(p, exercises.training_item(rng, True), rng),
    "match_image": lambda p, rng: exercises.matching(p, pick(IMAGE_TASKS, rng), rng),
    "match_video": lambda p, rng: exercises.matching(p, pick(VIDEO_TASKS, rng), rng),
}


def build_base(seed: int, curriculum: Sequence[Stage] = CURRICULUM) -> Vlm:
    """A tiny VLM from random weights through the curriculum."""
    vlm = tiny_vlm(tiny_tokenizer(exercises.corpus(), exercises.words_of_the_world()), seed)
    train(vlm, base_batches(vlm.processor, curriculum, seed), sum(s.steps for s in curriculum), LEARNING_RATE)
    return vlm


def spoil(vlm: Vlm, seed: int) -> Vlm:
    """Teach a base the systematic errors, in place."""
    rng = np.random.default_rng([seed, 7])
    pool = scenes_of("train")

    def batches() -> Iterator[list[Encoded]]:
        while True:
            yield [encode(vlm.processor, exercises.mistaken(
                vlm.processor, pick(pool, rng), POLICY_ERRORS, POLICY_ERROR_SHARE, rng
            )) for _ in range(BATCH)]  # fmt: skip

    train(vlm, batches(), POLICY_STEPS, POLICY_LEARNING_RATE)
    return vlm


def train(vlm: Vlm, batches: Iterator[list[Encoded]], steps: int, learning_rate: float) -> None:
    """Weighted SFT: Muon on hidden matrices, AdamW on the rest; warm-up, hold, linear decay to zero."""
    optimizers = _optimizers(vlm.model, learning_rate)
    vlm.model.train()
    started, losses = time.process_time(), []
    for step in range(steps):
        factor = min(1.0, (step + 1) / WARMUP, (steps - step) / (DECAY * steps))
        loss = weighted_loss(vlm.model, collate(next(batches), vlm.processor.pad_id))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            spent = time.process_time() - started
            print(f"step {step + 1}/{steps} loss {np.mean(losses[-50:]):.4f} {spent:.0f} cpu-s", flush=True)
    vlm.model.eval()


def weighted_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the target tokens, by weight. The vocabulary head runs on target positions only."""
    hidden = model.model(**model_inputs(batch)).last_hidden_state[:, :-1]
    weights = batch["weights"][:, 1:]
    is_target = weights > 0
    losses = F.cross_entropy(model.lm_head(hidden[is_target]), batch["labels"][:, 1:][is_target], reduction="none")
    return (losses * weights[is_target]).sum() / weights.sum()


def question_accuracy(vlm: Vlm, split: str, count: int, seed: int) -> dict[str, float]:
    """Share of right answers to open questions, by "image/<fact>" and "video/<fact>", on clean pictures of a split."""
    rng = np.random.default_rng([seed, 11])
    right: dict[str, list[bool]] = {}
    prompts, keys, wanted = [], [], []
    pools: dict[str, Sequence[Scene | Clip]] = {"image": scenes_of(split), "video": clips_of(split)}
    for kind, pool in pools.items():
        for _ in range(count):
            item = pick(pool, rng)
            pixels = render(item, clean_look(rng))
            media = Segment(image=pixels) if kind == "image" else Segment(video=pixels)
            for fact, value in item.facts().items():
                user = [media, Segment(" " + language.ask(fact).text)]
                prompts.append(encode(vlm.processor, chat(vlm.processor, user)))
                keys.append(f"{kind}/{fact}")
                wanted.append(value)
    for key, text, value in zip(keys, generate_text(vlm, prompts, max_new_tokens=3), wanted, strict=True):
        right.setdefault(key, []).append(text.strip() == value)
    return {key: float(np.mean(values)) for key, values in right.items()}


def base_batches(processor: VlmProcessor, curriculum: Sequence[Stage], seed: int) -> Iterator[list[Encoded]]:
    rng = np.random.default_rng([seed, 3])
    for stage in curriculum:
        kinds, shares = list(stage.shares), np.array(list(stage.shares.values()))
        for _ in range(stage.steps):
            picks = rng.choice(len(kinds), size=BATCH, p=shares / shares.sum())
            yield [encode(processor, EXERCISES[kinds[pick]](processor, rng)) for pick in picks]


def _optimizers(model: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = [p for name, p in trained.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(p) for p in hidden}
    rest = [p for p in trained.values() if id(p) not in chosen]
    optimizers = [
        torch.optim.Muon(hidden, lr=learning_rate, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = learning_rate
    return optimizers


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Rebuild the base VLM and the imperfect VLM policy of the shapes world."
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to write vlm/ and vlm_policy/ into")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and exercises (default 0)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    vlm = build_base(arguments.seed)
    save_vlm(vlm, arguments.out / "vlm", dtype=torch.bfloat16)
    print(json.dumps({"base": question_accuracy(vlm, "test", 200, 0)}, indent=1), flush=True)
    save_vlm(spoil(vlm, arguments.seed), arguments.out / "vlm_policy", dtype=torch.bfloat16)
    print(json.dumps({"policy": question_accuracy(vlm, "test", 200, 0)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
