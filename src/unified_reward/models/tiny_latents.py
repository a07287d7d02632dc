"""Stable Diffusion XL and 3 in a few thousand parameters with random weights: every part is there, for tests and first looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unified_reward.models.tiny_diffusion import WINDOW, word_tokenizer

WIDTH = 16  # of each text encoder


def tiny_sdxl(words: Sequence[str], *, side: int = 32, turbo: bool = True, prediction: str = "epsilon") -> Any:
    """A StableDiffusionXLPipeline that draws side x side pixels; weights from torch's global generator.

    turbo: with the scheduler of SDXL-Turbo (EulerAncestral, trailing steps), else with that of SDXL (Euler, leading).
    """
    import diffusers

    tokenizer = word_tokenizer(words)
    unet = diffusers.UNet2DConditionModel(
        sample_size=side // 2, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), use_linear_projection=True,
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    kind = diffusers.EulerAncestralDiscreteScheduler if turbo else diffusers.EulerDiscreteScheduler
    scheduler = kind(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction, steps_offset=1,
        timestep_spacing="trailing" if turbo else "leading",
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(side, 4, scaling_factor=0.13025), unet=unet, scheduler=scheduler, tokenizer=tokenizer,
        tokenizer_2=tokenizer, text_encoder=_clip(tokenizer, projected=False), text_encoder_2=_clip(tokenizer),
        add_watermarker=False,
    )  # fmt: skip


def tiny_sd3(words: Sequence[str], *, side: int = 32, t5: bool = True) -> Any:
    """A StableDiffusion3Pipeline that draws side x side pixels. t5: with its third text encoder."""
    import diffusers
    from transformers import T5Config, T5EncoderModel

    tokenizer = word_tokenizer(words)
    width = 2 * WIDTH
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=side // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=width, caption_projection_dim=32, pooled_projection_dim=width,
        pos_embed_max_size=side // 4,
    )  # fmt: skip
    third = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=_vae(side, 4, scaling_factor=1.5305, shift_factor=0.0609), transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=_clip(tokenizer), text_encoder_2=_clip(tokenizer),
        text_encoder_3=third if t5 else None, tokenizer_3=tokenizer if t5 else None,
    )  # fmt: skip


def _clip(tokenizer: Any, *, projected: bool = True) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=3,
        num_attention_heads=2, projection_dim=WIDTH, max_position_embeddings=WINDOW, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _vae(side: int, channels: int, **latents: float) -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=8,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, sample_size=side, **latents,
    ).eval()  # fmt: skip
