"""What may be decoded, what was found in a file, and which frames of a clip are looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class MediaError(Exception):
    """Why a file is no usable picture or clip: one short clause. `detail`: what differs from file to file."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class MediaLimits:
    """frames: sampled from a clip, evenly (paper: 8, later templates 16); None = all of them. max_side: longer side in
    pixels after scaling down, None = as it is. max_pixels: of one decoded frame. max_seconds, max_frames, max_bytes:
    refuse longer or larger files."""

    frames: int | None = 8
    max_side: int | None = 512
    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    max_frames: int = 36_000
    max_bytes: int = 512 * 1024 * 1024


UNLIMITED = MediaLimits(frames=None, max_side=None)


@dataclass(frozen=True)
class About:
    """A file as it is, before sampling and scaling. width, height: pixels. seconds: None where there is no clock."""

    width: int
    height: int
    frames: int = 1
    seconds: float | None = None


def frame_indices(count: int, wanted: int | None) -> list[int]:
    """Evenly spaced frame numbers from first to last: floor of linspace(0, count - 1, wanted), as the paper's scripts do.

    A shorter clip gives each frame once. Returns at most `count` increasing numbers.
    """
    if wanted is None or wanted >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted)]
