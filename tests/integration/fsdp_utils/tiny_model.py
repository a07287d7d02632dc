"""A Qwen2.5-VL of 60,000 parameters, and rows for it: with a picture or text alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE, VISION_START, VISION_END = 10, 12, 13
PICTURE_TOKENS = 4  # 16 patches merged 2 by 2


def tiny_config(*, tied: bool = False) -> Qwen2_5_VLConfig:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "fullatt_block_indexes": [1],
        },
        image_token_id=IMAGE, video_token_id=11, vision_start_token_id=VISION_START, vision_end_token_id=VISION_END,
        tie_word_embeddings=tied,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return config


def tiny_model(*, tied: bool = False, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(tiny_config(tied=tied)).float()


def row(seed: int, *, picture: bool) -> dict[str, Tensor]:
    """One row of 12 tokens; ids 20 to 63, pictures of 16 patches."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(20, 64, (1, 12), generator=generator)
    made = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    if picture:
        text[0, :6] = torch.tensor([VISION_START, *[IMAGE] * PICTURE_TOKENS, VISION_END])
        made["pixel_values"] = torch.randn(16, 3 * 2 * 4 * 4, generator=generator)
        made["image_grid_thw"] = torch.tensor([[1, 4, 4]])
    made["mm_token_type_ids"] = (text == IMAGE).long()
    return made


class SummedLoss(nn.Module):
    """The sharded root: rows in, the summed next-token loss out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: list[dict[str, Tensor]]) -> Tensor:
        total = torch.zeros(())
        for inputs in rows:
            logits = self.model(**inputs).logits.float()
            total = total + nn.functional.cross_entropy(logits[0, :-1], inputs["input_ids"][0, 1:], reduction="sum")
        return total


def decoder_units(
    model: Qwen2_5_VLForConditionalGeneration, *, tied: bool = False
) -> list[nn.Module | list[nn.Module]]:
    """Each decoder layer, the embedding, norm and head together; the vision tower is left to the root."""
    language = model.model.language_model
    ends: list[nn.Module | list[nn.Module]] = (
        [[language.embed_tokens, language.norm, model.lm_head]]
        if tied
        else [language.embed_tokens, [language.norm, model.lm_head]]
    )
    return [*language.layers, *ends]
