"""DPO of a vision-language model: our trainer beside TRL's DPOTrainer, on the same model, pairs, order and optimizer.

    python -m venv trl && trl/bin/pip install -e . trl==1.16.0 accelerate datasets
    trl/bin/pip install --no-deps torchvision==0.28.0
    python benchmarks/dpo_vs_trl.py --trl-python trl/bin/python            (and again with --trl-head compact)

TRL is no dependency of ours; it runs from an environment of its own. The two sides alternate, each in a process of its own,
on one thread. First the losses and gradient norms of the first three steps must agree within 1e-4 (relative to a norm
above 1); only then are costs told: CPU seconds of a step (median; encoding, collating and optimizer included) and peak
memory. Ours knows the reference's log-probs beforehand: their one-time cost stands apart, per step of the first epoch.

--trl-head compact lets TRL's head skip prompt positions, as it does on a GPU; stock TRL scores every position on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

PRESETS = {
    # text: hidden, intermediate, layers, heads, key-value heads, vocabulary; vision: hidden, intermediate, depth, heads
    "nano": ((64, 176, 2, 2, 1, 1024), (64, 128, 2, 2)),
    "tiny": ((256, 688, 6, 4, 2, 8192), (192, 512, 4, 3)),
}
SPECIAL = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ part.text }}{% endif %}{% endfor %}{% endif %} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
TOLERANCE = 1e-4
BETA, RATE, BETA_2 = 0.1, 1e-4, 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=sys.executable, help="interpreter that can import trl")
    parser.add_argument("--trl-head", choices=["stock", "compact"], default="stock")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--image-side", type=int, default=224, help="pixels; a picture has (side / 28)^2 tokens")
    parser.add_argument("--prompt-words", type=int, default=64)
    parser.add_argument("--answer-words", type=int, nargs=2, default=(24, 64))
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--assets", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        measured = {"ours": run_ours, "trl": run_trl}[options.side](options)
        Path(options.assets, f"{options.side}.json").write_text(json.dumps(measured))
        return
    with tempfile.TemporaryDirectory() as assets:
        save_model(options, Path(assets))
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
        for _ in range(options.repetitions):
            for side, python in (("ours", sys.executable), ("trl", options.trl_python)):
                runs[side].append(run_side(side, python, assets))
        print(json.dumps(report(options, runs), indent=1))


def run_side(side: str, python: str, assets: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, __file__, *sys.argv[1:], "--side", side, "--assets", assets]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{side} failed:\n{finished.stdout}\n{finished.stderr}")
    measured: dict[str, Any] = json.loads(Path(assets, f"{side}.json").read_text())
    return measured


def report(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    ours, theirs = runs["ours"][0], runs["trl"][0]
    for step in range(3):
        for name in ("loss", "grad_norm"):
            a, b = ours[name][step], theirs[name][step]
            if abs(a - b) > TOLERANCE * max(1.0, abs(b)):
                raise SystemExit(f"step {step}: {name} is {a} with ours and {b} with TRL: costs mean nothing.")
    told: dict[str, Any] = {
        "case": {k: v for k, v in vars(options).items() if k in ("preset", "image_side", "batch", "steps", "trl_head")},
        "first_steps": {side: {k: run[0][k][:3] for k in ("loss", "grad_norm")} for side, run in runs.items()},
    }
    for side, repeated in runs.items():
        told[side] = {
            "step_cpu_s": round(statistics.median(run["step_cpu_s"] for run in repeated), 4),
            "peak_rss_mib": round(statistics.median(run["peak_rss_mib"] for run in repeated)),
        }
    told["ours"]["reference_cpu_s_per_step"] = round(statistics.median(r["reference_cpu_s"] for r in runs["ours"]), 4)
    told["times_cheaper"] = round(told["trl"]["step_cpu_s"] / told["ours"]["step_cpu_s"], 2)
    return told


def save_model(options: argparse.Namespace, directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from unified_reward.models.processing import VlmProcessor
    from unified_reward.models.vlm import Vlm, save_vlm

    (hidden, inner, layers, heads, kv_heads, vocabulary), (v_hidden, v_inner, v_depth, v_heads) = PRESETS[
        options.preset
    ]
    words = ["<unk>", "user", "assistant", *(f"w{i}" for i in range(vocabulary - 3 - len(SPECIAL)))]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", pad_token=SPECIAL[0], eos_token=SPECIAL[1],
        additional_special_tokens=SPECIAL[2:], chat_template=TEMPLATE,
    )  # fmt: skip
    processor = VlmProcessor(tokenizer, min_pixels=56 * 56, max_pixels=options.image_side**2)
    rotary = hidden // heads // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6,
                "mrope_section": [rotary - 2 * (rotary * 3 // 8), rotary * 3 // 8, rotary * 3 // 8],
            },
            "bos_token_id": None, "eos_token_id": processor.eos_id, "pad_token_id": processor.pad_id,
        },
        vision_config={
            "depth": v_depth, "hidden_size": v_hidden, "intermediate_size": v_inner, "num_heads": v_heads,
            "out_hidden_size": hidden, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 112, "fullatt_block_indexes": [v_depth - 1],
        },
        tie_word_embeddings=False, image_token_id=processor.image_pad, video_token_id=processor.video_pad,
        vision_start_token_id=processor.vision_start, vision_end_token_id=processor.vision_end,
    )  # fmt: skip
    torch.manual_seed(0)
    save_vlm(Vlm(Qwen2_5_VLForConditionalGeneration(config), processor), directory)


def make_pairs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """In the order of the steps. Pictures of noise, words at random, answers of unlike lengths."""
    rng = np.random.default_rng(0)

    def sentence(low: int, high: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, 900, rng.integers(low, high + 1)))

    side, mean = options.image_side, options.prompt_words
    return [
        {
            "image": rng.integers(0, 255, (side, side, 3), dtype=np.uint8),
            "prompt": sentence(mean * 3 // 4, mean * 5 // 4),
            "chosen": sentence(*options.answer_words),
            "rejected": sentence(*options.answer_words),
        }
        for _ in range(options.steps * options.batch)
    ]


def run_ours(options: argparse.Namespace) -> dict[str, Any]:
    from fsdp_utils.context import DistContext
    from unified_reward.config import TrainLoopConfig
    from unified_reward.models.batching import Segment
    from unified_reward.models.vlm import load_vlm
    from unified_reward.training import loop
    from unified_reward.training.dpo import DpoObjective
    from unified_reward.training.logprobs import TokenScorer
    from unified_reward.training.packing import answer_tree
    from unified_reward.training.reference import reference_logprobs
    from unified_reward.training.sampler import ElasticSampler

    dist = DistContext.init("cpu")
    vlm = load_vlm(options.assets)
    pairs = make_pairs(options)
    began = time.process_time()
    trees = [
        answer_tree(
            vlm.processor, [Segment(image=p["image"]), Segment(" " + p["prompt"])], [p["chosen"], p["rejected"]]
        )
        for p in pairs
    ]
    encoding = (time.process_time() - began) / options.steps
    # Row i of TRL's order is what our sampler takes i-th.
    order = ElasticSampler(len(trees), options.batch, seed=0).peek(0, len(trees))
    placed = [trees[i] for i in np.argsort(order)]
    began = time.process_time()
    known = reference_logprobs(
        TokenScorer(vlm.model), placed, weights_digest="", pad_id=vlm.processor.pad_id, blobs=Memory(), prefix="",
        dist=dist, batch=options.batch,
    )  # fmt: skip
    referring = (time.process_time() - began) / options.steps
    objective = DpoObjective(vlm, placed, known, dist, beta=BETA)
    marks: list[float] = []
    loop.LOG_EVERY = 1
    result = loop.train(
        objective, dataset_size=len(trees), dist=dist, log=lambda *_: marks.append(time.process_time()),
        config=TrainLoopConfig(
            processes=1, steps=options.steps, global_batch=options.batch, learning_rate=RATE, optimizer="adamw",
            warmup_steps=0, decay_fraction=0.0,
        ),
    )  # fmt: skip
    return {
        "loss": [metrics["loss"] for _, metrics in result.history],
        "grad_norm": [metrics["grad_norm"] for _, metrics in result.history],
        "step_cpu_s": encoding + median_step(marks),
        "reference_cpu_s": referring,
        "peak_rss_mib": peak_rss_mib(),
    }


class Memory:
    """A store in a dict."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def head(self, key: str, /) -> object | None:
        return self.blobs.get(key)

    def get(self, key: str, /) -> bytes:
        return self.blobs[key]

    def put_if_absent(self, key: str, data: bytes, /) -> None:
        self.blobs.setdefault(key, data)


