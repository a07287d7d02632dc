"""Bytes of a picture or a clip -> pixels, within limits, or one reason why not.

    pictures   PNG, JPEG, WebP and whatever else Pillow reads; an animated one is a clip
    video      mp4, WebM, Matroska, Ogg: any rate, length and codec FFmpeg reads
    frames     a clip published as a folder of pictures, packed into one medium

A file that does not decode is an error with a reason, never black frames.
"""

from __future__ import annotations

from unified_reward.data.frames import decode_frames, is_frames
from unified_reward.data.limits import UNLIMITED, About, MediaError, MediaLimits, Pixels, frame_indices
from unified_reward.data.pictures import decode_picture
from unified_reward.data.video import decode_video, is_video

__all__ = ["UNLIMITED", "About", "MediaError", "MediaLimits", "Pixels", "decode", "decode_with_facts", "frame_indices"]


def decode(data: bytes, limits: MediaLimits = UNLIMITED) -> Pixels:
    """uint8 [H, W, 3] of a picture, [T, H, W, 3] of a clip. Raises MediaError."""
    return decode_with_facts(data, limits)[0]


def decode_with_facts(data: bytes, limits: MediaLimits = UNLIMITED) -> tuple[Pixels, About]:
    """Pixels as `decode` gives them, and what the file holds before sampling and scaling. Raises MediaError."""
    if not data:
        raise MediaError("the file is empty")
    if len(data) > limits.max_bytes:
        raise MediaError("the file is too large", f"{len(data)} bytes, more than {limits.max_bytes}")
    if is_video(data):
        return decode_video(data, limits)
    return decode_frames(data, limits) if is_frames(data) else decode_picture(data, limits)
