"""A picture's bytes -> RGB pixels by Pillow (PNG, JPEG, WebP, ...); an animated one is a clip."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from unified_reward.data.limits import About, MediaError, MediaLimits, Pixels, frame_indices

_REGISTER = threading.Lock()


def decode_picture(data: bytes, limits: MediaLimits) -> tuple[Pixels, About]:
    """A picture, turned as its EXIF says: [H, W, 3]; an animation: [T, H, W, 3]. Raises MediaError."""
    try:
        with _REGISTER:  # Pillow loads its plugins at the first unknown file, and not safely from two threads
            image = Image.open(io.BytesIO(data))
        _check(image, limits)
        count = getattr(image, "n_frames", 1)
        about = About(image.width, image.height, count)
        if count == 1:
            return to_pixels(ImageOps.exif_transpose(image), limits), about
        if count > limits.max_frames:
            raise MediaError("it has too many frames", f"{count}, more than {limits.max_frames}")
        wanted = set(frame_indices(count, limits.frames))
        frames = [to_pixels(f.copy(), limits) for i, f in enumerate(ImageSequence.Iterator(image)) if i in wanted]
    except Image.DecompressionBombError as error:
        raise MediaError("the picture is too large", _brief(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise MediaError("the picture cannot be read", _brief(error)) from error
    return np.stack(frames), about


def to_pixels(image: Image.Image, limits: MediaLimits) -> Pixels:
    """RGB, transparent parts on white as a page shows them, and no side longer than the limit."""
    if image.mode in ("RGBA", "LA", "P", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if limits.max_side and max(image.size) > limits.max_side:
        image = ImageOps.contain(image, (limits.max_side, limits.max_side), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def _check(image: Image.Image, limits: MediaLimits) -> None:
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width}x{image.height} pixels, more than {limits.max_pixels}"
        raise MediaError("the picture is too large", size)


def _brief(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text holds an address in memory: no two rejects would be alike
        return "not of a known format"
    return " ".join(str(error).split())[:120] or type(error).__name__