def run_trl(options: argparse.Namespace) -> dict[str, Any]:
    import copy

    declare_torchvision_operators()
    import trl.trainer.utils
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature
    from PIL import Image
    from transformers import (
        AutoTokenizer,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        TrainerCallback,
    )
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    if options.trl_head == "compact":
        trl.trainer.utils._use_triton = lambda _device: True  # only decides which positions the head scores
    pixels = {"shortest_edge": 56 * 56, "longest_edge": options.image_side**2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels), video_processor=Qwen2VLVideoProcessor(), chat_template=TEMPLATE,
        tokenizer=AutoTokenizer.from_pretrained(options.assets),
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(options.assets, dtype=torch.float32)
    message = List({"role": Value("string"), "content": Value("string")})
    rows = Dataset.from_list(
        [
            {
                "images": [Image.fromarray(pair["image"])],
                "prompt": [{"role": "user", "content": pair["prompt"]}],
                "chosen": [{"role": "assistant", "content": pair["chosen"]}],
                "rejected": [{"role": "assistant", "content": pair["rejected"]}],
            }
            for pair in make_pairs(options)
        ],
        features=Features({"images": List(ImageFeature()), "prompt": message, "chosen": message, "rejected": message}),
    )
    marks: list[float] = []
    logs: list[dict[str, float]] = []

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                told.append(logs)

    told = logs
    with tempfile.TemporaryDirectory() as output:
        settings = DPOConfig(
            output_dir=output, per_device_train_batch_size=options.batch, max_steps=options.steps, learning_rate=RATE,
            adam_beta2=BETA_2, lr_scheduler_type="constant", warmup_steps=0, logging_steps=1, save_strategy="no",
            report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None, beta=BETA,
            loss_type=["sigmoid"], remove_unused_columns=False, max_grad_norm=1.0, disable_tqdm=True,
            optim="adamw_torch", weight_decay=0.0, train_sampling_strategy="sequential", dataloader_pin_memory=False,
        )  # fmt: skip
        DPOTrainer(
            model=model, ref_model=copy.deepcopy(model), args=settings, train_dataset=rows, processing_class=processor,
            data_collator=DataCollatorForVisionPreference(processor=processor, max_length=None), callbacks=[Marks()],
        ).train()  # fmt: skip
    return {
        "loss": [float(entry["loss"]) for entry in logs],
        "grad_norm": [float(entry["grad_norm"]) for entry in logs],
        "step_cpu_s": median_step(marks),
        "peak_rss_mib": peak_rss_mib(),
    }


def declare_torchvision_operators() -> None:
    """torchvision's wheel is linked with CUDA: beside a CPU torch, importing it fails on two operators it lacks there."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT_ALIVE.append(library)


KEPT_ALIVE: list[Any] = []


def median_step(marks: Sequence[float]) -> float:
    """Seconds between marks, the first two steps left out."""
    return statistics.median(after - before for before, after in pairwise(marks[1:]))


def peak_rss_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
