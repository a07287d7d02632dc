"""A text-to-image policy: a diffusers denoiser with its text encoder, tokenizer and scheduler, in a diffusers directory.

    model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/

The rest of the package sees only `encode_prompt`, `predict`, `encode_images`, `decode_images` and `shard_units`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unified_reward.errors import UserError
from unified_reward.models.noise_schedule import NoiseSchedule

INDEX = "model_index.json"
COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "transformer")
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "FlowMatchEulerDiscreteScheduler")
DENOISERS = ("SD3Transformer2DModel",)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PromptEmbeddings:
    """hidden: [B, tokens, width], one vector per token; pooled: [B, width of the projection]."""

    hidden: Tensor
    pooled: Tensor

    def rows(self, indices: Tensor) -> PromptEmbeddings:
        return PromptEmbeddings(self.hidden[indices], self.pooled[indices])


@dataclass
class ImagePolicy:
    """denoiser: SD3Transformer2DModel on pixels; scheduler: how images are drawn, and what the denoiser predicts."""

    denoiser: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what is denoised."""
        config: Any = self.denoiser.config
        return config.in_channels, config.sample_size, config.sample_size

    @cached_property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(self.scheduler)

    def encode_prompt(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Row b is texts[b]; "" is the unconditional prompt. Texts longer than the encoder's window are cut."""
        window = self.text_encoder.config.max_position_embeddings  # type: ignore[union-attr]
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=window, truncation=True, return_tensors="pt"
        )
        encoded = self.text_encoder(tokens["input_ids"].to(self.device))
        return PromptEmbeddings(encoded.last_hidden_state, encoded.text_embeds)

    def predict(self, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor:
        """The denoiser's output: [B, C, H, W] as `noisy`. times: [B], on the scale of `NoiseSchedule.times`."""
        return denoise(self.denoiser, noisy, times, prompts)

    def encode_images(self, images: Pixels) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, C, H, W] in [-1, 1]. Raises ValueError when the size is not the model's."""
        channels, height, width = self.shape
        if images.shape[1:] != (height, width, channels):
            raise ValueError(f"images have shape {images.shape[1:]}, the policy draws {(height, width, channels)}")
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    def decode_images(self, clean: Tensor) -> Pixels:
        """[B, C, H, W] in [-1, 1] -> uint8 [B, H, W, 3]."""
        pixels = (clean.float() + 1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        return np.ascontiguousarray(pixels.to(torch.uint8).cpu().numpy())

    def shard_units(self) -> list[nn.Module | list[nn.Module]]:
        """What FSDP gathers at once: the transformer's blocks; the rest stays with the root."""
        return list(self.denoiser.transformer_blocks)  # type: ignore[arg-type]


def denoise(denoiser: nn.Module, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor:
    """`ImagePolicy.predict` for any denoiser of its kind: a reference model, or one sharded inside a root module."""
    output: Tensor = denoiser(noisy, prompts.hidden, prompts.pooled, times, return_dict=False)[0]
    return output


def load_image_policy(
    directory: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> ImagePolicy:
    """A policy from a diffusers directory, local only, in evaluation mode. Raises UserError when it is none."""
    import diffusers
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    directory = Path(directory)
    index = _read_index(directory)
    options = {"local_files_only": True, "torch_dtype": dtype}
    try:
        denoiser = getattr(diffusers, index["transformer"]).from_pretrained(
            directory / "transformer", low_cpu_mem_usage=False, **options
        )
        text_encoder = CLIPTextModelWithProjection.from_pretrained(
            directory / "text_encoder", local_files_only=True, dtype=dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer", local_files_only=True)
        scheduler = getattr(diffusers, index["scheduler"]).from_pretrained(
            directory / "scheduler", local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            field="model", value=directory, why=f"a part of it does not load ({error})",
            fix="Name a complete diffusers directory, or download it again.",
        ) from error  # fmt: skip
    return ImagePolicy(denoiser.to(device).eval(), text_encoder.to(device).eval(), tokenizer, scheduler)


def save_image_policy(policy: ImagePolicy, directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a diffusers directory of safetensors. dtype: of the saved weights (None: as they are in memory)."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in (("transformer", policy.denoiser), ("text_encoder", policy.text_encoder)):
        _save_module(model, directory / name, dtype)
    policy.tokenizer.save_pretrained(str(directory / "tokenizer"))
    policy.scheduler.save_pretrained(str(directory / "scheduler"))
    parts = {
        "scheduler": ["diffusers", type(policy.scheduler).__name__],
        "text_encoder": ["transformers", type(policy.text_encoder).__name__],
        "tokenizer": ["transformers", type(policy.tokenizer).__name__],
        "transformer": ["diffusers", type(policy.denoiser).__name__],
    }
    (directory / INDEX).write_text(json.dumps({"_class_name": "PixelDiffusion", **parts}, indent=2) + "\n")


def _save_module(model: Any, directory: Path, dtype: torch.dtype | None) -> None:
    if dtype is None:
        model.save_pretrained(str(directory))
        return
    import copy

    copy.deepcopy(model).to(dtype).save_pretrained(str(directory))


def _read_index(directory: Path) -> dict[str, str]:
    """Component -> class name, of classes this package knows how to drive."""
    fix = f"Name a diffusers directory with {INDEX}, scheduler, text_encoder, tokenizer and transformer."
    try:
        index = json.loads((directory / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise UserError(field="model", value=directory, why=f"{INDEX} cannot be read ({error})", fix=fix) from None
    names = {part: (index.get(part) or ["", ""])[1] for part in COMPONENTS}
    for part, known in (("transformer", DENOISERS), ("scheduler", SCHEDULERS)):
        if names[part] not in known:
            raise UserError(
                field=f"model.{part}", value=names[part] or None, why="this class cannot be driven here",
                fix=f"Use one of {', '.join(known)}.",
            )  # fmt: skip
    return names
