"""Each published layout: a hand-written row of it, the record it must give, a row it must refuse, and how it is told."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from unified_reward.data.examples import Example, File, Frames, Inline, RowError
from unified_reward.data.formats import FORMATS, evalmuse, format_named, format_of
from unified_reward.data.frames import pack_frames
from unified_reward.errors import UserError
from unified_reward.records import Choice, Task

SHARED = Path(__file__).parents[4] / "shared" / "data"
FRAMES = [f"win/{i}.png" for i in range(8)] + [f"lose/{i}.png" for i in range(8)]
IMAGE = {"bytes": b"png", "path": "a.png"}
IU_PAIR = (
    "<image>\nReview the responses by 5 factors.\nYour task is provided as follows:\nQuestion: [What is it?]\n"
    "The first response: [A cat.]\nThe second response: [A [red] dog,\nin a hat.]\nASSISTANT:\n"
)
IG_PAIR = "<image>\n <image>\nYou are given a text caption and two generated images.\nText Caption: [a cat [red]]"
VG_PAIR = "<image>\nYou are given the frames of two generated videos.\nText Caption: [a cat runs]"
IG_POINT = "<image>\nassign a score from 1 to 5 after 'Final Score:'.\nText Caption: [a cat]"
VF_ANSWER = (
    "visual quality: 3\ntemporal consistency: 2\ndynamic degree: 4\ntext-to-video alignment: 1\nfactual consistency: 2"
)
LIFT = "<video>\n A crane stands. Please identify the motion issues in this video, focusing on smoothness."


def talk(human: str, gpt: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


ROWS: dict[str, dict[str, Any]] = {
    "hpd": {"prompt": "a cat", "image1": IMAGE, "image2": IMAGE, "votes_image1": 5, "votes_image2": 21, "model1": "flux"},
    "oip": {"prompt": "a cat", "chosen": IMAGE, "rejected": {"bytes": b"other", "path": "b.png"}, "category": "Anime"},
    "evalmuse": {"prompt_id": "7", "prompt": "a red cat", "img_path": "SDXL/1.png", "total_score": [4, 5, 3],
                 "element_score": {"cat (animal)": [1, 1, 0], "red (color)": [0, 1, 0]}, "promt_meaningless": [0, 0, 0]},
    "llava-critic": {"id": "vl_1", "source": "vlfeedback", "image": IMAGE,
                     "conversations": talk(IU_PAIR, "The better response: [2]. It names the hat and its colour.")},
    "videodpo": {"video1": 6, "video2": 7, "frame_caption": ["a cat runs"], "score": 0.8},
    "lift-hra": {"video": "v.mp4", "conversations": talk(LIFT, "Bad. The legs jump about between frames.")},
    "videofeedback": {"id": "p1", "images": ["p1_00.jpg", "p1_01.jpg"], "text prompt": "a cat", "visual quality": 3,
                      "temporal consistency": 2, "dynamic degree": 4, "text-to-video alignment": 1, "factual consistency": 2,
                      "conversations": talk("frames <image>", VF_ANSWER)},
    "sharegptvideo": {"id": "q", "video": "v_1", "prompt": "<video>\nWhat runs?", "chosen": "A cat.", "rejected": "A dog.",
                      "chosen_score": 5, "rejected_score": 2},
    "unifiedreward": {"images": ["a.png", "b.png"], "conversations": talk(IG_PAIR, "Image 2 is better than Image 1.")},
    "llama-factory": {"instruction": "<image>What is it?", "input": "", "chosen": "A cat.", "rejected": "A dog.",
                      "images": ["a.png"]},
    "records": {"task": "image_generation_point", "prompt": "a cat", "media": ["a.png"], "score": 3, "score_min": 1,
                "score_max": 5},
    "votes": {"path_A": "a.mp4", "path_B": "b.mp4", "prompt": "a cat", "VQ": "A", "MQ": "same", "TA": "B"},
    "vl-rewardbench": {"id": "r", "query": "What?", "response": ["A cat.", "A dog."], "image": "images/r.png",
                       "human_ranking": [1, 0]},
    "genai-bench-video": {"id": 0, "prompt": "a cat", "video_left": "a.mp4", "video_right": "b.mp4",
                          "vote_type": "bothbad_vote"},
}  # fmt: skip


def read(name: str, **changed: Any) -> list[Example]:
    row = {key: value for key, value in {**ROWS[name], **changed}.items() if value is not ...}
    return list(FORMATS[name].read(row))


def better(example: Example) -> Any:
    """The item the verdict names."""
    items = example.answers or example.media
    return items[0] if example.choice is Choice.FIRST else items[1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_tells_its_format(name: str) -> None:
    assert format_of(ROWS[name]) is FORMATS[name]


def test_more_votes_win_and_as_many_tie() -> None:
    (example,) = read("hpd")
    assert (example.task, example.choice, example.prompt) == (Task.IMAGE_GENERATION_PAIR, Choice.SECOND, "a cat")
    assert example.media[0] == Inline("a.png", b"png")
    assert read("hpd", votes_image1=21)[0].choice is Choice.TIE


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("oip", Inline("a.png", b"png")), ("videodpo", File("winvideos/000003.mp4")), ("sharegptvideo", "A cat."),
     ("llama-factory", "A cat."), ("vl-rewardbench", "A dog.")],
)  # fmt: skip
def test_the_chosen_one_is_better_whichever_place_it_was_given(name: str, wanted: Any) -> None:
    assert better(read(name)[0]) == wanted


def test_the_better_one_stands_first_in_about_half_of_the_rows() -> None:
    places = Counter(read("llama-factory", instruction=f"question {i}?")[0].choice for i in range(200))
    assert 70 < places[Choice.FIRST] < 130
    assert read("llama-factory") == read("llama-factory")


def test_evalmuse_gives_means_elements_and_a_pair_of_extremes() -> None:
    (example,) = read("evalmuse")
    assert (example.score, example.score_min, example.score_max) == (4.0, 1.0, 5.0)
    assert example.rationale == "cat (animal): 1\nred (color): 0"
    assert read("evalmuse", total_score=4.2, element_score='{"cat (animal)": 0.67}')[0].rationale == "cat (animal): 1"
    scored = [read("evalmuse", img_path=f"{i}.png", total_score=[score])[0] for i, score in enumerate((3, 5, 1))]
    combined = evalmuse.combine([*scored, *read("evalmuse", prompt="alone")])
    (pair,) = combined.examples
    assert pair.task is Task.IMAGE_GENERATION_PAIR
    assert better(pair) == File("1.png")
    assert set(pair.media) == {File("1.png"), File("2.png")}
    flat = evalmuse.combine([scored[0], read("evalmuse", img_path="9.png", total_score=[3])[0]])
    assert not flat.examples
    assert "one score" in flat.rejects[0][1].reason


@pytest.mark.parametrize(
    ("answer", "choice", "rationale"),
    [
        ("The better response: [2]. It names the hat and its colour.", "2", "It names the hat and its colour."),
        ("Two responses are equally good. Both of them name the cat.", "tie", "Both of them name the cat."),
        ("The first response is better. It is short and right.", "1", "It is short and right."),
    ],
)
def test_llava_critic_pairs(answer: str, choice: str, rationale: str) -> None:
    (example,) = read("llava-critic", conversations=talk(IU_PAIR, answer))
    assert example.task is Task.IMAGE_UNDERSTANDING_PAIR
    assert (example.prompt, list(example.answers)) == ("What is it?", ["A cat.", "A [red] dog,\nin a hat."])
    assert (example.choice, example.rationale) == (choice, rationale)


def test_llava_critic_scores_keep_their_range() -> None:
    human = "<image>\nFrom 0 to 100, how much do you rate for this response?\nQuestion: [What?]\nResponse: [A cat.]"
    (example,) = read("llava-critic", conversations=talk(human, "Right in all it says.\nFinal Score: 85"))
    assert (example.score, example.score_min, example.score_max) == (85.0, 0.0, 100.0)
    assert example.rationale == "Right in all it says."
    with pytest.raises(RowError, match="does not say the range"):
        read("llava-critic", conversations=talk("Question: [What?]\nResponse: [A cat.]", "Final Score: 85"))


def test_lift_words_become_scores_with_their_reason() -> None:
    (example,) = read("lift-hra")
    assert (example.score, example.score_min, example.score_max) == (1.0, 1.0, 3.0)
    assert (example.prompt, example.aspect) == ("A crane stands.", "motion")
    assert example.rationale == "The legs jump about between frames."


@pytest.mark.parametrize("columns", [True, False], ids=["columns", "lines of the answer"])
def test_videofeedback_gives_one_example_a_respect(columns: bool) -> None:
    talked = {"text prompt": ..., "conversations": talk('the text prompt is "a cat",\nall the frames', VF_ANSWER)}
    found = read("videofeedback", **({} if columns else talked))
    assert [example.score for example in found] == [3, 2, 4, 1, 2]
    assert {example.prompt for example in found} == {"a cat"}
    assert found[0].media == [Frames(("p1_00.jpg", "p1_01.jpg"), folder="p1")]
    assert found[3].record(["d"], name="n", source="s").prompt == "a cat Judge the text-to-video alignment."


MMHAL = (
    "<image>\nJudge the response.\n### Example 1:\n- Question: How many?\n- LMM Response to Evaluate: One.\n"
    "- Rating: 6, very informative, no hallucination\n- Rating: 0, not informative, with hallucination\n\n"
    "### Image Contents\nCat\n\n### Question\nWhat is it, from 1 to 3?\n\n### Standard Human-Generated Answer\nA cat.\n\n"
    "### LMM Response to Evaluate\nA dog.\n"
)
MM_VET = (
    "<image>\nThe correctness score is 0.0 (totally wrong), 0.1, or 1.0 (totally right).\n"
    "Question | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\nWhat is x? | -1 | x = 3 | 0.0\n"
    "What is x? | -1 | x = -1 | 1.0\n\nWhat is it? | A cat. | A dog. |"
)
LIVE = (
    "[Question]\n\nWhat is it?\n\n[Assistant Response]\n\nA dog.\n\n[Ground Truth Response]\n\nA cat.\n\n[System]\n\n"
    "The rating should be 0-10, where 0 is incorrect and 10 is correct.\n\nNaming it gives from 3 to 5 points."
)


@pytest.mark.parametrize(
    ("prompt", "answer", "score", "high", "rationale"),
    [
        (MMHAL, "It is no dog at all.\n\n**Rating: 2**, very informative, with hallucination", 2, 6, "It is no dog at all."),
        (MM_VET, "0.5", 0.5, 1, ""),
        (LIVE, '{"Explanation": "It is a cat.", "Rating": "7"}', 7, 10, "It is a cat."),
        (LIVE, '```json\n{\n "Explanation": "It is a cat.",\n "Rating": 7\n}\n```', 7, 10, "It is a cat."),
    ],
)  # fmt: skip
def test_pointwise_prompts_of_llava_critic(prompt: str, answer: str, score: float, high: float, rationale: str) -> None:
    (example,) = read("llava-critic", conversations=talk(prompt, answer))
    assert (example.task, list(example.answers)) == (Task.IMAGE_UNDERSTANDING_POINT, ["A dog."])
    assert example.prompt.startswith("What is it")
    assert (example.score, example.score_min, example.score_max, example.rationale) == (score, 0.0, high, rationale)


def test_what_llava_critic_also_holds_is_no_sign_of_a_wrong_file() -> None:
    for human, answer, foreign in (
        ("Which option is right? A, B or C.", "B", True),
        ("Question: [What?]\nResponse: [A cat.]", "Final Score: 85", True),
        (IU_PAIR, "Both have merit.", False),
    ):
        with pytest.raises(RowError) as caught:
            read("llava-critic", conversations=talk(human, answer))
        assert caught.value.foreign is foreign


def test_a_verdict_in_brackets_stands_above_remarks() -> None:
    said = "The better response: [first]. It is short. In the colours the second response is better, and Response 2 is better."
    (example,) = read("llava-critic", conversations=talk(IU_PAIR, said))
    assert example.choice is Choice.FIRST


def test_sharegptvideo_gives_a_pair_and_two_scores() -> None:
    pair, first, second = read("sharegptvideo")
    assert (pair.task, pair.prompt) == (Task.VIDEO_UNDERSTANDING_PAIR, "What runs?")
    assert [(e.answers[0], e.score) for e in (first, second)] == [("A cat.", 5.0), ("A dog.", 2.0)]
    assert len(read("sharegptvideo", chosen_score=..., rejected_score=...)) == 1
    turn = {"from": "human", "value": "<video>\nWhat runs?"}
    assert read("sharegptvideo", prompt=turn, chosen={"from": "gpt", "value": "A cat."})[0] == pair


def test_re_packs_in_all_their_shapes() -> None:
    (images,) = read("unifiedreward")
    assert (images.task, images.prompt, images.choice) == (Task.IMAGE_GENERATION_PAIR, "a cat [red]", Choice.SECOND)
    (videos,) = read("unifiedreward", images=FRAMES, conversations=talk(VG_PAIR, "Video 1 is better than Video 2."))
    assert videos.task is Task.VIDEO_GENERATION_PAIR
    assert list(videos.media) == [Frames(tuple(FRAMES[:8])), Frames(tuple(FRAMES[8:]))]
    (point,) = read(
        "unifiedreward", images=["a.png"], conversations=talk(IG_POINT, "cat (animal): 1\nFinal Score: 3.5")
    )
    assert (point.score, point.score_max, point.rationale) == (3.5, 5.0, "cat (animal): 1")
    (grpo,) = read("unifiedreward", conversations=..., problem=IG_PAIR, solution="Image 1 is better")
    assert grpo.choice is Choice.FIRST
    (thought,) = read("unifiedreward", conversations=talk(IG_PAIR, "<think>The first one has a cat.</think>\n"
                                                          "<answer>Image 1 is better</answer>"))  # fmt: skip
    assert (thought.choice, thought.rationale) == (Choice.FIRST, "The first one has a cat.")
    (lift,) = read("unifiedreward", images=FRAMES, conversations=talk(LIFT, "Good. There are no obvious problems."))
    assert (lift.score, lift.media) == (3.0, [Frames(tuple(FRAMES))])


def test_frames_in_the_row_are_packed_into_two_clips() -> None:
    frames = [{"bytes": bytes([n]), "path": f"{n}.png"} for n in range(6)]
    (pair,) = read("unifiedreward", images=frames, conversations=talk(VG_PAIR, "Video 1 is better than Video 2."))
    assert list(pair.media) == [
        Inline(f"{start}.png and 2 more", pack_frames([bytes([n]) for n in range(start, start + 3)]))
        for start in (0, 3)
    ]
    with pytest.raises(RowError, match="some media are paths"):
        read("unifiedreward", images=[*frames[:5], "5.png"], conversations=talk(VG_PAIR, "Video 1 is better."))


def test_llama_factory_in_all_its_shapes() -> None:
    messages = {"messages": [{"role": "user", "content": "<video>What?"}], "videos": ["v.mp4"], "images": ...,
                "instruction": ..., "chosen": {"role": "assistant", "content": "A cat."}}  # fmt: skip
    (video,) = read("llama-factory", **messages)
    assert (video.task, video.prompt) == (Task.VIDEO_UNDERSTANDING_PAIR, "What?")
    assert better(video) == "A cat."
    (judged,) = read("llama-factory", instruction=IG_PAIR, output="Image 1 is better than Image 2.", chosen=...,
                     rejected=..., images=["a.png", "b.png"])  # fmt: skip
    assert (judged.task, judged.choice) == (Task.IMAGE_GENERATION_PAIR, Choice.FIRST)


def test_own_records_in_csv_columns() -> None:
    row = {"task": "image_understanding_pair", "prompt": "What?", "media": "a.png", "answer_1": "A cat.",
           "answer_2": "A dog.", "choice": "tie", "score": ""}  # fmt: skip
    (example,) = FORMATS["records"].read(row)
    assert (example.choice, list(example.answers), example.media) == (Choice.TIE, ["A cat.", "A dog."], [File("a.png")])
    (pair,) = FORMATS["records"].read(
        {"task": "video_generation_pair", "prompt": "p", "media": "a.mp4|b.mp4", "choice": "2"}
    )
    assert pair.media == [File("a.mp4"), File("b.mp4")]


def test_votes_name_what_they_judge() -> None:
    assert [(e.aspect, e.choice) for e in read("votes")] == [
        ("visual quality", "1"), ("motion quality", "tie"), ("text alignment", "2"),
    ]  # fmt: skip
    assert [e.choice for e in read("votes", VQ=" A ", MQ="Same", TA=None)] == ["1", "tie"]


def test_benchmarks_are_held_out() -> None:
    assert read("genai-bench-video")[0].split == read("vl-rewardbench")[0].split == "test"
    assert read("genai-bench-video")[0].choice is Choice.TIE


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("hpd", {"votes_image1": 0, "votes_image2": 0}, "no votes"),
        ("hpd", {"votes_image1": "many"}, "votes_image1 is no number"),
        ("hpd", {"votes_image2": None}, "no votes_image2"),
        ("hpd", {"image2": None}, "no image2"),
        ("oip", {"prompt": " "}, "no prompt"),
        ("evalmuse", {"total_score": [7, 7]}, "total_score is outside 1 to 5"),
        ("evalmuse", {"total_score": []}, "total_score holds no scores"),
        ("llava-critic", {"conversations": talk(IU_PAIR, "Both have merit.")}, "the answer says no verdict, or two"),
        ("llava-critic", {"conversations": talk("Describe it.", "A cat.")}, "the words of the prompt are not known"),
        ("llava-critic", {"conversations": talk("a", "b") * 2}, "the conversation has several turns"),
        ("llava-critic", {"conversations": talk(IG_PAIR, "Image 1 is better.")}, "the number of media is not that of the task"),
        ("videodpo", {"video2": "x"}, "video2 is no number of a clip"),
        ("lift-hra", {"conversations": talk(LIFT, "Fine.")}, "the answer does not begin with Good, Normal or Bad"),
        ("videofeedback", {"dynamic degree": 9}, "a score is outside 1 to 4"),
        ("sharegptvideo", {"chosen_score": 9}, "chosen_score is outside 1 to 5"),
        ("sharegptvideo", {"rejected": ""}, "no rejected"),
        ("unifiedreward", {"conversations": talk(IG_PAIR, "Image 1 is better. Image 2 is better.")},
         "the answer says no verdict, or two"),
        ("unifiedreward", {"images": FRAMES[:7]}, "the frames of two clips are not even in number"),
        ("unifiedreward", {"images": ...}, "no image and no video"),
        ("llama-factory", {"images": ...}, "no image and no video"),
        ("llama-factory", {"rejected": None}, "no rejected"),
        ("llama-factory", {"history": [["Hello.", "Hi."]]}, "the conversation has several turns"),
        ("records", {"tsak": 1}, "there is no such field"),
        ("records", {"task": "image_pair"}, "there is no such task"),
        ("records", {"score": 9}, "the score is outside its range"),
        ("records", {"media": []}, "image_generation_point judges one of media"),
        ("records", {"split": "dev"}, "split is not train, validation or test"),
        ("votes", {"MQ": "C"}, "a vote is not A, B or same"),
        ("vl-rewardbench", {"human_ranking": [0, 0]}, "human_ranking is not 0, 1 or 1, 0"),
        ("genai-bench-video", {"vote_type": "none"}, "vote_type is not known"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_refused_with_one_reason(name: str, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read(name, **change)
    assert caught.value.reason == reason


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"import\.source is Video_Feedbak: there is no such format\. Did you mean videofeedback"
    ):
        format_named("Video_Feedbak")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real files is not beside this repository")
def test_all_rows_of_real_files_are_read() -> None:
    videos = json.loads((SHARED / "genai_bench" / "video_pairs.json").read_text())
    assert Counter(FORMATS["genai-bench-video"].read(row)[0].choice for row in videos) == {
        "2": 651,
        "1": 619,
        "tie": 619,
    }
    pairs = json.loads(gzip.decompress((SHARED / "vl_rewardbench" / "data.json.gz").read_bytes()))
    assert format_of(pairs[0]) is FORMATS["vl-rewardbench"]
    examples = [FORMATS["vl-rewardbench"].read(row)[0] for row in pairs]
    rights = [row["response"][row["human_ranking"].index(0)].strip() for row in pairs]
    assert [better(example) for example in examples] == rights
    assert 500 < Counter(example.choice for example in examples)[Choice.FIRST] < 750


PROMPTS = SHARED.parent / "reference" / "official_judge_templates.json"


@pytest.mark.skipif(not PROMPTS.is_file(), reason="the published prompts are not beside this repository")
def test_every_published_prompt_of_a_judge_task_is_taken_apart() -> None:
    from unified_reward.data.prompts import read_prompt

    kinds = {
        "IG": "image_generation",
        "VG": "video_generation",
        "IU": "image_understanding",
        "VU": "video_understanding",
    }
    filled = {"{prompt}": "a cat [red]", "{query}": "What is it?", "{r1}": "A cat.\nTwo.", "{r2}": "A dog.",
              "{response}": "A cat.", "{frames}": "<image>\n" * 8}  # fmt: skip
    for name, text in json.loads(PROMPTS.read_text()).items():
        kind = next((kinds[part] for part in name.split("_")[:2] if part in kinds), None)
        if kind is None:  # editing and Flex have tasks of their own
            continue
        for key, value in filled.items():
            text = text.replace(key, value)
        asked = read_prompt(text)
        assert asked is not None, name
        mode = "point" if "POINT" in name or "ACS" in name or "APS" in name else "pair"
        assert asked.task == f"{kind}_{mode}", name
        assert asked.prompt == ("a cat [red]" if "generation" in kind else "What is it?"), name
        assert (
            asked.answers
            == {"g": (), "p": ("A cat.\nTwo.", "A dog."), "o": ("A cat.",)}[
                "g" if "generation" in kind else "p" if mode == "pair" else "o"
            ]
        ), name
