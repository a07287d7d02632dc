"""Packs load, say what is wrong with them, and survive a round trip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.judge.pack import PairTemplate, builtin_packs, load_pack, parse_pack
from unified_reward.records import Mode, Task

GOOD = """
name: mine
version: 1
tasks:
  image_understanding_pair:
    prompt: "{media} {prompt} {answer_1} {answer_2}"
    verdict: {1: " one", 2: " two"}
  image_generation_point:
    prompt: "{media} {prompt}"
    scores: {" 1": 1, " 2": 2}
"""


@pytest.mark.parametrize("name", ["default", "shapes"])
def test_packs_that_ship_hold_all_eight_tasks(name: str) -> None:
    pack = load_pack(name)
    assert set(pack.tasks) == set(Task)
    for task in Task:
        template = pack.template(task)
        assert isinstance(template, PairTemplate) == (task.mode is Mode.PAIR)
        assert template.strings


def test_unquoted_keys_are_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    pack = load_pack(str(path))
    assert pack.pair(Task.IMAGE_UNDERSTANDING_PAIR).strings == {"1": " one", "2": " two"}
    assert pack.point(Task.IMAGE_GENERATION_POINT).range == (1, 2)
    assert pack.label(Task.IMAGE_GENERATION_POINT) == "mine@1:image_generation_point"


@pytest.mark.parametrize("name", ["default", "shapes"])
def test_a_pack_written_out_is_the_pack_read_in(name: str) -> None:
    pack = load_pack(name)
    assert parse_pack(pack.to_yaml(), origin="again") == pack


def test_foreign_placeholders_are_replaced_before_the_check() -> None:
    text = GOOD.replace("{answer_1} {answer_2}", "{r1} {r2}").replace(
        "version: 1", 'version: 1\nreplace: {"{r1}": "{answer_1}", "{r2}": "{answer_2}"}'
    )
    assert parse_pack(text, origin="x") == parse_pack(GOOD, origin="x")


FAULTS = {
    "unknown task": ("image_generation_point:", "image_generation_pint:", "tasks.image_generation_pint",
                     "Did you mean 'image_generation_point'"),
    "unknown field": ("    scores:", "    skores: 3\n    scores:", "tasks.image_generation_point.skores", "Remove it"),
    "unknown placeholder": ("{answer_2}", "{answer2}", "tasks.image_understanding_pair.prompt", "{answer2}"),
    "answer not shown": (" {answer_2}", "", "tasks.image_understanding_pair.prompt", "{answer_2} is missing"),
    "media twice": ('"{media} {prompt} {answer_1}', '"{media} {media_1} {prompt} {answer_1}',
                    "tasks.image_understanding_pair.prompt", "twice"),
    "one verdict": (', 2: " two"', "", "tasks.image_understanding_pair.verdict", "'2' has no text"),
    "same words": ('2: " two"', '2: "one "', "tasks.image_understanding_pair.verdict", "same text"),
    "one score": (', " 2": 2', "", "tasks.image_generation_point.scores", "no scale"),
    "no scores": ('    scores: {" 1": 1, " 2": 2}', "", "tasks.image_generation_point.scores", "range"),
    "score is no number": ('" 2": 2', '" 2": high', "tasks.image_generation_point.scores. 2", "valid number"),
    "no version": ("version: 1\n", "", "version", "Add it"),
    "not YAML": ("tasks:", "tasks: [", "mine.yaml", "not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_field_and_way_out(fault: str, tmp_path: Path) -> None:
    old, new, field, words = FAULTS[fault]
    assert old in GOOD
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_pack(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert field in message
    assert words in message
    assert "\n" not in message


def test_a_mistyped_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(UserError, match=r"shape.*Did you mean 'shapes'.*default, shapes"):
        load_pack("shape")
    assert builtin_packs() == ["default", "shapes"]


def test_a_task_the_pack_lacks_is_named() -> None:
    with pytest.raises(UserError, match=r"mine.*no video_generation_pair"):
        parse_pack(GOOD, origin="x").template(Task.VIDEO_GENERATION_PAIR)


def test_the_pack_in_the_documentation_loads() -> None:
    page = (Path(__file__).parents[3] / "docs" / "judge.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    pack = parse_pack(example, origin="docs/judge.md")
    assert '"{prompt}"' in pack.pair(Task.IMAGE_GENERATION_PAIR).prompt
    assert pack.point(Task.IMAGE_GENERATION_POINT).range == (1, 10)
