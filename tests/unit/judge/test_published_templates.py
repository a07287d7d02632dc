"""The prompts that released checkpoints were trained with load as packs a user writes, and their answers are read.

The prompts are not ours to ship; the test reads them from beside the repository, and is skipped where they are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unified_reward.errors import UserError
from unified_reward.judge.grammar import read_aspects, read_choice, read_score
from unified_reward.judge.pack import Pack, load_pack
from unified_reward.judge.published import prompt_places, write_packs
from unified_reward.judge.query import Query
from unified_reward.judge.render import query_segments
from unified_reward.models.vlm import Vlm
from unified_reward.records import Mode, Subject, Task

FILE = Path(__file__).parents[3].parent / "shared" / "reference" / "official_judge_templates.json"
if not FILE.is_file():
    pytest.skip("the published prompts are not beside the repository", allow_module_level=True)
PROMPTS: dict[str, str] = json.loads(FILE.read_text())

SHARES_SAID = "Alignment Score:\n Image 1: 0.8\n Image 2: 0.2\n\nStyle Score:\n Image 1: 0.5\n Image 2: 0.5"
THINK = "<think>\nTotal score:\n{0} 1: 9+8=17\n{0} 2: 7+7=14\n</think>\n<answer>{0} 1 is better</answer>"
FLEX = '{{"categories": [{{"cat_winner": "{0} 1"}}], "reason": "...", "winner": "{0} 2"}}'
IG, IU, VG, VU = "image_generation", "image_understanding", "video_generation", "video_understanding"

# template -> (task, an answer in the published form, what it means)
CASES: dict[str, tuple[str, str, object]] = {
    "IG_PAIR": (f"{IG}_pair", "Image 2 is better than Image 1. It is sharper.", "2"),
    "IG_PAIR_QWEN": (f"{IG}_pair", "Both images are equally good.", "tie"),
    "IG_POINT": (f"{IG}_point", "cat (object): 1\nhat (object): 0\nFinal Score: 3.7", 3.7),
    "IG_ACS_V15": (
        f"{IG}_point",
        'Word-wise Scores: [["cat", 0.2]]\n\nAlignment Score (1-5): 4\nCoherence Score (1-5): 3.5\nStyle Score (1-5): 3',
        3.5,
    ),
    "IG_ACS_20": (f"{IG}_point", "Alignment Score (1-5): 4\nCoherence Score (1-5): 3\nStyle Score (1-5): 1", 8 / 3),
    "IG_PAIRSCORE_20": (f"{IG}_pair", SHARES_SAID, "1"),
    "IU_PAIR_LONG": (f"{IU}_pair", "The second response is better because it names the dog.", "2"),
    "IU_PAIR_SHORT": (f"{IU}_pair", "Answer 1 is better.", "1"),
    "IU_PAIR_CONSTR": (
        f"{IU}_pair",
        "1. Accuracy: Answer 1 is better here.\nOverall Judgment: Answer 2 is better.",
        "2",
    ),
    "IU_POINT": (f"{IU}_point", "It names 3 of 4 things.\nFinal Score: 85", 85),
    "VG_PAIR_LONG": (f"{VG}_pair", "Video 1 is better than Video 2.", "1"),
    "VG_PAIR_SHORT": (f"{VG}_pair", "Video 2 is better", "2"),
    "VG_POINT": (f"{VG}_point", "visual quality: 4\ndynamic degree: 3\nFinal Score: 10", 10),
    "VG_POINT_SIFT": (f"{VG}_point", "Final Score: 9", 9),
    "VG_PAIRSCORE_20": (f"{VG}_pair", SHARES_SAID.replace("Image", "Video"), "1"),
    "VG_APS_20": (f"{VG}_point", "Alignment Score (1-5): 2\nPhysics Score (1-5): 3\nStyle Score (1-5): 4", 3),
    "VU_PAIR_LLAVA": (f"{VU}_pair", "Response 2 is better.", "2"),
    "VU_PAIR_ASSESS": (f"{VU}_pair", "...\nOverall Judgment: Answer 1 is better than Answer 2.", "1"),
    "VU_PAIR_CONSTR": (f"{VU}_pair", "...\n**Overall Judgment**: Answer 2 is better than Answer 1.", "2"),
    "VU_POINT": (f"{VU}_point", "Final Score: 4\nIt is mostly right.", 4),
    "THINK_IG": (f"{IG}_pair", THINK.format("Image"), "1"),
    "THINK_IU": (f"{IU}_pair", THINK.format("Answer"), "1"),
    "THINK_VG": (f"{VG}_pair", THINK.format("Video"), "1"),
    "THINK_VU": (f"{VU}_pair", THINK.format("Answer"), "1"),
    "EDIT_PAIR_RANK": (f"{IG}_pair", "Edited image 2 is better.", "2"),
    "EDIT_PAIR_SCORE": (f"{IG}_pair", "Edited Image 1: -0.42\nEdited Image 2: 1.31", "2"),
    "EDIT_POINT_IF": (f"{IG}_point", '{\n"reasoning" : "2 cats became dogs",\n"score" : [20, 24],\n}', 22),
    "EDIT_POINT_QUALITY": (f"{IG}_point", '{"reasoning": "natural", "score": [21, 18]}', 19.5),
    "FLEX_IMAGE": (f"{IG}_pair", FLEX.format("Image"), "2"),
    "FLEX_VIDEO": (f"{VG}_pair", FLEX.format("Video"), "2"),
}


def test_every_published_template_has_a_case() -> None:
    assert set(PROMPTS) == set(CASES)
    assert len(CASES) == 30


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files that `unified-reward pack` writes."""
    folder = tmp_path_factory.mktemp("packs")
    return {path.stem: path for path in write_packs(FILE, folder)}


