"""Judge records are labelled exactly, keep to their split, and are a function of their seed."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unified_reward.records import Choice, Mode, Subject, Task
from unified_reward.shapes import dataset, truth
from unified_reward.shapes.cases import make_case
from unified_reward.shapes.render import Look, render_clip, render_scene
from unified_reward.shapes.scenes import SPLITS, Clip, Scene, clips_of, scenes_of, split_of


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("split", SPLITS)
def test_labels_follow_from_the_facts(task, split):
    rng = np.random.default_rng(0)
    for _ in range(60):
        case = make_case(task, split, rng)
        assert all(split_of(item) == split for item in case.seen)
        if task.subject is Subject.UNDERSTANDING:
            facts = case.seen[0].facts()
            asked = {f: facts[f] for f in case.asked}
            recount = [list(truth.answer_facts(asked, a).values()).count(False) for a in case.answers]
        else:
            wanted = truth.stated_facts(case.prompt, case.asked)
            recount = [sum(item.facts()[f] != wanted[f] for f in case.asked) for item in case.seen]
        assert recount == case.wrong
        if task.mode is Mode.PAIR:
            assert case.choice is (Choice.FIRST if recount[0] < recount[1] else Choice.SECOND)
            assert case.score is None
            assert recount[0] != recount[1]
        else:
            assert case.choice is None
            assert case.score == truth.score_of(recount[0], len(case.asked))


@pytest.mark.parametrize("task", [t for t in Task if t.mode is Mode.PAIR])
def test_both_places_are_equally_often_better(task):
    rng = np.random.default_rng(0)
    first = sum(make_case(task, "train", rng).choice is Choice.FIRST for _ in range(400))
    assert 150 < first < 250


def test_check_list_and_grades_tell_the_same():
    for record, _ in dataset.judge_records("train", 200, seed=3):
        grades = "/".join(record.facts.values()).split("/")
        words = record.rationale.split()
        assert Counter(w for w in words if w in ("yes", "no")) == Counter(
            {"right": "yes", "wrong": "no"}[g] for g in grades
        )
        assert record.rationale.endswith(" .")
        assert record.rationale.count(" .") == 1


def test_records_are_a_function_of_their_seed():
    def draw(seed):
        return [(r, tuple(m)) for r, m in dataset.judge_records("test", 40, seed)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len({r.id for r, _ in draw(1)}) == 40


def test_shares_choose_the_tasks():
    only = {Task.VIDEO_GENERATION_PAIR: 3.0, Task.IMAGE_UNDERSTANDING_POINT: 1.0}
    counts = Counter(r.task for r, _ in dataset.judge_records("train", 200, 0, only))
    assert set(counts) == set(only)
    assert 120 < counts[Task.VIDEO_GENERATION_PAIR] < 180
    assert set(dataset.TASK_SHARES) == set(Task)
    assert sum(dataset.TASK_SHARES.values()) == pytest.approx(1)


def test_media_are_named_by_digest_and_lossless():
    for record, media in dataset.judge_records("validation", 60, 0):
        assert set(record.media) == set(media)
        for digest, data in media.items():
            assert dataset.digest_of(data) == digest
            assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == (4 if record.task.modality == "video" else 1)
    scene, clip = scenes_of("train")[0], clips_of("train")[0]
    look = Look(noise=8.0, seed=1)
    picture = Image.open(io.BytesIO(dataset.encode_media(render_scene(scene, look))))
    assert np.array_equal(np.asarray(picture), render_scene(scene, look))
    moving = Image.open(io.BytesIO(dataset.encode_media(render_clip(clip, look))))
    for number, frame in enumerate(render_clip(clip, look)):
        moving.seek(number)
        assert np.array_equal(np.asarray(moving.convert("RGB")), frame)


def test_policy_prompts_are_answered_by_their_reference():
    prompts = [p for p, _ in dataset.policy_prompts("test", 80, 0)]
    assert all(all(truth.answer_facts(p.truth, p.reference_answer).values()) for p in prompts)
    assert {len(p.truth) for p in prompts} == {1, 5}


def test_image_prompts_show_what_they_ask():
    for split in SPLITS:
        for prompt in dataset.image_prompts(split):
            scene = Scene(size="large", position="center", **prompt.truth)
            assert prompt.split == split == split_of(scene)
            assert all(truth.grade_image(prompt, render_scene(scene)).values())


def test_render_tells_scenes_from_clips():
    assert dataset.render(Scene("small", "red", "ring", "top", "gray"), Look()).shape == (32, 32, 3)
    assert dataset.render(Clip("red", "ring", "up", "gray"), Look()).shape == (4, 32, 32, 3)
