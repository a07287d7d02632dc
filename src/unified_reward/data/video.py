"""A video's bytes -> the frames asked for, by FFmpeg's libraries (PyAV), and as little decoding as that takes.

Reading the packets without decoding them tells how many frames there are and when each is shown. Then decoding starts
at the key frame before a wanted frame, skips what no other frame is built on, and stops at the last wanted one. The
frames are those that decoding everything would give; where time stamps are missing or double, everything is decoded.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from unified_reward.data.limits import About, MediaError, MediaLimits, Pixels, frame_indices
from unified_reward.data.pictures import to_pixels

MARKS = {  # offset -> ISO media; Matroska, Ogg, Flash, MPEG, Windows Media; AVI
    4: (b"ftyp", b"moov", b"mdat", b"styp", b"wide", b"free", b"skip"),
    0: (b"\x1a\x45\xdf\xa3", b"OggS", b"FLV\x01", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75"),
    8: (b"AVI ",),
}
PICTURES = (b"avif", b"avis", b"heic", b"heix", b"mif1")  # brands of ISO media that hold a picture
SEEK_PAST = 24  # frames that must lie between for a jump to the next key frame to be worth it


def is_video(data: bytes) -> bool:
    """Whether the first bytes are those of a video container. Animated pictures are told by Pillow."""
    if data[4:8] == b"ftyp" and data[8:12] in PICTURES:
        return False
    return any(data[at : at + len(mark)] == mark for at, marks in MARKS.items() for mark in marks)


def decode_video(data: bytes, limits: MediaLimits) -> tuple[Pixels, About]:
    """[T, H, W, 3]: the frames at `frame_indices` of all that the file shows, in RGB. Raises MediaError."""
    try:
        with av.open(io.BytesIO(data)) as container:
            stream, seconds = _stream(container, limits)
            packets = _packets(container, stream)
            if not packets.shown:
                raise MediaError("the video has no frames")
            if packets.shown > limits.max_frames:
                raise MediaError("it has too many frames", f"{packets.shown}, more than {limits.max_frames}")
            places = frame_indices(packets.shown, limits.frames)
            about = About(stream.width, stream.height, packets.shown, seconds)
            frames = _by_time(container, stream, packets, places) if packets.ordered else []
        pixels = [to_pixels(frame.to_image(), limits) for frame in frames or _by_number(data, places)]
    except av.error.FFmpegError as error:
        raise MediaError("the video cannot be decoded", _brief(error)) from error
    return np.stack(pixels), about


@dataclass(frozen=True)
class _Packets:
    """shown: packets that become a frame. stamps: when each frame is shown, in order. keys: stamps of key frames.

    ordered: whether stamps tell frames apart; else only their number counts.
    """

    shown: int
    stamps: Sequence[int]
    keys: Sequence[int]
    ordered: bool


def _stream(container: Any, limits: MediaLimits) -> tuple[Any, float | None]:
    if not container.streams.video:
        raise MediaError("the file has no video stream")
    stream = container.streams.video[0]
    if stream.width * stream.height > limits.max_pixels:
        size = f"{stream.width}x{stream.height} pixels, more than {limits.max_pixels}"
        raise MediaError("the video's frames are too large", size)
    seconds = container.duration / 1_000_000 if container.duration else None
    if seconds is not None and seconds > limits.max_seconds:
        raise MediaError("the video is too long", f"{seconds:.0f} s long, more than {limits.max_seconds:.0f} s")
    stream.codec_context.thread_count = 1  # files are decoded side by side; threads within one would only be in the way
    return stream, seconds


def _packets(container: Any, stream: Any) -> _Packets:
    shown = [p for p in container.demux(stream) if p.size and not p.is_discard]
    stamps = [p.pts for p in shown]
    ordered = None not in stamps and len(set(stamps)) == len(stamps)
    if not ordered:
        return _Packets(len(shown), (), (), ordered=False)
    keys = sorted(p.pts for p in shown if p.is_keyframe)
    return _Packets(len(shown), sorted(stamps), keys, ordered=bool(keys))


def _by_time(container: Any, stream: Any, packets: _Packets, places: Sequence[int]) -> list[Any]:
    """The wanted frames found by their time stamps; [] when one of them does not turn up."""
    wanted = [packets.stamps[place] for place in places]
    needed, found = set(wanted), dict[int, Any]()
    for start, group in _passes(packets, wanted):
        container.seek(start, stream=stream)
        for packet in container.demux(stream):
            telling = packet.pts is None or packet.pts in needed
            stream.codec_context.skip_frame = "DEFAULT" if telling else "NONREF"
            found.update((frame.pts, frame) for frame in packet.decode() if frame.pts in needed)
            if all(stamp in found for stamp in group):
                break
    stream.codec_context.skip_frame = "DEFAULT"
    frames = [found[stamp] for stamp in wanted if stamp in found]
    _check_whole(frames)
    return frames if len(frames) == len(wanted) else []


def _passes(packets: _Packets, wanted: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """(stamp of the key frame to start at, wanted stamps reached from there), in order."""
    start, group = packets.stamps[0], list[int]()
    for stamp in wanted:
        key = packets.keys[max(0, bisect_right(packets.keys, stamp) - 1)]
        reached = group[-1] if group else start
        between = bisect_right(packets.stamps, key) - bisect_right(packets.stamps, reached)
        if key > reached and between > SEEK_PAST:
            if group:
                yield start, group
            start, group = key, []
        group.append(stamp)
    yield start, group


def _by_number(data: bytes, places: Sequence[int]) -> list[Any]:
    """The wanted frames counted off; the file is opened anew, since not every kind of stream can be wound back."""
    wanted, frames = set(places), []
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames.append(frame)
            if number >= places[-1]:
                break
    if len(frames) < len(places):
        raise MediaError("the video is cut short", f"only {len(frames)} of the {len(places)} frames asked for decode")
    _check_whole(frames)
    return frames


def _check_whole(frames: Sequence[Any]) -> None:
    damaged = sum(bool(frame.is_corrupt) for frame in frames)
    if damaged:
        raise MediaError("frames of the video are damaged", f"{damaged} of {len(frames)}")


def _brief(error: Any) -> str:
    return error.strerror or type(error).__name__
