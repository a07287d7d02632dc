"""The smallest image policy that is a real one: an SD3-style transformer on 32 x 32 pixels with a CLIP text model.

2.4 M parameters. Pictures are cut into patches of 8 pixels, so a step of the denoiser reads 16 tokens and the prompt's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unified_reward.models.diffusion_pixels import PixelPolicy

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
WINDOW = 12  # tokens of a prompt, the two ends included
TEXT_WIDTH = 64


def tiny_image_policy(
    words: Sequence[str], *, side: int = 32, patch: int = 8, width: int = 128, layers: int = 4
) -> PixelPolicy:
    """Random weights, drawn from torch's global generator. words: the vocabulary of prompts, one token each."""
    from diffusers import DDIMScheduler, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tokenizer = word_tokenizer(words)
    text_encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=3 * TEXT_WIDTH, num_hidden_layers=2,
            num_attention_heads=4, projection_dim=TEXT_WIDTH, max_position_embeddings=WINDOW,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    denoiser = SD3Transformer2DModel(
        sample_size=side, patch_size=patch, in_channels=3, out_channels=3, num_layers=layers, attention_head_dim=32,
        num_attention_heads=width // 32, joint_attention_dim=TEXT_WIDTH, caption_projection_dim=width,
        pooled_projection_dim=TEXT_WIDTH, pos_embed_max_size=side // patch,
    )  # fmt: skip
    # "trailing" starts at the last training step; the default, "leading", starts before it and grays backgrounds.
    # Clean pictures are predicted ("sample"): noise or velocity cannot be represented well by so few channels per patch.
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample",
        timestep_spacing="trailing", clip_sample=True,
    )  # fmt: skip
    return PixelPolicy(denoiser.eval(), text_encoder.eval(), tokenizer, scheduler)


def word_tokenizer(words: Sequence[str]) -> Any:
    """One token a word, between <s> and </s>; any other word is <unk>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, unknown, start, end = SPECIAL
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *words))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, unk_token=unknown, bos_token=start, eos_token=end, model_max_length=WINDOW
    )
