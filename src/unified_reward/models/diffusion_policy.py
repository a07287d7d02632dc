"""A text-to-image policy as the rest of the package sees it, whatever checkpoint it came from.

    encode_prompt  unconditional      text   -> what the denoiser is told
    to_pixels  to_latents             images -> what is denoised (pixels themselves, or the latents of a VAE)
    predict                           one forward of the denoiser
    decode_images                     what was denoised -> images

Only the denoiser is ever trained; `frozen` lists the rest. Sizes are the checkpoint's own: nothing is scaled or cropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unified_reward.models.noise_schedule import NoiseSchedule

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PromptEmbeddings:
    """hidden: [B, tokens, width], one vector per token; pooled: [B, width], one per text."""

    hidden: Tensor
    pooled: Tensor

    def rows(self, indices: Tensor) -> PromptEmbeddings:
        return PromptEmbeddings(self.hidden[indices], self.pooled[indices])

    def to(self, dtype: torch.dtype) -> PromptEmbeddings:
        return PromptEmbeddings(self.hidden.to(dtype), self.pooled.to(dtype))


class ImagePolicy(ABC):
    """denoiser: what is trained. scheduler: how images are drawn, and what the denoiser predicts.

    compute_dtype: of the denoiser's inputs and outputs; that of its weights, unless sharding casts them on the way.
    """

    def __init__(self, denoiser: nn.Module, scheduler: Any) -> None:
        self.denoiser, self.scheduler = denoiser, scheduler
        self.compute_dtype = next(denoiser.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what is denoised."""
        config: Any = self.denoiser.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images, in pixels."""

    @property
    @abstractmethod
    def frozen(self) -> list[nn.Module]:
        """The modules beside the denoiser: text encoders, VAE."""

    @cached_property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(self.scheduler)

    @abstractmethod
    def encode_prompt(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Row b is texts[b]. Texts longer than an encoder's window are cut."""

    @abstractmethod
    def unconditional(self) -> PromptEmbeddings:
        """One row: what classifier-free guidance is guided away from."""

    def predict(
        self, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings, *, denoiser: nn.Module | None = None
    ) -> Tensor:
        """The denoiser's output in `compute_dtype`: [B, C, H, W] as `noisy`. times: [B] float32 of `NoiseSchedule.times`.

        denoiser: another one of the same kind, a reference say.
        """
        dtype = self.compute_dtype
        return self._forward(self.denoiser if denoiser is None else denoiser, noisy.to(dtype), times, prompts.to(dtype))

    def to_pixels(self, images: Pixels) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]. Raises ValueError when the size is not the model's."""
        if images.shape[1:] != (*self.image_size, 3):
            raise ValueError(f"images have shape {images.shape[1:]}, the policy draws {(*self.image_size, 3)}")
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    @abstractmethod
    def to_latents(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> float32 [B, *shape]; without gradient."""

    @abstractmethod
    def from_latents(self, clean: Tensor) -> Tensor:
        """[B, *shape] -> [B, 3, H, W] in [-1, 1], roughly."""

    def decode_images(self, clean: Tensor) -> Pixels:
        """[B, *shape] -> uint8 [B, H, W, 3]."""
        pixels = (self.from_latents(clean).float() + 1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        return np.ascontiguousarray(pixels.to(torch.uint8).cpu().numpy())

    def shard_units(self) -> list[nn.Module | list[nn.Module]]:
        """What FSDP gathers at once: transformer blocks and, in a U-Net, residual blocks; the rest stays with the root."""
        from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
        from diffusers.models.resnet import ResnetBlock2D

        kinds = (BasicTransformerBlock, JointTransformerBlock, ResnetBlock2D)
        return [module for module in self.denoiser.modules() if isinstance(module, kinds)]

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write a diffusers directory of safetensors."""

    @abstractmethod
    def _forward(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor: ...
