"""How each family of vision-language models lays media out: patches, placeholder tokens, positions, forward arguments.

What differs between Qwen2.5-VL, Qwen3-VL and LLaVA-OneVision stands here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

Grid = tuple[int, int, int]
Ids = Callable[[str], list[int]]
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"


@dataclass(frozen=True)
class Medium:
    """grid: (t, h, w) in patches. ticks: positions between temporal patches. seconds: when each of them is seen."""

    grid: Grid
    video: bool
    ticks: float = 1.0
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Placed:
    """A medium in the row of tokens. is_medium[i]: token i stands for a vision feature.

    positions: int64 [3, L] from 0 on; span: how far the next token's position lies beyond the first.
    """

    ids: list[int]
    is_medium: list[bool]
    positions: NDArray[np.int64]
    span: int


class Qwen25:
    """Qwen2.5-VL: a clip is one block of tokens, whose time axis advances in seconds (arXiv 2502.13923, 2.1.2)."""

    model_type = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    processor_class, image_processor = "Qwen2_5_VLProcessor", "Qwen2VLImageProcessor"
    image_token, video_token = "<|image_pad|>", "<|video_pad|>"
    specials: tuple[str, ...] = (VISION_START, VISION_END, image_token, video_token)
    square = False
    mrope = True

    def place(self, medium: Medium, merge: int, ids: Ids) -> Placed:
        """merge: patches to a token along each side. ids: tokens of a text as it stands."""
        token = self.video_token if medium.video else self.image_token
        return _block(medium.grid, merge, medium.ticks, ids, token)

    def attention(self, visible: Tensor) -> Any:
        """`visible` (bool or additive, [B, 1, L, L]) as the model's forward takes it."""
        return {"full_attention": visible}

    def positions(self, position_ids: Tensor) -> Tensor:
        """[3, B, L] as the model's forward takes it."""
        return position_ids

    def media(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of the forward of `model` (without head) for the media of a batch; runs inside its FSDP root."""
        del model
        return {key: inputs[key] for key in MEDIA_KEYS if key in inputs}

    def features(self, model: Any, pixels: Tensor, grids: Sequence[Grid], *, video: bool) -> list[Tensor]:
        """What `model` (without head) sees of each picture or clip, [levels, tokens, H].

        Level 0 stands for the placeholder tokens; level i is added to them after the language model's i-th layer.
        pixels: of all media in a row, as `collate` puts them; grids: one for each medium.
        """
        return [seen[None] for seen in self._see(model, pixels, grids, video).pooler_output]

    def _see(self, model: Any, pixels: Tensor, grids: Sequence[Grid], video: bool) -> Any:
        see = model.get_video_features if video else model.get_image_features
        return see(pixels, torch.tensor(grids, device=pixels.device), return_dict=True)

    def vision(self, model: Any) -> Any:
        """The module that sees, projection included. model: the whole one."""
        return model.model.visual

    def vision_blocks(self, model: Any) -> Sequence[Any]:
        return list(model.model.visual.blocks)

    def vision_prefixes(self) -> tuple[str, ...]:
        """What the names of its parameters begin with, in the whole model."""
        return ("model.visual.",)


class Qwen3(Qwen25):
    """Qwen3-VL: every temporal patch of a clip is a block of its own after its time in words (arXiv 2511.21631, 2)."""

    model_type = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    processor_class, image_processor = "Qwen3VLProcessor", "Qwen2VLImageProcessorFast"

    def place(self, medium: Medium, merge: int, ids: Ids) -> Placed:
        if not medium.video:
            return super().place(medium, merge, ids)
        parts: list[Placed] = []
        for second in medium.seconds:
            parts.append(_text(ids(f"<{second:.1f} seconds>")))
            parts.append(_block((1, *medium.grid[1:]), merge, 1.0, ids, self.video_token))
        return _joined(parts)

    def attention(self, visible: Tensor) -> Any:
        return visible

    def features(self, model: Any, pixels: Tensor, grids: Sequence[Grid], *, video: bool) -> list[Tensor]:
        seen = self._see(model, pixels, grids, video)
        levels = zip(seen.pooler_output, *seen.deepstack_features, strict=True)  # DeepStack, arXiv 2406.04334
        return [torch.stack(medium) for medium in levels]


class LlavaOneVision(Qwen25):
    """LLaVA-OneVision with one tile a picture: padded to a square, as the paper's records of several pictures are.

    (arXiv 2408.03326, 3.2: the multi-image setting; UnifiedReward's loader: "pad".) A clip's frames are pooled 2 x 2.
    """

    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class, image_processor = "LlavaOnevisionProcessor", "LlavaOnevisionImageProcessor"
    image_token, video_token = "<image>", "<video>"
    specials = (image_token, video_token)
    square = True
    mrope = False

    def place(self, medium: Medium, merge: int, ids: Ids) -> Placed:  # noqa: ARG002  (its own merge is fixed)
        t, h, w = medium.grid
        count = t * -(-h // 2) * -(-w // 2) if medium.video else t * h * w
        token = ids(self.video_token if medium.video else self.image_token)
        placed = _text(token * (count + 1))  # the last one is the model's own line feed
        return Placed(placed.ids, [True] * len(placed.ids), placed.positions, placed.span)

    def positions(self, position_ids: Tensor) -> Tensor:
        return position_ids[0]

    def media(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "pixel_values" in inputs:
            found["image"] = self._see_pictures(model, inputs["pixel_values"])
        if "pixel_values_videos" in inputs:
            clips = self._see_clips(model, inputs["pixel_values_videos"], inputs["video_grid_thw"][:, 0].tolist())
            found["video"] = BaseModelOutputWithPooling(pooler_output=torch.cat(clips, dim=1))
        return {"mm_encoder_outputs": found} if found else {}

    def features(self, model: Any, pixels: Tensor, grids: Sequence[Grid], *, video: bool) -> list[Tensor]:
        if video:
            return self._see_clips(model, pixels, [grid[0] for grid in grids])
        return [seen[None] for seen in self._see_pictures(model, pixels).pooler_output]

    def _see_pictures(self, model: Any, pixels: Tensor) -> Any:
        sizes = torch.tensor([pixels.shape[-2:]] * len(pixels), device=pixels.device)
        # A count other than 1 tells the model that each picture is one tile; it looks at no more of it.
        return model.get_image_features(
            pixels, sizes, batch_num_images=torch.tensor([len(pixels) + 1]), return_dict=True
        )

    def _see_clips(self, model: Any, pixels: Tensor, frames: Sequence[int]) -> list[Tensor]:
        """Each clip's features, [1, tokens, H]."""
        clips = torch.split(pixels, list(frames))
        return [model.get_video_features(clip[None], return_dict=True).pooler_output for clip in clips]

    def vision(self, model: Any) -> Any:
        return model.model.vision_tower

    def vision_blocks(self, model: Any) -> Sequence[Any]:
        tower = model.model.vision_tower
        return list(getattr(tower, "vision_model", tower).encoder.layers)

    def vision_prefixes(self) -> tuple[str, ...]:
        return ("model.vision_tower.", "model.multi_modal_projector.", "model.image_newline")


MEDIA_KEYS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
FAMILIES: dict[str, Qwen25] = {family.model_type: family for family in (Qwen25(), Qwen3(), LlavaOneVision())}


def family_of(model: Any) -> Qwen25:
    """The family of a loaded model. Raises KeyError for another architecture."""
    return FAMILIES[model.config.model_type]


def _block(grid: Grid, merge: int, ticks: float, ids: Ids, token: str) -> Placed:
    t, h, w = grid[0], grid[1] // merge, grid[2] // merge
    count = t * h * w
    times = (np.arange(t) * ticks).astype(np.int64)  # truncated, as transformers does
    axes = np.stack([axis.ravel() for axis in np.meshgrid(times, np.arange(h), np.arange(w), indexing="ij")])
    end = 1 + max(h, w)
    positions = np.concatenate([np.zeros((3, 1)), 1 + axes, np.full((3, 1), end)], axis=1).astype(np.int64)
    return Placed(
        ids(VISION_START) + ids(token) * count + ids(VISION_END), [False] + [True] * count + [False], positions, end + 1
    )


def _text(ids: list[int]) -> Placed:
    return Placed(ids, [False] * len(ids), np.broadcast_to(np.arange(len(ids)), (3, len(ids))), len(ids))


def _joined(parts: Sequence[Placed]) -> Placed:
    starts = np.cumsum([0, *(part.span for part in parts)])
    return Placed(
        [token for part in parts for token in part.ids],
        [medium for part in parts for medium in part.is_medium],
        np.concatenate([part.positions + start for part, start in zip(parts, starts[:-1], strict=True)], axis=1),
        int(starts[-1]),
    )
