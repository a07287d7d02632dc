"""How fast real media become pixels, beside the loop one would write first: one thread, file after file, every frame.

    python benchmarks/media_speed.py                     files drawn here: photographs' sizes, short and long videos
    python benchmarks/media_speed.py --files DIR ...     your own: every picture and video below DIR

Peer: `plain`, a one-thread loop with Pillow and PyAV that decodes each video up to the last frame it needs. All ways give the
same pixels (checked), 8 frames of a clip, longer side 512. Files lie in memory, so no way waits for the disk except the one that
is meant to. Ways take turns; the best of the rounds counts. Prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from unified_reward.data.decoded import DecodedCache, cores
from unified_reward.data.limits import MediaLimits, Pixels
from unified_reward.data.media import decode

LIMITS = MediaLimits(frames=8, max_side=512)
PICTURES, VIDEOS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".webm", ".mkv", ".mov")
Files = dict[str, bytes]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=Path, nargs="*", help="folders of pictures and videos")
    arguments.add_argument("--workers", type=int, default=0, help="0 = one for each core")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    files = found(options.files) if options.files else drawn()
    sets = {"all": files, "pictures": kind(files, PICTURES), "videos": kind(files, VIDEOS)}
    print(
        json.dumps(
            {name: compare(each, options.workers, options.rounds) for name, each in sets.items() if each}, indent=1
        )
    )


def compare(files: Files, workers: int, rounds: int) -> dict[str, object]:
    """Seconds of each way over all files, and how many times the plain loop's throughput that is."""
    named = {hashlib.sha256(data).hexdigest(): data for data in files.values()}
    with tempfile.TemporaryDirectory() as directory:
        warm = DecodedCache(LIMITS, Path(directory))
        cached(warm, named, workers)
        ways: dict[str, Callable[[], list[Pixels]]] = {
            "plain, one thread": lambda: [plain(data) for data in named.values()],
            "decode, one thread": lambda: [decode(data, LIMITS) for data in named.values()],
            "side by side": lambda: cached(DecodedCache(LIMITS), named, workers),
            "side by side, cold cache on disk": lambda: cold(named, workers),
            "warm cache on disk": lambda: cached(DecodedCache(LIMITS, Path(directory)), named, workers),
            "warm cache in memory": lambda: cached(warm, named, workers),
        }
        seconds = {name: float("inf") for name in ways}
        for _ in range(rounds):
            pixels = {}
            for name, way in ways.items():
                start = time.perf_counter()
                pixels[name] = way()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
            check(pixels)
    base = seconds["plain, one thread"]
    return {
        "files": len(named), "megabytes": round(sum(map(len, named.values())) / 1e6, 1), "workers": workers or cores(),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "times plain": {name: round(base / value, 2) for name, value in seconds.items()},
    }  # fmt: skip


def cold(named: Files, workers: int) -> list[Pixels]:
    """With an empty cache that is written to, as the first epoch, or the import, does."""
    with tempfile.TemporaryDirectory() as directory:
        return cached(DecodedCache(LIMITS, Path(directory)), named, workers)


def cached(cache: DecodedCache, named: Files, workers: int) -> list[Pixels]:
    return list(cache.many([(digest, lambda data=data: data) for digest, data in named.items()], workers))


def plain(data: bytes) -> Pixels:
    """The peer: what a loop with Pillow and PyAV does when nobody thinks about its speed."""
    if data[4:8] not in (b"ftyp", b"moov") and data[:4] != b"\x1a\x45\xdf\xa3":
        return scaled(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    with av.open(io.BytesIO(data)) as container:
        count = sum(1 for packet in container.demux(video=0) if packet.size)
        wanted = np.linspace(0, count - 1, min(count, 8)).astype(int).tolist()
        container.seek(0)
        container.streams.video[0].codec_context.thread_count = 1
        frames = []
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames.append(scaled(frame.to_image()))
            if number == wanted[-1]:
                break
    return np.stack(frames)


def scaled(image: Image.Image) -> Pixels:
    image = image.convert("RGB")
    if max(image.size) > 512:
        image = ImageOps.contain(image, (512, 512), Image.Resampling.BICUBIC)
    return np.asarray(image)


def check(pixels: dict[str, list[Pixels]]) -> None:
    first, *others = pixels.values()
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert np.array_equal(mine, theirs), "two ways gave different pixels"


def found(folders: list[Path]) -> Files:
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    files = {str(path): path.read_bytes() for path in paths if path.suffix.lower() in PICTURES + VIDEOS}
    if not files:
        raise SystemExit("there is no picture and no video in these folders")
    return files


def kind(files: Files, endings: tuple[str, ...]) -> Files:
    return {name: data for name, data in files.items() if Path(name).suffix.lower() in endings}


def drawn() -> Files:
    """Smooth pictures with some grain: 16 of 1024x1024 in three codings, six videos of 5 s and two of 60 s."""
    files = {}
    for number in range(16):
        ending = ("jpg", "webp", "png")[number % 3]
        buffer = io.BytesIO()
        Image.fromarray(scene(number, 1024, 1024)).save(buffer, {"jpg": "JPEG"}.get(ending, ending), quality=92)
        files[f"{number}.{ending}"] = buffer.getvalue()
    for number, seconds in enumerate((5, 5, 5, 5, 5, 5, 60, 60)):
        files[f"{number}.mp4"] = video(number, seconds)
    return files


def scene(seed: int, height: int, width: int) -> Pixels:
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return (smooth + generator.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)


def video(seed: int, seconds: int) -> bytes:
    """640x360 at 24 frames a second, H.264 as encoders make it by default: a key frame every 250 frames, two B frames."""
    buffer, wide = io.BytesIO(), scene(seed, 360, 1280)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "veryfast", "g": "250", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(24 * seconds):
            shown = np.ascontiguousarray(np.roll(wide, -3 * number, axis=1)[:, :640])
            for packet in stream.encode(av.VideoFrame.from_ndarray(shown)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
