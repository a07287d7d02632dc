"""Bytes of a picture or a clip -> pixels, within limits, or one reason why not.

Pictures go through Pillow (PNG, JPEG, WebP, ...), videos through FFmpeg's libraries (PyAV). An animated PNG or WebP is a
clip. A file that does not decode is an error with a reason, never black frames.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

Pixels = NDArray[np.uint8]
VIDEO_MARKS = {4: (b"ftyp", b"moov", b"mdat"), 0: (b"\x1a\x45\xdf\xa3", b"OggS")}  # offset -> ISO media; Matroska, Ogg


class MediaError(Exception):
    """Why a file is no usable picture or clip: one short clause."""


@dataclass(frozen=True)
class MediaLimits:
    """frames: sampled from a video, evenly (paper: 8); None = all of them. max_side: longer side in pixels after scaling
    down, None = as it is. max_pixels: of one decoded frame. max_seconds, max_bytes: refuse longer or larger files."""

    frames: int | None = 8
    max_side: int | None = 512
    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    max_bytes: int = 512 * 1024 * 1024


UNLIMITED = MediaLimits(frames=None, max_side=None)


def decode(data: bytes, limits: MediaLimits = UNLIMITED) -> Pixels:
    """uint8 [H, W, 3] of a picture, [T, H, W, 3] of a clip. Raises MediaError."""
    if not data:
        raise MediaError("the file is empty")
    if len(data) > limits.max_bytes:
        raise MediaError(f"the file has {len(data)} bytes, more than {limits.max_bytes}")
    return decode_video(data, limits) if is_video(data) else decode_image(data, limits)


def is_video(data: bytes) -> bool:
    """Whether the first bytes are those of a video container. Animated pictures are told by Pillow."""
    return any(data[at : at + len(mark)] == mark for at, marks in VIDEO_MARKS.items() for mark in marks)


def decode_image(data: bytes, limits: MediaLimits = UNLIMITED) -> Pixels:
    """A picture, turned as its EXIF says, in RGB; an animation becomes a clip."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > limits.max_pixels:
                raise MediaError(f"the picture has {image.width}x{image.height} pixels, more than {limits.max_pixels}")
            count = getattr(image, "n_frames", 1)
            if count == 1:
                return _pixels(ImageOps.exif_transpose(image), limits)
            wanted = set(frame_indices(count, limits.frames))
            frames = [f.copy() for i, f in enumerate(ImageSequence.Iterator(image)) if i in wanted]
    except (UnidentifiedImageError, Image.DecompressionBombWarning, Image.DecompressionBombError, OSError, SyntaxError,
            ValueError, EOFError) as error:  # fmt: skip
        raise MediaError(f"the picture cannot be read ({_brief(error)})") from error
    return np.stack([_pixels(frame, limits) for frame in frames])


def decode_video(data: bytes, limits: MediaLimits = UNLIMITED) -> Pixels:
    """Frames at `frame_indices` of all frames that decode, in RGB."""
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("the file has no video stream")
            stream = container.streams.video[0]
            _check_video(stream, container, limits)
            count = sum(1 for packet in container.demux(stream) if packet.size)
            if count == 0:
                raise MediaError("the video has no frames")
            container.seek(0)
            frames = _pick(container.decode(stream), set(frame_indices(count, limits.frames)), limits)
    except av.error.FFmpegError as error:
        raise MediaError(f"the video cannot be decoded ({_brief(error)})") from error
    if not frames:
        raise MediaError("the video has no frames")
    return np.stack(frames)


def frame_indices(count: int, wanted: int | None) -> list[int]:
    """Evenly spaced frame numbers from first to last: floor of linspace(0, count - 1, wanted), as the paper's scripts do.

    A shorter clip gives each frame once. Returns at most `count` increasing numbers.
    """
    if wanted is None or wanted >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted)]


def _pick(frames: Any, wanted: set[int], limits: MediaLimits) -> list[Pixels]:
    picked = []
    for number, frame in enumerate(frames):
        if number in wanted:
            picked.append(_pixels(frame.to_image(), limits))
        if number >= max(wanted):
            break
    if len(picked) < len(wanted):
        raise MediaError(f"only {len(picked)} of the {len(wanted)} frames asked for decode")
    return picked


def _check_video(stream: Any, container: Any, limits: MediaLimits) -> None:
    if stream.width * stream.height > limits.max_pixels:
        raise MediaError(f"its frames have {stream.width}x{stream.height} pixels, more than {limits.max_pixels}")
    seconds = container.duration / 1_000_000 if container.duration else 0.0
    if seconds > limits.max_seconds:
        raise MediaError(f"it is {seconds:.0f} s long, more than {limits.max_seconds:.0f} s")


def _pixels(image: Image.Image, limits: MediaLimits) -> Pixels:
    if image.mode in ("RGBA", "LA", "P", "PA"):  # transparent parts on white, as a page shows them
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if limits.max_side and max(image.size) > limits.max_side:
        image = ImageOps.contain(image, (limits.max_side, limits.max_side), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def _brief(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text holds an address in memory: no two rejects would be alike
        return "not of a known format"
    return " ".join(str(error).split())[:120] or type(error).__name__
