"""Drawing images: the scheduler's own steps from noise that each image's seed alone decides."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unified_reward.models.diffusion_policy import ImagePolicy, Pixels, PromptEmbeddings

TEXTS = 64  # encoded at once


@dataclass(frozen=True)
class DiffusionSampler:
    """steps: denoising steps. guidance: classifier-free guidance (2207.12598) in the form u + guidance * (c - u); up to 1 it
    is off, as in diffusers.

    batch: images denoised at once. It changes nothing but speed, up to the rounding of matrix products.
    """

    steps: int = 12
    guidance: float = 1.0
    batch: int = 240

    def described(self) -> dict[str, str]:
        """What one needs beside the seed to draw an image again."""
        return {"steps": str(self.steps), "guidance": str(self.guidance)}


def draw_images(
    policy: ImagePolicy, texts: Sequence[str], seeds: Sequence[int], sampler: DiffusionSampler
) -> Iterator[Pixels]:
    """uint8 [b, H, W, 3] for the next b <= sampler.batch of (texts[i], seeds[i]), in order.

    Raises ValueError when their numbers differ.
    """
    if len(texts) != len(seeds):
        raise ValueError(f"{len(texts)} texts, {len(seeds)} seeds: every image needs one of each")
    distinct = list(dict.fromkeys(texts))
    row = {text: i for i, text in enumerate(distinct)}
    with torch.no_grad():
        known = _encode(policy, distinct)
        nothing = policy.unconditional() if sampler.guidance > 1 else None
    for start in range(0, len(texts), sampler.batch):
        rows = torch.tensor([row[text] for text in texts[start : start + sampler.batch]], device=policy.device)
        with torch.no_grad():
            clean = _denoise_all(policy, known.rows(rows), nothing, seeds[start : start + sampler.batch], sampler)
            yield policy.decode_images(clean)


def _encode(policy: ImagePolicy, texts: Sequence[str]) -> PromptEmbeddings:
    """Of any number of texts, TEXTS at once."""
    parts = [policy.encode_prompt(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS)]
    return PromptEmbeddings(torch.cat([part.hidden for part in parts]), torch.cat([part.pooled for part in parts]))


def starting_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 of `shape` on the CPU, the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _denoise_all(
    policy: ImagePolicy, prompts: PromptEmbeddings, nothing: PromptEmbeddings | None, seeds: Sequence[int],
    sampler: DiffusionSampler,
) -> Tensor:  # fmt: skip
    scheduler: Any = type(policy.scheduler).from_config(policy.scheduler.config)  # it counts its steps: one per call
    scheduler.set_timesteps(sampler.steps, device=policy.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    noisy = torch.stack([starting_noise(seed, policy.shape) for seed in seeds]).to(policy.device)
    noisy = noisy * getattr(scheduler, "init_noise_sigma", 1.0)
    generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
    options = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(noisy, time) if hasattr(scheduler, "scale_model_input") else noisy
        output = _guided(policy, scaled, time.expand(len(scaled)), prompts, nothing, sampler.guidance)
        noisy = scheduler.step(output.float(), time, noisy, return_dict=False, **options)[0]
    return noisy


def _guided(
    policy: ImagePolicy, noisy: Tensor, times: Tensor, prompts: PromptEmbeddings, nothing: PromptEmbeddings | None,
    guidance: float,
) -> Tensor:  # fmt: skip
    wanted = policy.predict(noisy, times, prompts)
    if nothing is None:
        return wanted
    unconditional = policy.predict(noisy, times, nothing.rows(torch.zeros(len(noisy), dtype=torch.long)))
    return unconditional + guidance * (wanted - unconditional)
