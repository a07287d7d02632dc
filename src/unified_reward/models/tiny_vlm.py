"""A Qwen2.5-VL of 0.8 M parameters and its byte-level BPE, built from nothing: the preset of the shapes world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from unified_reward.models.processing import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, VlmProcessor
from unified_reward.models.vlm import Vlm

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [PAD, TURN, END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
PATCH, MERGE, SIDE = 4, 2, 32


def tiny_tokenizer(corpus: Iterable[str], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which each of `words`, with a space before it, is one token; any other text is spelled in bytes.

    Raises ValueError when a word is not, which means that the corpus does not hold it.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False,
        additional_special_tokens=[t for t in SPECIAL if t not in (PAD, END)], chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )  # fmt: skip
    split = [w for w in words if len(tokenizer.encode(" " + w, add_special_tokens=False)) != 1]
    if split:
        raise ValueError(f"not single tokens: {', '.join(split)}")
    return tokenizer


def tiny_vlm(tokenizer: PreTrainedTokenizerFast, seed: int) -> Vlm:
    """Random weights. 16 tokens a picture of 32 x 32, 32 tokens a clip of 4 such frames; larger media are scaled down."""
    processor = VlmProcessor(
        tokenizer, patch_size=PATCH, temporal_patch_size=2, merge_size=MERGE, min_pixels=(PATCH * MERGE) ** 2,
        max_pixels=SIDE * SIDE, image_mean=(0.5,) * 3, image_std=(0.25,) * 3, tokens_per_second=2.0,
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "initializer_range": 0.07, "tie_word_embeddings": True, "bos_token_id": None,
            "eos_token_id": processor.eos_id, "pad_token_id": processor.pad_id,
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "num_heads": 4, "intermediate_size": 176, "patch_size": PATCH,
            "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 128, "window_size": SIDE,
            "fullatt_block_indexes": [0, 1], "tokens_per_second": 2, "initializer_range": 0.07,
        },
        tie_word_embeddings=True, initializer_range=0.07,
        image_token_id=processor.image_pad, video_token_id=processor.video_pad,
        vision_start_token_id=processor.text_ids(VISION_START)[0],
        vision_end_token_id=processor.text_ids(VISION_END)[0],
    )  # fmt: skip
    torch.manual_seed(seed)
    return Vlm(Qwen2_5_VLForConditionalGeneration(config), processor)