@pytest.mark.parametrize("name", CASES)
def test_a_published_template_loads_renders_and_reads(
    name: str, packs: dict[str, Path], vlm: Vlm, pixels: Callable[[str], NDArray[np.uint8]]
) -> None:
    task, said, meaning = CASES[name]
    places = prompt_places()[name]
    assert {place for _, place in places} == {task}
    for pack in (load_pack(str(packs[holder])) for holder, _ in places):
        _check_rendering(pack, Task(task), PROMPTS[name], vlm, pixels)
        if Task(task).mode is Mode.PAIR:
            assert read_choice(said, pack.pair(Task(task)), Task(task)) == meaning
            assert read_choice("I cannot say.", pack.pair(Task(task)), Task(task)) == "unparsed"
        else:
            assert read_score(said, pack.point(Task(task))) == pytest.approx(meaning)
            assert read_score("I cannot say.", pack.point(Task(task))) is None


def test_each_aspect_of_a_published_answer_is_read(packs: dict[str, Path]) -> None:
    task = Task.IMAGE_GENERATION_POINT
    template = load_pack(str(packs["ur-2.0"])).point(task)
    assert list(read_aspects(CASES["IG_ACS_20"][1], template).values()) == [4, 3, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[1]", "it is no mapping of names to texts"),
        ('{"MINE": "Which is better?"}', "it holds no prompt of a known name. Names: IG_PAIR, IG_POINT"),
        ('{"IG_POINT": "How good is {caption}?"}', "{caption}: image_generation_point has no such placeholder"),
    ],
)
def test_a_file_that_gives_no_packs_is_refused(given: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(given)
    with pytest.raises(UserError, match=re.escape(message)):
        write_packs(tmp_path / "prompts.json", tmp_path / "packs")


def _check_rendering(
    pack: Pack, task: Task, published: str, vlm: Vlm, pixels: Callable[[str], NDArray[np.uint8]]
) -> None:
    """All media stand in the prompt, in order, and the text is the published one with its blanks filled in."""
    judged = 2 if task.mode is Mode.PAIR else 1
    generation = task.subject is Subject.GENERATION
    media = [f"{task.modality.value[0]}{n}" for n in range(judged if generation else 1)]
    filled = {"{prompt}": "a {r1} cat", "{query}": "what {r2}?", "{instruction}": "add a hat", "{r1}": "red", "{r2}": "blue",
              "{response}": "green"}  # fmt: skip
    prompt = next((filled[key] for key in ("{prompt}", "{query}", "{instruction}") if key in published), "")
    answers = () if generation else ("red", "blue") if task.mode is Mode.PAIR else ("green",)
    query = Query(task, prompt, tuple(media), answers)
    segments = query_segments(query, pack, pixels, vlm.processor)

    shown = [segment.image for segment in segments if segment.image is not None]
    wanted = [frame for digest in media for frame in (pixels(digest) if digest[0] == "v" else [pixels(digest)])]
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))

    text = "".join(segment.text for segment in segments)
    bare = published.replace("<image>", "").replace("{frames}", "")
    for blank in sorted(filled, key=lambda blank: bare.find(blank)):  # one blank once, first to last
        before, found, after = bare.partition(blank)
        bare = before + "\0" + blank + "\0" + after if found else bare
    for blank, words in filled.items():
        bare = bare.replace(f"\0{blank}\0", words)
    assert " ".join(bare.split()) in " ".join(text.split())
