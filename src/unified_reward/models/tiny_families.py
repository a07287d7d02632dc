"""Each family's real architecture in a few thousand parameters with random weights, for tests and for first looks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from unified_reward.models.families import FAMILIES, VISION_END, VISION_START
from unified_reward.models.processing import VlmProcessor
from unified_reward.models.tiny_vlm import tiny_vlm
from unified_reward.models.vlm import Vlm

_TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.07, "bos_token_id": None,
}  # fmt: skip


def tiny_family(model_type: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> Vlm:
    """A small model of one of `families.FAMILIES`. tokenizer: of `tiny_vlm.tiny_tokenizer`; gets the family's tokens."""
    if model_type == "qwen2_5_vl":
        return tiny_vlm(tokenizer, seed)
    family = FAMILIES[model_type]
    tokenizer.add_special_tokens({"extra_special_tokens": [*family.specials]}, replace_extra_special_tokens=False)
    torch.manual_seed(seed)
    return _qwen3(tokenizer) if model_type == "qwen3_vl" else _llava(tokenizer)


def _qwen3(tokenizer: PreTrainedTokenizerFast) -> Vlm:
    processor = VlmProcessor(
        tokenizer, patch_size=4, min_pixels=64, max_pixels=1024, image_mean=(0.5,) * 3, image_std=(0.5,) * 3,
        family=FAMILIES["qwen3_vl"],
    )  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**_TEXT, **_tokens(processor), "head_dim": 16, "rope_parameters": rope},
        vision_config={
            "depth": 3, "hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "patch_size": 4,
            "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.07,
        },
        tie_word_embeddings=False, image_token_id=processor.image_pad, video_token_id=processor.video_pad,
        vision_start_token_id=processor.text_ids(VISION_START)[0],
        vision_end_token_id=processor.text_ids(VISION_END)[0],
    )  # fmt: skip
    return Vlm(Qwen3VLForConditionalGeneration(config), processor)


def _llava(tokenizer: PreTrainedTokenizerFast) -> Vlm:
    processor = VlmProcessor(
        tokenizer, patch_size=8, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, family=FAMILIES["llava_onevision"],
        square=32,
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        text_config={**_TEXT, **_tokens(processor), "model_type": "qwen2"},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        image_token_index=processor.image_pad, video_token_index=processor.video_pad,
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]],
    )  # fmt: skip
    return Vlm(LlavaOnevisionForConditionalGeneration(config), processor)


def _tokens(processor: VlmProcessor) -> dict[str, Any]:
    return {
        "vocab_size": len(processor.tokenizer), "eos_token_id": processor.eos_id, "pad_token_id": processor.pad_id,
    }  # fmt: skip
