"""What is given to `judge`: the right questions, or one line that names the option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unified_reward.errors import UserError
from unified_reward.judge_command import Asked, read_request
from unified_reward.records import Task


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 90, 180)]
    for name, frame in zip("abc", frames, strict=True):
        frame.save(tmp_path / f"{name}.png")
    frames[0].save(tmp_path / "clip.png", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return {path.name: path for path in tmp_path.iterdir()}


def read(files: dict[str, Path], **given: Any) -> Asked:
    named = {name: [files.get(file, Path(file)) for file in given.get(name, [])] for name in ("images", "videos")}
    words = {name: given.get(name, "") for name in ("caption", "question")}
    return read_request(**named, **words, answers=given.get("answers", []))


def test_two_pictures_of_a_caption_are_a_pair_and_two_points(files: dict[str, Path]) -> None:
    asked = read(files, images=["a.png", "b.png"], caption="dark")
    pair = asked.pair()
    assert pair is not None
    assert (pair.task, pair.prompt, len(pair.media)) == (Task.IMAGE_GENERATION_PAIR, "dark", 2)
    assert [(q.task, q.media) for q in asked.points()] == [
        (Task.IMAGE_GENERATION_POINT, (digest,)) for digest in pair.media
    ]
    assert asked.labels == ("a.png", "b.png")
    assert [asked.pixels[digest][0, 0, 0] for digest in pair.media] == [0, 90]


def test_two_answers_about_a_clip_are_a_pair_and_two_points(files: dict[str, Path]) -> None:
    asked = read(files, videos=["clip.png"], question="how dark?", answers=["very", "not"])
    pair = asked.pair()
    assert pair is not None
    assert (pair.task, pair.answers) == (Task.VIDEO_UNDERSTANDING_PAIR, ("very", "not"))
    assert [q.answers for q in asked.points()] == [("very",), ("not",)]
    assert next(iter(asked.pixels.values())).shape == (3, 8, 8, 3)


def test_one_item_is_a_point_alone(files: dict[str, Path]) -> None:
    assert read(files, images=["a.png"], caption="dark").pair() is None
    assert len(read(files, images=["a.png", "b.png"], question="?", answers=["x"]).points()[0].media) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"images": ["a.png"], "videos": ["clip.png"], "caption": "x"},
            "--video is .*Give --image or --video, not both",
        ),
        ({"images": ["a.png"]}, "--caption is not set: .*Give --caption or --question"),
        ({"images": ["a.png"], "caption": "x", "question": "y"}, "--caption is x: .*not both"),
        ({"caption": "x"}, "--image or --video is 0: a caption is judged with one or two"),
        ({"images": ["a.png", "b.png", "c.png"], "caption": "x"}, "--image or --video is 3: .*one or two"),
        ({"images": ["a.png"], "caption": "x", "answers": ["y"]}, "--answer is y: a caption has no answers"),
        ({"question": "x", "answers": ["y"]}, "--image or --video is not set: the question must be about something"),
        ({"images": ["a.png"], "question": "x"}, "--answer is 0: one or two answers"),
        ({"images": ["none.png"], "caption": "x"}, r"--image is none\.png: it cannot be read \(No such file"),
        ({"images": ["broken.png"], "caption": "x"}, r"--image is .*broken\.png: the picture cannot be read"),
        ({"images": ["clip.png"], "caption": "x"}, r"--image is .*clip\.png: it is a clip\. Give it as --video"),
        ({"videos": ["a.png"], "caption": "x"}, r"--video is .*a\.png: it is a single picture\. Give it as --image"),
    ],
)
def test_a_mistake_names_the_option(files: dict[str, Path], given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(files, **given)
