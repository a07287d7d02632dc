"""A turn as the content parts of OpenAI's chat messages: text, and pictures as data URLs (or, in this process, as they are)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unified_reward.engines.engine import Turn

# Of the model families that judges are made of. A server does not tell its tokenizer's, and reads them in any text.
CONTROL_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>", "<image>", "<video>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip


def as_png(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """PNG: the judge sees the very pixels that it would see in this process."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def as_pil(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The part that vLLM has for pictures of its own process."""
    return {"type": "image_pil", "image_pil": Image.fromarray(pixels)}


def user_message(turn: Turn, picture: Callable[[NDArray[np.uint8]], dict[str, Any]] = as_png) -> dict[str, Any]:
    """One message of the user. A clip becomes its frames: no part for clips is common to all servers."""
    parts: list[dict[str, Any]] = []
    for segment in turn:
        if segment.image is not None:
            parts.append(picture(segment.image))
        elif segment.video is not None:
            parts.extend(picture(frame) for frame in segment.video)
        elif segment.text and parts and parts[-1]["type"] == "text":  # some templates put a line break between parts
            parts[-1]["text"] += segment.text
        elif segment.text:
            parts.append({"type": "text", "text": segment.text})
    return {"role": "user", "content": parts}
