"""Image policies from and to diffusers directories; `model_index.json` says which kind one holds.

StableDiffusionXLPipeline, StableDiffusion3Pipeline   as published on the hub (`diffusion_latents`)
PixelDiffusion                                        without a VAE (`diffusion_pixels`)
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unified_reward.errors import UserError
from unified_reward.models.diffusion_latents import DENOISERS, SD3, SDXL, load_latents
from unified_reward.models.diffusion_pixels import CLASS_NAME, DENOISER, load_pixels
from unified_reward.models.diffusion_policy import ImagePolicy, Pixels, PromptEmbeddings
from unified_reward.models.place import inference_dtype

__all__ = ["ImagePolicy", "Pixels", "PromptEmbeddings", "load_image_policy", "save_image_policy"]

INDEX = "model_index.json"
KINDS = {CLASS_NAME: ("transformer", DENOISER), **DENOISERS}  # pipeline -> its denoiser: part and class
SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip


def load_image_policy(
    directory: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> ImagePolicy:
    """A policy from a diffusers directory, local only, in evaluation mode.

    dtype: of the denoiser; text encoders and VAE, never trained, are bfloat16 on a GPU and float32 on a CPU.
    Raises UserError when the directory holds none that can be driven here.
    """
    import diffusers.utils
    import transformers.utils

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()  # of reading weights: progress is told by the stage
    directory = Path(directory)
    kind, classes = _read_index(directory)
    try:
        policy = (
            load_pixels(directory, classes, dtype, inference_dtype(device)) if kind == CLASS_NAME
            else load_latents(directory, kind, classes, dtype, inference_dtype(device))
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            field="model", value=directory, why=f"a part of it does not load ({error})",
            fix="Name a complete diffusers directory, or download it again.",
        ) from error  # fmt: skip
    _check_schedule(policy.scheduler.config)
    for module in (policy.denoiser, *policy.frozen):
        module.to(device).eval()
    for module in policy.frozen:
        module.requires_grad_(False)
    return policy


def save_image_policy(policy: ImagePolicy, directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a diffusers directory of safetensors. dtype: of the saved weights (None: as they are in memory)."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if dtype is not None:
        policy = copy.deepcopy(policy)
        for module in (policy.denoiser, *policy.frozen):
            cast(module, dtype)
    policy.save(directory)


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """All of its floating-point weights, in place; diffusers' own `to` warns where nothing is wrong."""
    return nn.Module.to(module, dtype=dtype)


def _read_index(directory: Path) -> tuple[str, dict[str, str]]:
    """(pipeline's class name, part -> class name), of classes this package knows how to drive."""
    try:
        index = json.loads((directory / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            field="model", value=directory, why=f"{INDEX} cannot be read ({error})",
            fix=f"Name a diffusers directory: one with {INDEX} and a folder for each part.",
        ) from None  # fmt: skip
    kind = str(index.get("_class_name"))
    if kind not in KINDS:
        raise UserError(
            field=f"{INDEX} _class_name", value=kind, why="pipelines of this class cannot be driven here",
            fix=f"Use a checkpoint of {SDXL} (SDXL, SDXL-Turbo), {SD3} or {CLASS_NAME}.",
        )  # fmt: skip
    part, denoiser = KINDS[kind]
    classes = {name: value[1] or "" for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    _require(classes, part, (denoiser,))
    _require(classes, "scheduler", SCHEDULERS)
    return kind, classes


def _require(classes: Mapping[str, str], part: str, known: tuple[str, ...]) -> None:
    if classes.get(part, "") not in known:
        raise UserError(
            field=f"model.{part}", value=classes.get(part) or None, why="this class cannot be driven here",
            fix=f"Use {'one of ' if len(known) > 1 else ''}{', '.join(known)}.",
        )  # fmt: skip


def _check_schedule(config: Any) -> None:
    if config.get("use_dynamic_shifting") or config.get("timestep_type") == "continuous":
        field = "use_dynamic_shifting" if config.get("use_dynamic_shifting") else "timestep_type"
        raise UserError(
            field=f"model.scheduler.{field}", value=config[field], why="its times depend on more than the step",
            fix="Use a scheduler with a fixed shift and discrete timesteps.",
        )  # fmt: skip
