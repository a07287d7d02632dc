"""The world's facts, splits, words, pixels and grades agree with one another."""

import itertools

import numpy as np
import pytest

from unified_reward.records import Modality, Prompt, Subject
from unified_reward.shapes import language, truth
from unified_reward.shapes.render import Look, clean_look, render_clip, render_scene, rough_look
from unified_reward.shapes.scenes import (
    CLIP_FACTS,
    SCENE_FACTS,
    SHORT_FACTS,
    SPLITS,
    VALUES,
    Clip,
    Scene,
    all_clips,
    all_scenes,
    changed,
    clips_of,
    scenes_of,
    short_triples,
    split_of,
)

SCENE = Scene("large", "red", "ring", "left", "white")
CLIP = Clip("orange", "cross", "up", "gray")


def test_every_scene_and_clip_is_in_one_split():
    assert (len(all_scenes()), len(all_clips())) == (720, 288)
    for everything, of in ((all_scenes(), scenes_of), (all_clips(), clips_of)):
        parts = [set(of(split)) for split in SPLITS]
        assert set.union(*parts) == set(everything)
        assert sum(map(len, parts)) == len(everything)
        assert 0.75 < len(parts[0]) / len(everything) < 0.85
        for facts in everything[0].facts():  # a value that training never shows could not be learned
            assert {s.facts()[facts] for s in parts[0]} == {s.facts()[facts] for s in everything}


def test_split_does_not_move():
    """Weights that ship were trained on this split: moving it would put test scenes into their training."""
    assert [split_of(s) for s in (SCENE, CLIP)] == ["train", "validation"]
    assert [len(scenes_of(s)) for s in SPLITS] == [572, 68, 80]
    assert [len(clips_of(s)) for s in SPLITS] == [228, 26, 34]
    assert short_triples("test")[0] == ("yellow", "triangle", "black")


def test_what_an_image_policy_draws_has_its_captions_split():
    assert [len(short_triples(s)) for s in SPLITS] == [48, 12, 12]
    for split in SPLITS:
        for color, shape, background in short_triples(split):
            assert split_of(Scene("large", color, shape, "center", background)) == split


@pytest.mark.parametrize("count", range(6))
def test_changed_changes_exactly_the_named_facts(count):
    rng = np.random.default_rng(count)
    which = rng.permutation(SCENE_FACTS)[:count].tolist()
    other = changed(SCENE.facts(), which, rng)
    assert {f for f in SCENE_FACTS if other[f] != SCENE.facts()[f]} == set(which)


def test_captions_say_their_facts_and_nothing_else():
    for item in (*all_scenes(), *all_clips()):
        facts = item.facts()
        assert truth.stated_facts(language.caption(facts), list(facts)) == facts
    assert language.caption(SCENE.facts()) == "a large red ring at the left on a white background"
    assert language.caption(CLIP.facts()) == "an orange cross moving up on a gray background"
    assert language.caption(language.short(SCENE.facts())) == "a red ring on a white background"


def test_check_lists():
    facts = SCENE.facts()
    wrong = facts | {"color": "blue"}
    assert language.check_texts(facts, [facts, wrong], ("size", "color")) == " large yes yes red yes no ."
    assert language.check_media([wrong, facts], facts, ("color", "shape")) == " 1 blue no ring yes 2 red yes ring yes ."
    assert language.check_media([wrong], facts, ("color",)) == " blue no ."


@pytest.mark.parametrize("look", [clean_look, rough_look])
def test_the_matcher_reads_what_was_drawn(look):
    """The truth of image policies: nearly exact on clean pictures, still good on rough ones."""
    rng = np.random.default_rng(0)
    scenes = [all_scenes()[i] for i in rng.permutation(720)[:150]]
    read = [truth.read_image(render_scene(s, look(rng)), SCENE_FACTS) for s in scenes]
    for fact in SCENE_FACTS:
        accuracy = np.mean([r[fact] == s.facts()[fact] for r, s in zip(read, scenes, strict=True)])
        assert accuracy >= (0.99 if look is clean_look else 0.95), fact


def draw_prompt(**facts):
    return Prompt(id="p", split="test", modality=Modality.IMAGE, subject=Subject.GENERATION, text="", truth=facts)


def test_pictures_are_graded_fact_by_fact():
    scene = Scene("large", "green", "cross", "center", "black")
    prompt = draw_prompt(color="green", shape="ring", background="black")
    assert truth.grade_image(prompt, render_scene(scene)) == {"color": True, "shape": False, "background": True}


@pytest.mark.parametrize(
    "picture", [np.zeros((32, 32, 3)), np.full((32, 32, 3), 250), np.random.default_rng(0).integers(0, 256, (32, 32, 3))],
    ids=["black", "white", "noise"],
)  # fmt: skip
def test_a_picture_of_nothing_shows_no_shape(picture):
    assert truth.read_image(picture.astype(np.uint8))["shape"] == "none"


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected \(32, 32, 3\)"):
        truth.read_image(np.zeros((64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("facts", "text", "wrong"),
    [
        (SCENE_FACTS, "a large red ring at the left on a white background", 0),
        (SCENE_FACTS, " A large red ring at the left on a white background.", 0),
        (SCENE_FACTS, "a large blue ring at the left on a black background", 2),
        (SCENE_FACTS, "a large red ring", 2),
        (SCENE_FACTS, "a large red blue ring at the left on a white background", 1),
        (SCENE_FACTS, "", 5),
        (("color",), " red", 0),
        (("color",), "red.", 0),
        (("color",), "blue", 1),
        (("color",), "red or blue", 1),
        (("color",), "it is not red", 1),
    ],
)
def test_answers_are_graded_by_their_words(facts, text, wrong):
    asked = {f: SCENE.facts()[f] for f in facts}
    assert list(truth.answer_facts(asked, text).values()).count(False) == wrong


def test_scores():
    assert [truth.score_of(w, 5) for w in range(6)] == [5, 4, 3, 2, 1, 1]
    assert [truth.score_of(w, 3) for w in range(4)] == [5, 4, 3, 1]
    assert [truth.score_of(w, 1) for w in range(2)] == [5, 1]


def test_clips_move_as_they_say():
    def center(frame):
        weight = np.abs(frame.astype(float) - frame[0, 0]).sum(-1)
        return np.array([(weight.sum(0) * np.arange(32)).sum(), (weight.sum(1) * np.arange(32)).sum()]) / weight.sum()

    for move, (axis, sign) in {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}.items():
        frames = render_clip(Clip("red", "square", move, "white"))
        path = np.array([center(f) for f in frames])
        assert frames.shape == (4, 32, 32, 3)
        assert (np.diff(path[:, axis]) * sign > 2).all()
        assert np.ptp(path[:, 1 - axis]) < 0.5


def test_the_same_look_draws_the_same_picture():
    look = rough_look(np.random.default_rng(3))
    assert np.array_equal(render_scene(SCENE, look), render_scene(SCENE, look))
    assert not np.array_equal(render_scene(SCENE, look), render_scene(SCENE, Look()))


def test_every_value_has_words_of_its_own():
    """An answer is read by its words, so no word may mean two values of facts that occur together."""
    for facts in (SCENE_FACTS, CLIP_FACTS, SHORT_FACTS):
        for a, b in itertools.combinations(facts, 2):
            assert not set(VALUES[a]) & set(VALUES[b])
