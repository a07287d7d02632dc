"""A clip that is published as a folder of pictures, as one medium: a ZIP archive of the files as they are.

Nothing is compressed again and dates are fixed, so that the same frames give the same bytes, and so the same digest.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from unified_reward.data.limits import About, MediaError, MediaLimits, Pixels, frame_indices
from unified_reward.data.pictures import decode_picture

MARK = b"PK\x03\x04"


def is_frames(data: bytes) -> bool:
    return data[:4] == MARK


def pack_frames(frames: Sequence[bytes]) -> bytes:
    """One medium from the files of a clip's frames, in the order they are shown."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number, data in enumerate(frames):
            archive.writestr(zipfile.ZipInfo(f"{number:06d}"), data)
    return target.getvalue()


def decode_frames(data: bytes, limits: MediaLimits) -> tuple[Pixels, About]:
    """[T, H, W, 3]: the pictures at `frame_indices` of the archive. Raises MediaError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check(entries, limits)
            picked = [archive.read(entries[place]) for place in frame_indices(len(entries), limits.frames)]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise MediaError("the frames cannot be read", str(error)[:120]) from error
    decoded = [decode_picture(frame, limits) for frame in picked]
    shapes = {pixels.shape for pixels, _ in decoded}
    if len(shapes) > 1 or any(len(shape) != 3 for shape in shapes):
        raise MediaError("the frames of a clip are not pictures of one size")
    first = decoded[0][1]
    return np.stack([pixels for pixels, _ in decoded]), About(first.width, first.height, len(entries))


def _check(entries: Sequence[zipfile.ZipInfo], limits: MediaLimits) -> None:
    if not entries:
        raise MediaError("the clip has no frames")
    if len(entries) > limits.max_frames:
        raise MediaError("it has too many frames", f"{len(entries)}, more than {limits.max_frames}")
    size = sum(entry.file_size for entry in entries)
    if size > limits.max_bytes:
        raise MediaError("the file is too large", f"{size} bytes, more than {limits.max_bytes}")
