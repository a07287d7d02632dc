"""The shapes world in the layouts of public benchmarks: data and media files, with labels that are known, not voted.

`write(benchmark, folder, count, seed)` writes the data file and the media beside it; all scenes are of the test split. A label
is a tie where both things have equally many facts wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unified_reward.records import Choice, Modality, Mode, Subject, Task
from unified_reward.shapes import language, truth
from unified_reward.shapes.cases import Case, make_case
from unified_reward.shapes.dataset import ROUGH_SHARE, digest_of, encode_media, render
from unified_reward.shapes.render import any_look
from unified_reward.shapes.scenes import Clip, Scene, clips_of, pick, scenes_of

SPLIT = "test"
TIE_SHARE = 0.35
RANKED_IMAGES = {"imagereward": 4, "hpdv2": 5}
Row = dict[str, Any]


def write(benchmark: str, folder: Path, count: int, seed: int = 0) -> Path:
    """The data of a benchmark's shapes version: a file, or for MMRB2 a folder of one file a task. Media: below `folder`."""
    world = _World(folder, np.random.default_rng([seed, 7]))
    if benchmark == "mmrb2":
        return _mmrb2(world, count)
    rows = []
    for world.number in range(count):
        rows.append(_ROWS[benchmark](world))
    path = folder / "data.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@dataclass
class _World:
    folder: Path
    rng: np.random.Generator
    number: int = 0  # of the item being made

    def draw(self, thing: Scene | Clip) -> str:
        """Renders it and returns the path of its file."""
        data = encode_media(render(thing, any_look(self.rng, ROUGH_SHARE)))
        path = Path("media") / f"{digest_of(data)[:24]}.png"
        (self.folder / path.parent).mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)
        return str(path)

    def things(self, modality: Modality, wrong: Sequence[int]) -> tuple[dict[str, str], list[Scene | Clip]]:
        """A caption's facts, and things that get so many of them wrong. Drawn again where the split has none such."""
        pool: Sequence[Scene | Clip] = scenes_of(SPLIT) if modality is Modality.IMAGE else clips_of(SPLIT)
        while True:
            wanted = pick(pool, self.rng).facts()
            by_wrong = {
                k: [one for one in pool if truth.wrong_facts(wanted, one.facts(), list(wanted)) == k] for k in wrong
            }
            if all(by_wrong.values()):
                return wanted, [pick(by_wrong[k], self.rng) for k in wrong]

    def pair_of_wrongs(self) -> tuple[int, int]:
        """How many facts each thing gets wrong; equal in TIE_SHARE of cases, half of these all right."""
        if self.rng.random() < TIE_SHARE:
            both = 0 if self.rng.random() < 0.5 else int(self.rng.integers(2, 4))
            return both, both
        better = int(self.rng.integers(0, 2))
        worse = better + int(self.rng.integers(1, 3))
        return (better, worse) if self.rng.random() < 0.5 else (worse, better)

    def case(self, modality: Modality, subject: Subject) -> Case:
        return make_case(Task.of(modality, subject, Mode.PAIR), SPLIT, self.rng)


def _tied_pair(world: _World, modality: Modality) -> tuple[str, tuple[int, int], list[str]]:
    wrong = world.pair_of_wrongs()
    wanted, things = world.things(modality, wrong)
    return language.caption(wanted), wrong, [world.draw(thing) for thing in things]


def _genai(modality: Modality, names: tuple[str, str], prompt: str) -> Callable[[_World], Row]:
    def row(world: _World) -> Row:
        caption, (left, right), paths = _tied_pair(world, modality)
        vote = "leftvote" if left < right else "rightvote" if right < left else "bothbad_vote" if left else "tievote"
        return {prompt: caption, names[0]: paths[0], names[1]: paths[1], "vote_type": vote}

    return row


def _video_pair(world: _World) -> Row:
    caption, (a, b), paths = _tied_pair(world, Modality.VIDEO)
    label = "A" if a < b else "B" if b < a else "same"
    return {"path_A": paths[0], "path_B": paths[1], "prompt": caption, "Overall": label, "TA": label}


