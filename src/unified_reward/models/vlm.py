"""A vision-language model with its processor: load, save, and write text for a batch of prompts.

`generate_text` runs each distinct prompt through the model once however many samples are drawn of it, pads on the left,
drops rows as they end, and draws row by row from seeds of their own, so that a sample does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, DynamicCache, PreTrainedModel
from transformers.utils import logging

from unified_reward.errors import UserError
from unified_reward.models.batching import Encoded, collate
from unified_reward.models.families import FAMILIES, family_of
from unified_reward.models.processing import VlmProcessor

FORWARD_KEYS = (
    "input_ids", "attention_mask", "position_ids", "pixel_values", "image_grid_thw", "pixel_values_videos",
    "video_grid_thw",
)  # fmt: skip
TEXT_KEYS = FORWARD_KEYS[:3]

logging.disable_progress_bar()  # of reading and writing weights: progress is told by the stage


@dataclass
class Vlm:
    """model: of one of `families.FAMILIES`. files: where its weights are still to be read from (`load_vlm` on meta)."""

    model: PreTrainedModel
    processor: VlmProcessor
    files: Path | None = None


def load_vlm(
    directory: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", *, meta: bool = False
) -> Vlm:
    """A checkpoint directory of one of `families.FAMILIES`, local only, in evaluation mode.

    meta: the shape of the model without memory; `training.loop` shards it, and each rank reads its own part.
    Raises UserError when it is none.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise UserError(field="model", value=directory, why="it has no config.json",
                        fix=f"Name a Hugging Face checkpoint directory of {', '.join(FAMILIES)}.")  # fmt: skip
    processor = VlmProcessor.load(directory)
    model_class, options = processor.family.model_class, {"attn_implementation": "sdpa"}
    if meta:
        config = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=dtype, **options)
        return Vlm(model.eval(), processor, directory)
    try:
        model = model_class.from_pretrained(
            str(directory), dtype=dtype, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(field="model", value=directory, why=f"its weights do not load ({error})",
                        fix=f"Name a complete checkpoint directory of {', '.join(FAMILIES)}.") from error  # fmt: skip
    return Vlm(model.to(device).eval(), processor)


def save_vlm(vlm: Vlm, directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write config, safetensors, tokenizer and preprocessor files. dtype: of the saved weights; None = as they are."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = vlm.model.state_dict()
    if dtype is not None:
        cast = {value.data_ptr(): value.to(dtype) for value in state.values()}  # tied weights stay one tensor
        state = {name: cast[value.data_ptr()] for name, value in state.items()}
    vlm.model.save_pretrained(str(directory), state_dict=state)
    vlm.processor.save(directory)


def model_inputs(batch: dict[str, Tensor], device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The part of a collated batch that the model's forward takes."""
    return {key: batch[key].to(device) for key in FORWARD_KEYS if key in batch}


@torch.inference_mode()
def generate_text(
    vlm: Vlm, prompts: Sequence[Encoded], *, max_new_tokens: int, temperature: float = 0.0, stop: Sequence[str] = (),
    seeds: Sequence[int] | None = None, batch: int = 256,
) -> list[str]:  # fmt: skip
    """What the model writes after each prompt, special tokens left out.

    temperature: 0 = greedy; else seeds[i] alone decides the draws of prompts[i]. stop: a text that ends with one of these
    ends there, the stop included. batch: rows at once. The same `Encoded` object given several times is read once.
    Raises ValueError when seeds are missing or their number is not that of the prompts.
    """
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError("sampling needs one seed for each prompt")
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), id(prompts[i])))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        draws = None
        if temperature > 0 and seeds is not None:
            draws = np.stack([np.random.default_rng(seeds[i]).random(max_new_tokens) for i in rows])
        written = _generate(vlm, [prompts[i] for i in rows], max_new_tokens, temperature, stop, draws)
        for i, text in zip(rows, written, strict=True):
            texts[i] = text
    return texts


def _generate(
    vlm: Vlm, prompts: Sequence[Encoded], max_new_tokens: int, temperature: float, stop: Sequence[str],
    draws: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None,
) -> list[str]:  # fmt: skip
    device = vlm.model.device
    unique = list({id(p): p for p in prompts}.values())
    index = {id(p): i for i, p in enumerate(unique)}
    inputs = model_inputs(collate(unique, vlm.processor.pad_id, side="left"), device)
    family, cache = family_of(vlm.model), DynamicCache(config=vlm.model.config.text_config)
    seen = {key: inputs[key] for key in TEXT_KEYS} | {"position_ids": family.positions(inputs["position_ids"])}
    seen |= family.media(vlm.model.model, inputs)
    logits = vlm.model(**seen, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    copies = torch.tensor([index[id(p)] for p in prompts], device=device)
    logits, mask = logits[copies], inputs["attention_mask"][copies]
    positions = inputs["position_ids"][:, :, -1:][:, copies]
    if len(unique) < len(prompts):
        cache.batch_select_indices(copies)

    written: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    alive = list(range(len(prompts)))
    for step in range(max_new_tokens):
        tokens = _choose(logits, temperature, None if draws is None else draws[alive, step])
        going = []
        for row, (i, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            if token == vlm.processor.eos_id:
                continue
            written[i].append(token)
            if not (stop and vlm.processor.decode(written[i]).endswith(tuple(stop))):
                going.append(row)
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) < len(alive):
            kept = torch.tensor(going, device=device)
            cache.batch_select_indices(kept)
            tokens, mask, positions = tokens[kept], mask[kept], positions[:, kept]
            alive = [alive[row] for row in going]
        positions = positions + 1
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        logits = vlm.model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=family.positions(positions),
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    for i, ids in enumerate(written):
        texts[i] = vlm.processor.decode(ids)
    return texts


def _choose(logits: Tensor, temperature: float, draws: np.ndarray[tuple[int], np.dtype[np.float64]] | None) -> Tensor:
    """Next token of each row: the likeliest, or the one in whose stretch of the cumulative distribution the draw falls."""
    if draws is None:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    targets = torch.from_numpy(draws).to(cumulative) * cumulative[:, -1]
    return torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
