"""Decoded media are found again by digest and options, in memory and on disk; the order of many is kept."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unified_reward.data.decoded import DecodedCache
from unified_reward.data.media import MediaError, MediaLimits

LIMITS = MediaLimits(max_side=64)


def photo(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def never() -> bytes:
    raise AssertionError("it is decoded already")


def test_a_medium_is_decoded_once(tmp_path: Path) -> None:
    data = photo(0)
    cache = DecodedCache(LIMITS, tmp_path)
    pixels = cache.get(digest(data), lambda: data)
    assert pixels.shape == (48, 64, 3)
    assert cache.get(digest(data), never) is pixels
    again = DecodedCache(LIMITS, tmp_path)
    assert np.array_equal(again.get(digest(data), never), pixels)
    assert (cache.decoded, again.decoded) == (1, 0)


def test_other_limits_are_other_pixels(tmp_path: Path) -> None:
    data = photo(0)
    DecodedCache(LIMITS, tmp_path).get(digest(data), lambda: data)
    assert DecodedCache(MediaLimits(max_side=32), tmp_path).get(digest(data), lambda: data).shape == (24, 32, 3)


def test_a_damaged_file_is_decoded_anew(tmp_path: Path) -> None:
    data = photo(0)
    wanted = DecodedCache(LIMITS, tmp_path).get(digest(data), lambda: data)
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    cache = DecodedCache(LIMITS, tmp_path)
    assert np.array_equal(cache.get(digest(data), lambda: data), wanted)
    assert cache.decoded == 1


def test_memory_and_disk_are_bounded(tmp_path: Path) -> None:
    media = [photo(seed) for seed in range(6)]
    size = 48 * 64 * 3
    cache = DecodedCache(LIMITS, tmp_path, memory=2 * size, disk=3 * size)
    for data in media:
        cache.get(digest(data), lambda data=data: data)  # type: ignore[misc]
    assert len(cache._kept) == 2
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_many_keep_their_order_and_their_errors() -> None:
    media = [photo(seed) for seed in range(9)]
    cache = DecodedCache(LIMITS)
    found = list(cache.many([(digest(data), lambda data=data: data) for data in media], workers=3))  # type: ignore[misc]
    single = DecodedCache(LIMITS)
    for data, pixels in zip(media, found, strict=True):
        assert np.array_equal(single.get(digest(data), lambda data=data: data), pixels)  # type: ignore[misc]
    with pytest.raises(MediaError, match="not of a known format"):
        list(cache.many([("0" * 64, lambda: b"no picture at all")]))