def _react(world: _World) -> Row:
    """The group is how bad the worse of the two is."""
    caption, wrong, paths = _tied_pair(world, Modality.VIDEO)
    label = "A" if wrong[0] < wrong[1] else "B" if wrong[1] < wrong[0] else "same"
    return {"id": str(world.number), "path_A": paths[0], "path_B": paths[1], "prompt": caption, "Overall": label,
            "category": f"{max(wrong)} wrong"}  # fmt: skip


def _vl(world: _World) -> Row:
    """Questions about one fact stand for reasoning; captions are divided among the two other groups."""
    case = world.case(Modality.IMAGE, Subject.UNDERSTANDING)
    prefix = "mathverse" if len(case.asked) == 1 else ("hallucination", "RLAIF", "wildvision")[world.number % 3]
    ranking = [0, 1] if case.choice is Choice.FIRST else [1, 0]
    return {"id": f"{prefix}-{world.number}", "query": case.prompt, "response": case.answers, "image": world.draw(case.seen[0]),
            "human_ranking": ranking}  # fmt: skip


def _sharegpt(world: _World) -> Row:
    case = world.case(Modality.VIDEO, Subject.UNDERSTANDING)
    first, second = ("1", "2") if case.choice is Choice.FIRST else ("2", "1")
    return {"prompt": case.prompt, "video": world.draw(case.seen[0]), "responses": case.answers,
            "answer": f"Response {first} is better than Response {second}."}  # fmt: skip


def _hpdv3(world: _World) -> Row:
    """The better image first, as published."""
    case = world.case(Modality.IMAGE, Subject.GENERATION)
    better, worse = case.seen if case.choice is Choice.FIRST else case.seen[::-1]
    return {"prompt": case.prompt, "path1": world.draw(better), "path2": world.draw(worse)}


def _ranking(images: int, field: str, rank: str, *, ties: bool) -> Callable[[_World], Row]:
    def row(world: _World) -> Row:
        wrong = [int(k) for k in world.rng.permutation(images)]
        if ties and world.rng.random() < TIE_SHARE:
            wrong[0] = wrong[1]
        wanted, things = world.things(Modality.IMAGE, wrong)
        return {"id": str(world.number), "prompt": language.caption(wanted), field: [world.draw(thing) for thing in things],
                rank: [sorted(wrong).index(k) + 1 for k in wrong]}  # fmt: skip

    return row


_ROWS: Mapping[str, Callable[[_World], Row]] = {
    "genai-bench-image": _genai(Modality.IMAGE, ("left_image", "right_image"), "prompt"),
    "genai-bench-edit": _genai(Modality.IMAGE, ("left_output_image", "right_output_image"), "target_prompt"),
    "genai-bench-video": _genai(Modality.VIDEO, ("left_video", "right_video"), "prompt"),
    "vl-rewardbench": _vl,
    "videogen-rewardbench": _video_pair,
    "react-video": _react,
    "sharegptvideo-1k": _sharegpt,
    "hpdv3": _hpdv3,
    "imagereward": _ranking(RANKED_IMAGES["imagereward"], "generations", "ranking", ties=True),
    "hpdv2": _ranking(RANKED_IMAGES["hpdv2"], "image_path", "rank", ties=False),
}


def _mmrb2(world: _World, count: int) -> Path:
    """Two of the four tasks: pictures for a text, and answers about a picture."""
    folder = world.folder / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    for task, subject in (("t2i", Subject.GENERATION), ("reasoning", Subject.UNDERSTANDING)):
        rows = list(_mmrb2_rows(world, task, subject, count // 2))
        (folder / f"{task}.json").write_text(json.dumps({"pairs": rows}), encoding="utf-8")
    return folder


def _mmrb2_rows(world: _World, task: str, subject: Subject, count: int) -> Iterator[Row]:
    for number in range(count):
        case = world.case(Modality.IMAGE, subject)
        media = [["image", world.draw(thing)] for thing in case.seen]
        asked = [["text", case.prompt], *(media if subject is Subject.UNDERSTANDING else [])]
        given = [[["text", answer]] for answer in case.answers] or [[one] for one in media]
        yield {"id": f"{task}_{number}", "prompt_content": asked, "response_a": {"response_content": given[0]},
               "response_b": {"response_content": given[1]}, "chosen": "A" if case.choice is Choice.FIRST else "B"}  # fmt: skip
