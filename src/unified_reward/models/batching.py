"""Segments of text and media to one encoded sample, and samples to a padded batch that the model's forward takes.

Positions (mRoPE: time, height, width) are made here, on plain integers, so that the model need not walk the batch again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unified_reward.models.families import Medium
from unified_reward.models.processing import Grid, Patches, VlmProcessor

TEXT, IMAGE, VIDEO = 0, 1, 2


@dataclass(frozen=True)
class Segment:
    """A piece of a sample: text, or a picture (uint8 [H, W, 3]), or a clip (uint8 [T, H, W, 3]).

    weight: loss weight of each of the text's tokens as a target; 0 = context. seconds_per_grid: clip time between
    temporal patches (1.0 = two frames a second at temporal patch 2).
    """

    text: str = ""
    image: NDArray[np.uint8] | None = None
    video: NDArray[np.uint8] | None = None
    weight: float = 0.0
    seconds_per_grid: float = 1.0


@dataclass(frozen=True)
class Encoded:
    """One sample. weights[i]: loss weight of token i as a target. positions: int64 [3, L]. grids: (t, h, w) in patches."""

    input_ids: list[int]
    weights: list[float]
    mm_types: list[int]
    positions: NDArray[np.int64]
    image_patches: list[Patches] = field(default_factory=list)
    image_grids: list[Grid] = field(default_factory=list)
    video_patches: list[Patches] = field(default_factory=list)
    video_grids: list[Grid] = field(default_factory=list)
    seconds_per_grid: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.input_ids)


def chat(processor: VlmProcessor, user: Sequence[Segment], answer: Sequence[Segment] = ()) -> list[Segment]:
    """A user's turn in the tokenizer's chat template, up to where the answer starts; with an answer, that and its end.

    The end-of-turn token is a target when the answer's last segment is. A space stands between the template and the
    answer where the template ends without one, so that an answer's first word is the token it is anywhere else.
    """
    segments = [Segment(processor.chat_prefix), *user, Segment(processor.chat_suffix)]
    if answer:
        first = answer[0]
        if not processor.chat_suffix[-1:].isspace() and not first.text[:1].isspace():
            first = replace(first, text=" " + first.text)
        end = processor.tokenizer.eos_token
        segments += [first, *answer[1:], Segment(end, weight=answer[-1].weight)]
    return segments


def encode(processor: VlmProcessor, segments: Sequence[Segment]) -> Encoded:
    """Tokens, weights, positions and patches of one sample.

    Neighbouring context texts are tokenized as the whole they are, each target by itself.
    """
    out = Encoded([], [], [], np.zeros((3, 0), dtype=np.int64))
    positions: list[NDArray[np.int64]] = []
    start = 0
    for segment in _joined(segments):
        if segment.image is not None:
            patches, grid = processor.patchify_image(segment.image)
            out.image_patches.append(patches)
            out.image_grids.append(grid)
            start = _append_media(out, positions, start, processor, grid, IMAGE, 1.0)
        elif segment.video is not None:
            patches, grid = processor.patchify_video(segment.video)
            out.video_patches.append(patches)
            out.video_grids.append(grid)
            out.seconds_per_grid.append(segment.seconds_per_grid)
            start = _append_media(out, positions, start, processor, grid, VIDEO, segment.seconds_per_grid)
        else:
            start = _append_text(out, positions, start, processor.text_ids(segment.text), segment.weight)
    return replace(out, positions=np.concatenate(positions, axis=1) if positions else out.positions)


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    out: list[Segment] = []
    for segment in segments:
        if out and _is_context(segment) and _is_context(out[-1]):
            out[-1] = Segment(out[-1].text + segment.text)
        else:
            out.append(segment)
    return out


def _is_context(segment: Segment) -> bool:
    return segment.image is None and segment.video is None and segment.weight == 0


def _append_text(
    out: Encoded, positions: list[NDArray[np.int64]], start: int, ids: Sequence[int], weight: float
) -> int:
    out.input_ids.extend(ids)
    out.weights.extend([weight] * len(ids))
    out.mm_types.extend([TEXT] * len(ids))
    positions.append(np.broadcast_to(np.arange(start, start + len(ids)), (3, len(ids))))
    return start + len(ids)


def _append_media(
    out: Encoded, positions: list[NDArray[np.int64]], start: int, processor: VlmProcessor, grid: Grid, kind: int,
    seconds_per_grid: float,
) -> int:  # fmt: skip
    first = seconds_per_grid * (processor.temporal_patch_size - 1) / processor.temporal_patch_size / 2
    medium = Medium(
        grid, kind == VIDEO, ticks=processor.tokens_per_second * seconds_per_grid,
        seconds=tuple(first + patch * seconds_per_grid for patch in range(grid[0])),
    )  # fmt: skip
    placed = processor.family.place(medium, processor.merge_size, processor.text_ids)
    out.input_ids.extend(placed.ids)
    out.weights.extend([0.0] * len(placed.ids))
    out.mm_types.extend(kind if medium else TEXT for medium in placed.is_medium)
    positions.append(start + placed.positions)
    return start + placed.span


def collate(encoded: Sequence[Encoded], pad_id: int, side: Literal["left", "right"] = "right") -> dict[str, Tensor]:
    """A batch as keyword arguments of the model's forward, and `labels` and `weights` beside them.

    input_ids, attention_mask, mm_token_type_ids: int64 [B, L]; position_ids: int64 [3, B, L]; labels: int64 [B, L], the
    tokens themselves, -100 where the weight is 0 (not shifted); weights: float32 [B, L]; pixel_values[_videos]: float32
    [patches, dim] of all samples in order and {image,video}_grid_thw: int64 [n, 3], present only when there are any.
    """
    rows, length = len(encoded), max(len(e) for e in encoded)
    ids = np.full((rows, length), pad_id, dtype=np.int64)
    mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
    weights = np.zeros((rows, length), dtype=np.float32)
    positions = np.zeros((3, rows, length), dtype=np.int64)
    for row, sample in enumerate(encoded):
        place = slice(length - len(sample), length) if side == "left" else slice(0, len(sample))
        ids[row, place], mask[row, place] = sample.input_ids, 1
        kinds[row, place], weights[row, place] = sample.mm_types, sample.weights
        positions[:, row, place] = sample.positions
    batch = {
        "input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask),
        "mm_token_type_ids": torch.from_numpy(kinds), "position_ids": torch.from_numpy(positions),
        "labels": torch.from_numpy(np.where(weights > 0, ids, -100)), "weights": torch.from_numpy(weights),
    }  # fmt: skip
    batch |= _media(
        "pixel_values", "image_grid_thw", [e.image_patches for e in encoded], [e.image_grids for e in encoded]
    )
    batch |= _media(
        "pixel_values_videos", "video_grid_thw", [e.video_patches for e in encoded], [e.video_grids for e in encoded]
    )
    return batch


def _media(
    values: str, grids: str, patches: Sequence[Sequence[Patches]], grid_lists: Sequence[Sequence[Grid]]
) -> dict[str, Tensor]:
    flat = [p for sample in patches for p in sample]
    if not flat:
        return {}
    flat_grids = [g for sample in grid_lists for g in sample]
    return {values: torch.from_numpy(np.concatenate(flat)), grids: torch.tensor(flat_grids, dtype=torch.int64)}
