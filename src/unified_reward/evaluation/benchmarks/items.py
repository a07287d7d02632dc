"""The published data of a benchmark as what is asked of a judge: words, media and answers, item by item.

Media are paths below a folder that the reader names, or, in Parquet, the bytes themselves ({"bytes", "path"}); a clip may
be a list of frames. An item that the judge's tasks cannot ask (text and images mixed within an answer) is counted, not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.fields import first_of
from unified_reward.evaluation.benchmarks.files import Row, files_in, read_rows
from unified_reward.records import Modality, Subject

PROMPTS = ("prompt", "query", "question", "caption", "target_prompt", "instruct_prompt", "instruction")
IMAGES, VIDEOS = ("image", "images", "image_path"), ("video", "video_path", "images", "frames")
ANSWERS = ("response", "responses", "answers")
PAIR_PATHS = (
    ("path_A", "path_B"), ("path1", "path2"), ("left_video", "right_video"), ("video_left", "video_right"),
    ("left_image", "right_image"), ("left_output_image", "right_output_image"), ("image_left", "image_right"),
)  # fmt: skip
RANKED = ("generations", "image_path", "images", "file_path")

Medium = str | bytes | tuple[str, ...]  # path, file, or paths of frames


@dataclass(frozen=True)
class Item:
    """row: of the data. Generation: media are what is judged, two or (rankings) more. Understanding: answers are, two."""

    row: Mapping[str, Any]
    prompt: str
    media: tuple[Medium, ...]
    answers: tuple[str, ...] = ()
    task: str = ""  # MMRB2 only

    @property
    def subject(self) -> Subject:
        return Subject.UNDERSTANDING if self.answers else Subject.GENERATION


@dataclass(frozen=True)
class Questions:
    """items, and how many of the data could not be asked."""

    modality: Modality
    items: list[Item] = field(default_factory=list)
    left_out: int = 0


MODALITY: Mapping[str, Modality] = {
    "genai-bench-image": Modality.IMAGE, "genai-bench-edit": Modality.IMAGE, "genai-bench-video": Modality.VIDEO,
    "vl-rewardbench": Modality.IMAGE, "videogen-rewardbench": Modality.VIDEO, "react-video": Modality.VIDEO,
    "sharegptvideo-1k": Modality.VIDEO, "imagereward": Modality.IMAGE, "hpdv2": Modality.IMAGE, "hpdv3": Modality.IMAGE,
    "mmrb2": Modality.IMAGE,
}  # fmt: skip
ABOUT_MEDIA = ("vl-rewardbench", "sharegptvideo-1k")
RANKINGS = ("imagereward", "hpdv2")


def check_asks_a_judge(benchmark: str) -> None:
    if benchmark not in MODALITY:
        raise UserError(field="BENCHMARK", value=benchmark, why="it measures clips, and asks no judge",
                        fix="Score its results with --verdicts.")  # fmt: skip


def read_questions(benchmark: str, data: Path, limit: int = 0) -> Questions:
    """What to ask, of at most `limit` rows a file (0 = all). UserError for a benchmark that asks no judge."""
    check_asks_a_judge(benchmark)
    items: list[Item] = []
    left_out = 0
    for file in files_in(data, "--data"):
        for row in read_rows(file, "--data")[: limit or None]:
            item = _mixed(file, row) if benchmark == "mmrb2" else _item(benchmark, file, row)
            items += [item] if item else []
            left_out += item is None
    return Questions(MODALITY[benchmark], items, left_out)


def _item(benchmark: str, path: Path, row: Row) -> Item:
    if benchmark in ABOUT_MEDIA:
        answers = _needed(path, row, ANSWERS)
        if not isinstance(answers, list) or len(answers) != 2:
            raise row.error(path, "it has not two answers", 'Write the two as "response": [first, second].')
        seen = _needed(path, row, VIDEOS if MODALITY[benchmark] is Modality.VIDEO else IMAGES)
        return Item(row.values, _prompt(path, row), (_medium(path, row, seen),), (str(answers[0]), str(answers[1])))
    if benchmark in RANKINGS:
        ranked = _needed(path, row, RANKED)
        if not isinstance(ranked, list) or len(ranked) < 2:
            raise row.error(path, "it has no list of images", 'Write their paths as "generations".')
        return Item(row.values, _prompt(path, row), tuple(_medium(path, row, one) for one in ranked))
    for names in PAIR_PATHS:
        if all(name in row.values for name in names):
            return Item(row.values, _prompt(path, row), tuple(_medium(path, row, row.values[name]) for name in names))
    raise row.error(path, "it does not say where its two items are", 'Write their paths as "path_A" and "path_B".')


def _prompt(path: Path, row: Row) -> str:
    # of an edit, what the target shows is what is judged: the judge's templates have no place for the source
    name = first_of(row, ("target_prompt",)) or first_of(row, PROMPTS)
    if name is None or not isinstance(row.values[name], str):
        raise row.error(path, "it has no prompt", 'Write what was asked for as "prompt".')
    return str(row.values[name])


def _needed(path: Path, row: Row, names: Sequence[str]) -> Any:
    name = first_of(row, names)
    if name is None:
        raise row.error(path, f"it has none of {', '.join(names)}", "Name the benchmark's own data.")
    return row.values[name]


def _medium(path: Path, row: Row, value: Any) -> Medium:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return str(value[0]) if len(value) == 1 else tuple(value)
    if isinstance(value, str | bytes) and value:
        return value
    raise row.error(path, "one of its media is no path", "Write the path of the file, from the folder of --media.")


def _mixed(path: Path, row: Row) -> Item | None:
    """A pair of MMRB2: a text with one image as each response, or an image and a text with a text as each response."""
    asked = row.values.get("prompt_content")
    given = [(row.values.get(name) or {}).get("response_content") for name in ("response_a", "response_b")]
    if not all(isinstance(part, list) for part in (asked, *given)):
        raise row.error(path, "it has no prompt_content, or no response_content",
                        "Build the benchmark's files first, as its README says.")  # fmt: skip
    assert isinstance(asked, list)
    words, shown = _parts(asked)
    texts, images = zip(*(_parts(part) for part in given if isinstance(part, list)), strict=True)
    task = path.name.split(".")[0].removesuffix("_response_only")
    prompt = "\n".join(words)
    if not shown and all(len(one) == 1 for one in images) and not any(texts):
        return Item(row.values, prompt, tuple(one[0] for one in images), task=task)
    if len(shown) == 1 and not any(images):
        return Item(row.values, prompt, (shown[0],), tuple("\n".join(one) for one in texts), task=task)
    return None


def _parts(content: Sequence[Any]) -> tuple[list[str], list[str]]:
    return [str(value) for kind, value in content if kind == "text"], [
        str(value) for kind, value in content if kind == "image"
    ]
