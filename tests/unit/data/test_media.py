"""Pictures and clips decode to the pixels that went in; what does not decode is an error, never black frames."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from unified_reward.data.frames import pack_frames
from unified_reward.data.media import MediaError, MediaLimits, decode, frame_indices
from unified_reward.data.video import decode_video

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
CLIP = RNG.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(f) for f in (pixels if pixels.ndim == 4 else pixels[None])]
    frames[0].save(buffer, form, save_all=len(frames) > 1, append_images=frames[1:], **options)
    return buffer.getvalue()


def video(frames: int, size: tuple[int, int] = (64, 48), rate: int = 10) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            shade = np.full((size[1], size[0], 3), number * 20 % 256, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP"])
def test_lossless_pictures_come_back_exactly(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode(encoded(PICTURE, form, **options)), PICTURE)


def test_an_animated_png_is_a_clip() -> None:
    assert np.array_equal(decode(encoded(CLIP, "PNG")), CLIP)


def test_frames_of_a_video_are_sampled_evenly_from_first_to_last() -> None:
    clip = decode(video(12), MediaLimits(frames=4))
    assert clip.shape == (4, 48, 64, 3)
    assert [round(float(frame.mean()) / 20) for frame in clip] == frame_indices(12, 4) == [0, 3, 7, 11]


def test_a_clip_shorter_than_asked_for_gives_each_frame_once() -> None:
    assert frame_indices(3, 8) == [0, 1, 2]
    assert frame_indices(5, None) == [0, 1, 2, 3, 4]


def test_the_longer_side_is_scaled_down_and_never_up() -> None:
    assert decode(encoded(PICTURE, "PNG"), MediaLimits(max_side=15)).shape == (10, 15, 3)
    assert decode(encoded(PICTURE, "PNG"), MediaLimits(max_side=100)).shape == (20, 30, 3)


def test_transparent_parts_are_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert decode(buffer.getvalue()).min() == 255


def container_without_frames() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    return buffer.getvalue()


def container_without_video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for packet in [*stream.encode(silence), *stream.encode()]:
            container.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a picture at all", r"cannot be read \(not of a known format\)"),
        (encoded(PICTURE, "PNG")[:60], "cannot be read"),
        (video(12)[:300], "cannot be decoded|no frames|frames asked for"),
        (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 64, "cannot be decoded|no video"),
        (container_without_frames(), "cannot be decoded|no frames"),
        (container_without_video(), "no video stream"),
    ],
    ids=["empty", "text", "cut picture", "cut video", "empty container", "no frames", "sound only"],
)
def test_what_cannot_be_decoded_is_an_error_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        decode(data)


def test_limits_refuse_before_decoding() -> None:
    with pytest.raises(MediaError, match="30x20 pixels, more than 100"):
        decode(encoded(PICTURE, "PNG"), MediaLimits(max_pixels=100))
    with pytest.raises(MediaError, match="bytes, more than 10"):
        decode(encoded(PICTURE, "PNG"), MediaLimits(max_bytes=10))
    with pytest.raises(MediaError, match="s long, more than 1 s"):
        decode(video(30), MediaLimits(max_seconds=1.0))


SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real media is not beside this repository")
def test_real_media_of_the_field_decode() -> None:
    pictures = [decode(path.read_bytes()) for path in sorted((SHARED / "imagereward").glob("*.webp"))]
    assert [p.shape for p in pictures] == [(512, 512, 3)] * 4
    clip = decode((SHARED / "videoalign" / "videos" / "example_3_B.mp4").read_bytes(), MediaLimits(8, 64))
    assert clip.shape[0] == 8
    assert max(clip.shape[1:3]) == 64
    assert clip.std() > 10


def long_video(frames: int, gop: int, rate: int = 25, codec: str = "libx264") -> bytes:
    """A clip whose frames differ all over, with a key frame every `gop` frames and frames others are not built on."""
    buffer = io.BytesIO()
    ramp = np.linspace(0, 160, 48 * 64, dtype=np.float32).reshape(48, 64, 1)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": str(gop), "bf": "2", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.repeat(np.roll(ramp, 7 * number, axis=1) + number % 90, 3, axis=2).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def all_frames(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("frames", "gop"), [(300, 30), (150, 400), (90, 12)], ids=["jumps", "one key frame", "short gaps"]
)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_jumping_and_skipping_give_the_frames_that_decoding_all_gives(frames: int, gop: int, codec: str) -> None:
    data = long_video(frames, gop, codec=codec)
    every = all_frames(data)
    for wanted in (1, 2, 8, 16):
        clip = decode(data, MediaLimits(frames=wanted, max_side=None))
        assert np.array_equal(clip, np.stack([every[i] for i in frame_indices(frames, wanted)]))


def recorded(form: str, codec: str, frames: int = 12) -> bytes:
    """Frames of growing brightness."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            shade = np.full((48, 64, 3), number * 20, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def test_a_video_without_time_stamps_is_read_by_number() -> None:
    data = recorded("h264", "libx264")
    with av.open(io.BytesIO(data)) as container:
        assert {packet.pts for packet in container.demux(video=0) if packet.size} == {None}
    clip = decode_video(data, MediaLimits(frames=4))[0]
    assert [round(float(frame.mean()) / 20) for frame in clip] == [0, 3, 7, 11]


@pytest.mark.parametrize(
    ("form", "codec"), [("avi", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx-vp9"), ("mov", "mpeg4")]
)
def test_containers_of_all_kinds_are_told_and_read(form: str, codec: str) -> None:
    clip = decode(recorded(form, codec), MediaLimits(frames=4))
    assert [round(float(frame.mean()) / 20) for frame in clip] == [0, 3, 7, 11]


def test_frames_in_a_folder_are_one_clip_with_the_same_digest_whenever_packed() -> None:
    packed = pack_frames([encoded(frame, "PNG") for frame in CLIP])
    assert packed == pack_frames([encoded(frame, "PNG") for frame in CLIP])
    assert np.array_equal(decode(packed), CLIP)
    assert np.array_equal(decode(packed, MediaLimits(frames=2)), CLIP[[0, 4]])
    with pytest.raises(MediaError, match="not pictures of one size"):
        decode(pack_frames([encoded(CLIP[0], "PNG"), encoded(PICTURE, "PNG")]))
    with pytest.raises(MediaError, match="the frames cannot be read"):
        decode(packed[:-40])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real media is not beside this repository")
def test_real_videos_give_the_frames_that_decoding_all_gives() -> None:
    for path in sorted((SHARED / "videoalign" / "videos").glob("example_[23]_?.mp4")):
        with av.open(str(path)) as container:
            every = [frame.to_image() for frame in container.decode(video=0)]
        clip = decode(path.read_bytes(), MediaLimits(8, None))
        assert np.array_equal(clip, np.stack([np.asarray(every[i]) for i in frame_indices(len(every), 8)])), path.name
