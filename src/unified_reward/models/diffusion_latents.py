"""Policies that denoise the latents of a VAE: Stable Diffusion XL (SDXL-Turbo too) and Stable Diffusion 3.

A diffusers pipeline holds the parts, reads and writes them and encodes the prompts; it is never called to draw, since
`diffusion_sampler` does that for every kind of policy, with sharded weights too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unified_reward.errors import UserError
from unified_reward.models.diffusion_policy import ImagePolicy, PromptEmbeddings

SDXL, SD3 = "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"
DENOISERS = {SDXL: ("unet", "UNet2DConditionModel"), SD3: ("transformer", "SD3Transformer2DModel")}


class LatentPolicy(ImagePolicy):
    """pipeline: a diffusers pipeline with a VAE (AutoencoderKL) and text encoders."""

    def __init__(self, denoiser: nn.Module, pipeline: Any) -> None:
        super().__init__(denoiser, pipeline.scheduler)
        self.pipeline = pipeline
        self.vae: Any = pipeline.vae

    @property
    def image_size(self) -> tuple[int, int]:
        _, height, width = self.shape
        factor: int = self.pipeline.vae_scale_factor
        return height * factor, width * factor

    @property
    def frozen(self) -> list[nn.Module]:
        parts = self.pipeline.components.values()
        return [part for part in parts if isinstance(part, nn.Module) and part is not self.denoiser]

    def encode_prompt(self, texts: Sequence[str]) -> PromptEmbeddings:
        hidden, _, pooled, _ = self._encode(texts, guided=False)
        return PromptEmbeddings(hidden, pooled)

    def unconditional(self) -> PromptEmbeddings:
        _, hidden, _, pooled = self._encode([""], guided=True)
        return PromptEmbeddings(hidden, pooled)

    @torch.no_grad()
    def to_latents(self, pixels: Tensor) -> Tensor:
        # The mean of the VAE's posterior, not a draw from it: an image then has one latent on every rank and in every step.
        encoded: Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode().float()
        shift, scale = _normal(self.vae.config, encoded)
        return (encoded - shift) / scale

    @torch.no_grad()
    def from_latents(self, clean: Tensor) -> Tensor:
        shift, scale = _normal(self.vae.config, clean)
        decoded: Tensor = self.vae.decode((clean * scale + shift).to(self.vae.dtype), return_dict=False)[0]
        return decoded

    def save(self, directory: Path) -> None:
        self.pipeline.save_pretrained(str(directory))

    @abstractmethod
    def _encode(self, texts: Sequence[str], *, guided: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(hidden, the same of no prompt, pooled, the same of no prompt); those of no prompt only when guided."""


class SdxlPolicy(LatentPolicy):
    """denoiser: UNet2DConditionModel, also told the size that an image has (2307.01952, section 2.2)."""

    def _encode(self, texts: Sequence[str], *, guided: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded: tuple[Tensor, Tensor, Tensor, Tensor] = self.pipeline.encode_prompt(
            list(texts), device=self.device, do_classifier_free_guidance=guided
        )
        return encoded

    def _forward(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor:
        size = self.image_size
        told = noisy.new_tensor([*size, 0, 0, *size]).expand(len(noisy), 6)  # original size, corner of the crop, size
        output: Tensor = denoiser(
            noisy, times, encoder_hidden_states=prompts.hidden,
            added_cond_kwargs={"text_embeds": prompts.pooled, "time_ids": told}, return_dict=False,
        )[0]  # fmt: skip
        return output


class Sd3Policy(LatentPolicy):
    """denoiser: SD3Transformer2DModel. A checkpoint without its T5 encoder works: its tokens are then zeros."""

    def _encode(self, texts: Sequence[str], *, guided: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded: tuple[Tensor, Tensor, Tensor, Tensor] = self.pipeline.encode_prompt(
            list(texts), None, None, device=self.device, do_classifier_free_guidance=guided
        )
        return encoded

    def _forward(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor:
        output: Tensor = denoiser(noisy, prompts.hidden, prompts.pooled, times, return_dict=False)[0]
        return output


def load_latents(
    directory: Path, class_name: str, classes: Mapping[str, str], dtype: torch.dtype, frozen_dtype: torch.dtype
) -> LatentPolicy:
    """class_name: SDXL or SD3. classes: part -> class name, "" for one that was left out.

    Raises OSError, ValueError or RuntimeError when a part does not load, UserError when one cannot be driven here.
    """
    import diffusers

    part, _ = DENOISERS[class_name]
    left_out = {name: None for name, value in classes.items() if not value}  # as SD3 is published without its T5
    pipeline = getattr(diffusers, class_name).from_pretrained(
        directory, dtype={part: dtype, "default": frozen_dtype}, variant=_variant(directory / part),
        local_files_only=True, low_cpu_mem_usage=False, **left_out,
    )  # fmt: skip
    denoiser = getattr(pipeline, part)
    _check(denoiser.config, pipeline)
    return (SdxlPolicy if class_name == SDXL else Sd3Policy)(denoiser, pipeline)


def _normal(config: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """(shift, scale) with latent = (encoded - shift) / scale, as the VAE's config says it."""
    scale = 1 / config.scaling_factor
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or deviation is None:
        return getattr(config, "shift_factor", None) or 0.0, scale
    return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1) * scale


def _variant(folder: Path) -> str | None:
    """fp16 where a download took only those files."""
    weights = [path.name for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    return "fp16" if weights and all(".fp16." in name for name in weights) else None


def _check(config: Any, pipeline: Any) -> None:
    fix = "Use a text-to-image checkpoint of Stable Diffusion XL, SDXL-Turbo or Stable Diffusion 3."
    channels = pipeline.vae.config.latent_channels
    if config.in_channels != channels:
        raise UserError(field="model.in_channels", value=config.in_channels, fix=fix,
                        why=f"its VAE has {channels} channels: it is told more than a text (an image, a mask)")  # fmt: skip
    if getattr(config, "time_cond_proj_dim", None) is not None:
        raise UserError(field="model.time_cond_proj_dim", value=config.time_cond_proj_dim, fix=fix,
                        why="a denoiser that is told the guidance (a latent consistency model) cannot be driven here")  # fmt: skip
