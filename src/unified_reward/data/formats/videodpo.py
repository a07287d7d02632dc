"""VideoDPO (vidpro-vc2-dataset): pairs of clips of one caption, the better one first.

Rows of pair.json: video1 (better), video2, frame_caption, score. Videos are numbers of clips in metadata.json beside it
([{"basic": {"clip_path"}, ...}]); without that file they are winvideos/NNNNNN.mp4 (even) and losevideos/NNNNNN.mp4 (odd).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from unified_reward.data.examples import Example, File, Row, RowError, placed
from unified_reward.data.format import Format, has
from unified_reward.errors import UserError
from unified_reward.records import Task

BESIDE = "metadata.json"


def read(row: Row) -> list[Example]:
    return _read(row, _numbered)


def _opened(path: Path) -> Callable[[Row], Sequence[Example]]:
    clips = path.parent / BESIDE
    if not clips.is_file():
        return read
    try:
        paths = [str(clip["basic"]["clip_path"]) for clip in json.loads(clips.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, OSError) as error:
        why = f"it does not list clips ({type(error).__name__}: {error})"
        raise UserError(field="import.paths", value=clips, why=why, fix="Restore the file as published.") from error
    return partial(_read, place=lambda number: _listed(paths, number))


def _read(row: Row, place: Callable[[int], str]) -> list[Example]:
    caption = row.get("frame_caption")
    if isinstance(caption, list | tuple) and caption:
        caption = caption[0]
    if not isinstance(caption, str) or not caption.strip():
        raise RowError("no frame_caption", "" if caption is None else caption)
    numbers = []
    for key in ("video1", "video2"):
        value = row.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise RowError(f"{key} is no number of a clip", "" if value is None else value)
        numbers.append(value)
    better, worse = (File(place(number)) for number in numbers)
    first, second, choice = placed(better, worse, f"{caption} {numbers}")
    return [Example(task=Task.VIDEO_GENERATION_PAIR, prompt=caption.strip(), media=[first, second], choice=choice)]


def _numbered(number: int) -> str:
    return f"{'losevideos' if number % 2 else 'winvideos'}/{number // 2:06d}.mp4"


def _listed(paths: Sequence[str], number: int) -> str:
    if number >= len(paths):
        raise RowError(f"{BESIDE} has no such clip", number)
    return paths[number]


FORMAT = Format(
    "videodpo", "VideoDPO (vidpro-vc2-dataset, pair.json)", "none stated", has("video1", "video2", "frame_caption"), read,
    opened=_opened,
)  # fmt: skip
