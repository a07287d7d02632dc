"""A policy without a VAE: an SD3-type transformer that denoises pixels, one CLIP text encoder. The shapes world's kind.

model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unified_reward.models.diffusion_policy import ImagePolicy, PromptEmbeddings

CLASS_NAME = "PixelDiffusion"
DENOISER = "SD3Transformer2DModel"


class PixelPolicy(ImagePolicy):
    """denoiser: SD3Transformer2DModel on 3 channels. text_encoder: CLIPTextModelWithProjection."""

    def __init__(self, denoiser: nn.Module, text_encoder: nn.Module, tokenizer: Any, scheduler: Any) -> None:
        super().__init__(denoiser, scheduler)
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    @property
    def image_size(self) -> tuple[int, int]:
        _, height, width = self.shape
        return height, width

    @property
    def frozen(self) -> list[nn.Module]:
        return [self.text_encoder]

    def encode_prompt(self, texts: Sequence[str]) -> PromptEmbeddings:
        window = self.text_encoder.config.max_position_embeddings  # type: ignore[union-attr]
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=window, truncation=True, return_tensors="pt"
        )
        encoded = self.text_encoder(tokens["input_ids"].to(self.device))
        return PromptEmbeddings(encoded.last_hidden_state, encoded.text_embeds)

    def unconditional(self) -> PromptEmbeddings:
        return self.encode_prompt([""])

    def to_latents(self, pixels: Tensor) -> Tensor:
        return pixels

    def from_latents(self, clean: Tensor) -> Tensor:
        return clean

    def save(self, directory: Path) -> None:
        parts = {
            "scheduler": ("diffusers", self.scheduler),
            "text_encoder": ("transformers", self.text_encoder),
            "tokenizer": ("transformers", self.tokenizer),
            "transformer": ("diffusers", self.denoiser),
        }
        for name, (_, part) in parts.items():
            part.save_pretrained(str(directory / name))
        index = {name: [library, type(part).__name__] for name, (library, part) in parts.items()}
        (directory / "model_index.json").write_text(json.dumps({"_class_name": CLASS_NAME, **index}, indent=2) + "\n")

    def _forward(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings) -> Tensor:
        output: Tensor = denoiser(noisy, prompts.hidden, prompts.pooled, times, return_dict=False)[0]
        return output


def load_pixels(
    directory: Path, classes: Mapping[str, str], dtype: torch.dtype, frozen_dtype: torch.dtype
) -> PixelPolicy:
    """classes: part -> class name. Raises OSError, ValueError or RuntimeError when a part does not load."""
    import diffusers
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    local = {"local_files_only": True}
    denoiser = getattr(diffusers, classes["transformer"]).from_pretrained(
        directory / "transformer", dtype=dtype, low_cpu_mem_usage=False, **local
    )
    text_encoder = CLIPTextModelWithProjection.from_pretrained(directory / "text_encoder", dtype=frozen_dtype, **local)
    tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer", **local)
    scheduler = getattr(diffusers, classes["scheduler"]).from_pretrained(directory / "scheduler", **local)
    return PixelPolicy(denoiser, text_encoder, tokenizer, scheduler)
