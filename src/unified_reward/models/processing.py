"""Pixels to patches and text to tokens for the families of `families.py`, with numpy and PIL only.

Gives the values of transformers' PIL `Qwen2VLImageProcessor` and `LlavaOnevisionImageProcessor`, for pictures and for
clips (for which transformers has no processor without torchvision). Reads and writes Hugging Face's own files, so real
checkpoints load.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unified_reward.errors import UserError
from unified_reward.models.families import FAMILIES, VISION_END, VISION_START, Grid, Qwen25

IMAGE_PAD, VIDEO_PAD = Qwen25.image_token, Qwen25.video_token
MAX_ASPECT = 200
CONFIG_NAMES = ("preprocessor_config.json", "processor_config.json")
_ANSWER = "\x00answer\x00"

__all__ = ["IMAGE_PAD", "VIDEO_PAD", "VISION_END", "VISION_START", "Grid", "Patches", "VlmProcessor", "smart_resize"]
Patches = NDArray[np.float32]


@dataclass
class VlmProcessor:
    """What turns media and text into model inputs.

    min_pixels, max_pixels: area a picture or frame is scaled into. image_mean, image_std: per channel, of 0..1 values.
    tokens_per_second: how far mRoPE's time axis advances in a second (from the model's config). square: side in pixels
    of the one tile a picture becomes (LLaVA-OneVision).
    """

    tokenizer: PreTrainedTokenizerBase
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    tokens_per_second: float = 2.0
    family: Qwen25 = field(default_factory=Qwen25)
    square: int = 384
    _ids: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        special = {token: self._special(token) for token in self.family.specials}
        self.image_pad, self.video_pad = special[self.family.image_token], special[self.family.video_token]
        self.eos_id = int(self.tokenizer.eos_token_id)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.eos_id if pad is None else int(pad)
        self.chat_prefix, self.chat_suffix = self._chat_frame()

    def text_ids(self, text: str) -> list[int]:
        """Token ids of text as it stands, special tokens recognised, none added. Short texts are remembered."""
        ids = self._ids.get(text)
        if ids is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            if len(self._ids) < 100_000:
                self._ids[text] = ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def patchify_image(self, image: NDArray[np.uint8]) -> tuple[Patches, Grid]:
        """image: uint8 [H, W, 3]. Returns (float32 [h*w, 3*temporal*patch*patch], (1, h, w)), grid in patches.

        A square family's patches are the tile itself, [1, 3, side, side].
        """
        if self.family.square:
            return self._tiles(_padded(image, self.image_mean)[None])
        frame = self._normalised(image[None])
        return self._patches(np.repeat(frame, self.temporal_patch_size, axis=0))

    def patchify_video(self, video: NDArray[np.uint8]) -> tuple[Patches, Grid]:
        """video: uint8 [T, H, W, 3]; the last frame repeats to fill the last temporal patch. t = ceil(T / temporal)."""
        if self.family.square:
            return self._tiles(video)
        frames = self._normalised(video)
        missing = -len(frames) % self.temporal_patch_size
        if missing:
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        return self._patches(frames)

    def _tiles(self, frames: NDArray[np.uint8]) -> tuple[Patches, Grid]:
        """[T, H, W, 3] to float32 [T, 3, side, side]."""
        side = (self.square, self.square)
        if frames.shape[1:3] != side:
            frames = np.stack([np.asarray(Image.fromarray(f).resize(side, Image.Resampling.BICUBIC)) for f in frames])
        per_side = self.square // self.patch_size
        tiles = self._scaled(frames).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(tiles), (len(tiles), per_side, per_side)

    def _normalised(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(f"media have shape {frames.shape[1:]}, expected [height, width, 3]")
        height, width = smart_resize(
            frames.shape[1], frames.shape[2], self.patch_size * self.merge_size, self.min_pixels, self.max_pixels
        )
        if (height, width) != frames.shape[1:3]:
            size, resample = (width, height), Image.Resampling.BICUBIC
            frames = np.stack([np.asarray(Image.fromarray(f).resize(size, resample)) for f in frames])
        return self._scaled(frames)

    def _scaled(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean, std = (np.asarray(v, dtype=np.float32) for v in (self.image_mean, self.image_std))
        return (frames.astype(np.float32) * np.float32(1 / 255) - mean) / std

    def _patches(self, frames: NDArray[np.float32]) -> tuple[Patches, Grid]:
        """[T, H, W, C] to rows in merge order: block row, block column, then the merge window's own rows and columns."""
        p, m, s = self.patch_size, self.merge_size, self.temporal_patch_size
        t, h, w = len(frames) // s, frames.shape[1] // p, frames.shape[2] // p
        cut = frames.reshape(t, s, h // m, m, p, w // m, m, p, 3)
        rows = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, 3 * s * p * p)
        return np.ascontiguousarray(rows), (t, h, w)

    def _special(self, token: str) -> int:
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        if token_id is None or token_id == self.tokenizer.unk_token_id:
            raise UserError(field="tokenizer", value=type(self.tokenizer).__name__, why=f"it has no token {token}",
                            fix=f"Use a complete {self.family.model_type} checkpoint.")  # fmt: skip
        return int(token_id)

    def _chat_frame(self) -> tuple[str, str]:
        """What the chat template puts before and after a user's turn, up to where the answer starts."""
        framed: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": _ANSWER}], tokenize=False, add_generation_prompt=True
        )
        prefix, _, suffix = framed.partition(_ANSWER)
        return prefix, suffix

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files and `preprocessor_config.json` as transformers writes them."""
        self.tokenizer.save_pretrained(str(directory))
        config = {
            "image_processor_type": self.family.image_processor, "processor_class": self.family.processor_class,
            "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "do_normalize": True,
            "resample": int(Image.Resampling.BICUBIC), "rescale_factor": 1 / 255,
            "image_mean": list(self.image_mean), "image_std": list(self.image_std),
            "patch_size": self.patch_size, "temporal_patch_size": self.temporal_patch_size, "merge_size": self.merge_size,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
        }  # fmt: skip
        if self.family.square:
            config |= {"size": {"height": self.square, "width": self.square}}
        (directory / CONFIG_NAMES[0]).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> VlmProcessor:
        """Read a checkpoint directory. Raises UserError when it lacks the processor's or the tokenizer's files."""
        config, model = _read_config(directory), _read_json(directory / "config.json")
        family = FAMILIES.get(model.get("model_type", Qwen25.model_type))
        if family is None:
            raise UserError(field="model", value=model.get("model_type"), why=f"{directory} holds another architecture",
                            fix=f"Use one of {', '.join(FAMILIES)}.")  # fmt: skip
        vision = model.get("vision_config", {})
        size = config.get("size") or {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(field="model", value=directory, why=f"its tokenizer does not load ({error})",
                            fix="Name a complete Hugging Face checkpoint directory.") from error  # fmt: skip
        return cls(
            tokenizer=tokenizer,
            family=family,
            square=int(size.get("height", cls.square)),
            patch_size=int((vision if family.square else config).get("patch_size", cls.patch_size)),
            temporal_patch_size=int(config.get("temporal_patch_size", cls.temporal_patch_size)),
            merge_size=int(config.get("merge_size", cls.merge_size)),
            min_pixels=int(config.get("min_pixels") or size.get("shortest_edge") or cls.min_pixels),
            max_pixels=int(config.get("max_pixels") or size.get("longest_edge") or cls.max_pixels),
            image_mean=tuple(config.get("image_mean", cls.image_mean)),
            image_std=tuple(config.get("image_std", cls.image_std)),
            tokens_per_second=float(vision.get("tokens_per_second", 4)),
        )


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Sides divisible by `factor`, area within [min_pixels, max_pixels], aspect kept as nearly as that allows.

    Source: Qwen2-VL's image processor. Raises UserError when one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise UserError(field="media", value=f"{width}x{height}", why=f"one side is over {MAX_ASPECT} times the other",
                        fix="Crop it.")  # fmt: skip
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall, wide = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return tall, wide


def _read_config(directory: Path) -> dict[str, Any]:
    for name in CONFIG_NAMES:
        if (directory / name).is_file():
            whole = json.loads((directory / name).read_text())
            config: dict[str, Any] = whole.get("image_processor", whole)
            return config
    raise UserError(field="model", value=directory, why=f"it has no {CONFIG_NAMES[0]}",
                    fix="Name a complete Hugging Face checkpoint directory.")  # fmt: skip


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return values


def _padded(image: NDArray[np.uint8], mean: tuple[float, ...]) -> NDArray[np.uint8]:
    """The picture in the middle of a square of the mean colour."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = [int(value * 255) for value in mean]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
