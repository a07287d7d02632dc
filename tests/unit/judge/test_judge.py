"""The judge against a plain reading of each sequence: one row, no cache, no tree, no sharing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unified_reward.errors import UserError
from unified_reward.judge.grammar import Reading
from unified_reward.judge.judge import PACK_FILE, Judge
from unified_reward.judge.pack import Pack, load_pack, parse_pack
from unified_reward.judge.query import Query
from unified_reward.judge.render import answer_start, query_segments, record_segments
from unified_reward.judge.way import Spoken
from unified_reward.models.batching import Encoded, Segment, collate, encode
from unified_reward.models.vlm import Vlm, generate_text, model_inputs, save_vlm
from unified_reward.records import Choice, JudgeRecord, Task

Pixels = Callable[[str], NDArray[np.uint8]]
UND, GEN = Task.IMAGE_UNDERSTANDING_PAIR, Task.IMAGE_GENERATION_PAIR
POINT, VIDEO = Task.IMAGE_UNDERSTANDING_POINT, Task.VIDEO_GENERATION_POINT
PAIRS = [
    Query(UND, "what color is the ring ?", ("i1",), ("red", "blue")),
    Query(UND, "what shape ?", ("i2",), ("a large red square on blue", "square")),
    Query(UND, "color ?", ("i1",), ("no", "the small green ring at the left")),
    Query(GEN, "a red ring", ("i1", "i3")),
    Query(GEN, "a large blue square", ("i4", "i1")),
    Query(Task.VIDEO_GENERATION_PAIR, "a red ring goes up", ("v1", "v2")),
]
POINTS = [
    Query(POINT, "what color is the ring ?", ("i1",), ("red",)),
    Query(POINT, "shape ?", ("i2",), ("a large red square on blue",)),
    Query(VIDEO, "a red ring goes up", ("v1",)),
    Query(VIDEO, "ring", ("v2",)),
]


def table(vlm: Vlm, prompt: Encoded, ids: list[int]) -> torch.Tensor:
    """Log-probs after each token of prompt + ids, [L, V]: the model's own forward on the whole sequence."""
    start = int(prompt.positions.max()) + 1
    positions = np.concatenate(
        [prompt.positions, np.broadcast_to(np.arange(start, start + len(ids)), (3, len(ids)))], 1
    )
    whole = replace(prompt, input_ids=prompt.input_ids + ids, positions=positions,
                    weights=prompt.weights + [0.0] * len(ids), mm_types=prompt.mm_types + [0] * len(ids))  # fmt: skip
    with torch.inference_mode():
        logits = vlm.model(**own_inputs(vlm, collate([whole], vlm.processor.pad_id))).logits[0]
    return torch.log_softmax(logits.double(), -1)


def own_inputs(vlm: Vlm, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One sample as transformers' own processor of the family hands it to the model."""
    if vlm.processor.family.mrope:
        return model_inputs(batch)
    found = {"input_ids": batch["input_ids"]}
    if "pixel_values" in batch:
        pixels = batch["pixel_values"]
        sizes = torch.tensor([pixels.shape[-2:]] * len(pixels))
        several = torch.tensor([len(pixels) + 1])  # pictures of one tile each
        found |= {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": several}
    if "pixel_values_videos" in batch:
        clips = len(batch["video_grid_thw"])
        found["pixel_values_videos"] = batch["pixel_values_videos"].reshape(
            clips, -1, *batch["pixel_values_videos"].shape[1:]
        )
    return found


def plain(vlm: Vlm, pack: Pack, pixels: Pixels, query: Query) -> tuple[str, dict[str, float]]:
    """The greedy rationale token by token, then each verdict string as a whole sequence."""
    template = pack.template(query.task)
    prompt = encode(vlm.processor, query_segments(query, pack, pixels, vlm.processor))
    written: list[int] = []
    closed: list[int] = []
    if template.rationale is not None:
        stop = template.rationale.stop
        while stop not in vlm.processor.decode(written) and len(written) < template.rationale.max_tokens:
            token = int(table(vlm, prompt, written)[-1].argmax())
            if token == vlm.processor.eos_id:
                break
            written.append(token)
        closed = [] if stop in vlm.processor.decode(written) else vlm.processor.text_ids(stop)
    begun = [*written, *closed, *vlm.processor.text_ids(template.verdict_prefix)]
    logprobs = {}
    for key, text in template.strings.items():
        ids = vlm.processor.text_ids(text)
        after = table(vlm, prompt, begun + ids)[len(prompt) + len(begun) - 1 :]
        logprobs[key] = sum(float(after[i, token]) for i, token in enumerate(ids))
    return vlm.processor.decode(written), logprobs


def judge(vlm: Vlm, pack: Pack, pixels: Pixels, batch: int = 128) -> Judge:
    return Judge(vlm, pack, pixels, batch=batch)


def test_pairs_equal_a_plain_reading_of_both_orders(any_vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    for query, verdict in zip(PAIRS, judge(any_vlm, pack, pixels).compare(PAIRS), strict=True):
        rationale, shown = plain(any_vlm, pack, pixels, query)
        rationale_swapped, swapped = plain(any_vlm, pack, pixels, query.swapped())
        wanted = {f"order12:{k}": v for k, v in shown.items()} | {f"order21:{k}": v for k, v in swapped.items()}
        assert verdict.logprobs == pytest.approx(wanted, abs=1e-4)
        assert (verdict.rationale, verdict.rationale_swapped) == (rationale, rationale_swapped)


def test_scores_equal_a_plain_reading(any_vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    for query, verdict in zip(POINTS, judge(any_vlm, pack, pixels).score(POINTS), strict=True):
        rationale, wanted = plain(any_vlm, pack, pixels, query)
        assert verdict.logprobs == pytest.approx(wanted, abs=1e-4)
        assert verdict.rationale == rationale
        values = pack.point(query.task).values
        weights = {key: np.exp(value) for key, value in wanted.items()}
        expected = sum(weights[key] * values[key] for key in weights) / sum(weights.values())
        assert verdict.score == pytest.approx(expected, abs=1e-3)


def test_a_rationale_ends_at_its_stop(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    """With the token it would have written third as the stop, it is finished after three; else it is cut and closed."""
    query = PAIRS[0]
    free = judge(vlm, pack, pixels).compare([query])[0]
    assert not free.finished
    (text,) = generate_text(
        vlm, [encode(vlm.processor, query_segments(query, pack, pixels, vlm.processor))], max_new_tokens=3
    )
    stop = vlm.processor.decode(vlm.processor.text_ids(text)[-1:])
    stopping = _with_stop(pack, stop)
    stopped = judge(vlm, stopping, pixels).compare([query])[0]
    rationale, shown = plain(vlm, stopping, pixels, query)
    assert stopped.rationale == rationale
    assert rationale.endswith(stop)
    assert len(rationale) <= len(text)
    assert {k: v for k, v in stopped.logprobs.items() if "12" in k} == pytest.approx(
        {f"order12:{k}": v for k, v in shown.items()}, abs=2e-4
    )


def _with_stop(pack: Pack, stop: str) -> Pack:
    template = pack.pair(UND)
    assert template.rationale is not None
    changed = template.model_copy(update={"rationale": template.rationale.model_copy(update={"stop": stop})})
    return pack.model_copy(update={"tasks": {**pack.tasks, UND: changed}})


def test_a_verdict_does_not_depend_on_its_neighbours(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    together = judge(vlm, pack, pixels).compare(PAIRS)
    reversed_ = judge(vlm, pack, pixels, batch=3).compare(PAIRS[::-1])[::-1]
    alone = [judge(vlm, pack, pixels, batch=1).compare([query])[0] for query in PAIRS]
    for one, two, three in zip(together, reversed_, alone, strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
        assert one.logprobs == pytest.approx(three.logprobs, abs=1e-4)
        assert one.rationale == two.rationale == three.rationale


def test_rows_that_end_early_leave_without_a_trace(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    """A stop that some rationales reach sooner than others, so that the batch is split on the way."""
    stopping = _with_stop(pack, _common_piece([v.rationale for v in judge(vlm, pack, pixels).compare(PAIRS[:3])]))
    together = judge(vlm, stopping, pixels).compare(PAIRS[:3])
    lengths = {len(text) for verdict in together for text in (verdict.rationale, verdict.rationale_swapped)}
    assert len(lengths) > 1
    for query, verdict in zip(PAIRS[:3], together, strict=True):
        rationale, shown = plain(vlm, stopping, pixels, query)
        assert verdict.rationale == rationale
        assert verdict.logprobs["order12:1"] == pytest.approx(shown["1"], abs=2e-4)


def test_a_turn_that_ends_before_its_rationale_does_is_told_to_go_on(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    """With the token it would have written third as the end of its turn, the stop string is put after the second."""
    query = PAIRS[1]
    prompt = encode(vlm.processor, query_segments(query, pack, pixels, vlm.processor))
    written: list[int] = []
    for _ in range(3):
        written.append(int(table(vlm, prompt, written)[-1].argmax()))
    ending = copy.copy(vlm.processor)
    ending.eos_id = written[-1]
    short = Vlm(vlm.model, ending)
    rationale, shown = plain(short, pack, pixels, query)
    verdict = judge(short, pack, pixels).compare([query])[0]
    assert not verdict.finished
    assert verdict.rationale == rationale == vlm.processor.decode(written[: written.index(written[-1])])
    assert {k: verdict.logprobs[f"order12:{k}"] for k in shown} == pytest.approx(shown, abs=2e-4)


def _common_piece(texts: list[str]) -> str:
    """The character that stands at the most different places of the texts."""
    letters = sorted({letter for text in texts for letter in text if letter.isprintable() and letter != "�"})
    return max(letters, key=lambda letter: len({text.find(letter) for text in texts}))


def test_each_distinct_order_is_asked_once(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    asked: list[tuple[int, int]] = []
    query, same = PAIRS[0], Query(UND, "what ?", ("i1",), ("red", "red"))
    verdicts = judge(vlm, pack, pixels).compare(
        [query, query.swapped(), query, same], progress=lambda *step: asked.append(step)
    )
    assert asked[-1] == (2, 2)
    assert verdicts[0] == verdicts[2]
    assert verdicts[1].p_first == pytest.approx(1 - (verdicts[0].p_first or 0))
    assert verdicts[1].choice is verdicts[0].choice.swapped()
    assert (verdicts[3].choice, verdicts[3].p_first, verdicts[3].logprobs) == (Choice.TIE, 0.5, {})


def test_each_medium_is_read_once(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    read: list[str] = []

    def counted(digest: str) -> NDArray[np.uint8]:
        read.append(digest)
        return pixels(digest)

    counting = judge(vlm, pack, counted)
    counting.compare(PAIRS)
    counting.score(POINTS)
    assert sorted(read) == ["i1", "i2", "i3", "i4", "v1", "v2"]


def test_trained_text_and_weighed_text_are_the_same_tokens(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    from unified_reward.judge.judge import answer_tree
    from unified_reward.judge.media import MediaShelf

    record = JudgeRecord(
        id="r", task=POINT, split="train", source="t", prompt="color ?", media=["i1"], answers=["red"], score=10,
        score_min=1, score_max=10,
    )  # fmt: skip
    trained = encode(vlm.processor, record_segments(record, pack, pixels, vlm.processor))
    targets = [i for i, w in zip(trained.input_ids, trained.weights, strict=True) if w > 0]
    tree = answer_tree(pack, POINT, MediaShelf(vlm.processor, pixels))
    keys = list(pack.template(POINT).strings)
    path = [token for _, token in tree.strings[keys.index("10")]]
    prefix = tree.tokens[: tree.strings[0][0][0] + 1]
    assert targets == [*prefix, *path, vlm.processor.eos_id]


def test_text_mode_reads_what_is_said(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    verdicts = judge(vlm, pack, pixels).spoken(Spoken(max_new_tokens=4)).compare(PAIRS)
    assert {v.choice for v in verdicts} == {Choice.UNPARSED}  # noise has no verdict ...
    paper = judge(vlm, pack, pixels).spoken(Spoken(max_new_tokens=4, reading=Reading.PAPER)).compare(PAIRS)
    assert {v.choice for v in paper} == {Choice.TIE}  # ... and the released scripts give it to whoever stands first
    assert {(v.p_first_shown_first, v.p_first_shown_second) for v in paper} == {(1.0, 0.0)}
    scores = judge(vlm, pack, pixels).spoken(Spoken(max_new_tokens=4)).score(POINTS)
    assert [v.score for v in scores] == [None] * len(POINTS)
    assert (
        scores[0].rationale
        == generate_text(
            vlm, [encode(vlm.processor, query_segments(POINTS[0], pack, pixels, vlm.processor))], max_new_tokens=4
        )[0]
    )


def test_a_judge_is_loaded_with_its_pack(vlm: Vlm, pack: Pack, pixels: Pixels, tmp_path: str) -> None:
    save_vlm(vlm, tmp_path)
    assert Judge.load(tmp_path, pixels).pack == load_pack("default")
    with open(f"{tmp_path}/{PACK_FILE}", "w") as file:
        file.write(pack.to_yaml())
    loaded = Judge.load(tmp_path, pixels)
    assert loaded.pack == pack
    assert loaded.compare(PAIRS[:1])[0].logprobs == pytest.approx(
        judge(vlm, pack, pixels).compare(PAIRS[:1])[0].logprobs, abs=1e-4
    )


def test_a_template_readable_from_text_only_says_so(vlm: Vlm, pack: Pack, pixels: Pixels) -> None:
    template = pack.point(POINT).model_copy(update={"scores": {}})
    with pytest.raises(UserError, match=r"image_understanding_point.*no verdict strings.*read verdicts from text"):
        judge(vlm, pack.model_copy(update={"tasks": {POINT: template}}), pixels).score(POINTS[:1])


def test_each_aspect_is_weighed_after_those_before_it(vlm: Vlm, pixels: Pixels) -> None:
    """Against a plain reading: the label is written, the score strings weighed, the likeliest stands before the next."""
    document = """
name: aspects
version: 1
tasks:
  image_generation_point:
    prompt: "caption: {prompt} {media}"
    scores: {" 1": 1, " 2": 2, " 3": 3}
    text: {aspects: {"color :": 3, "shape :": 1}}
"""
    pack, query = parse_pack(document, origin="test"), Query(Task.IMAGE_GENERATION_POINT, "a red ring", ("i1",))
    verdict = judge(vlm, pack, pixels).score([query, query])[1]
    said, means = "", []
    for label in ("color :", "shape :"):
        begun = answer_start(f"{said}{label}", vlm.processor)
        prompt = encode(vlm.processor, [*query_segments(query, pack, pixels, vlm.processor), Segment(begun)])
        last = table(vlm, prompt, [])[-1]
        weights = {score: float(last[vlm.processor.text_ids(f" {score}")[0]].exp()) for score in (1, 2, 3)}
        means.append(sum(score * weight for score, weight in weights.items()) / sum(weights.values()))
        said += f"{label} {max(weights, key=lambda score: weights[score])}\n"
    assert list(verdict.aspects.values()) == pytest.approx(means, abs=1e-3)
    assert verdict.score == pytest.approx((3 * means[0] + means[1]) / 4, abs=1e-3)
    assert verdict.rationale == said


def test_in_bfloat16_as_on_a_gpu_it_says_the_same_within_its_precision(
    any_vlm: Vlm, pack: Pack, pixels: Pixels, tmp_path: Path
) -> None:
    save_vlm(any_vlm, tmp_path)
    (tmp_path / PACK_FILE).write_text(pack.to_yaml())
    half = Judge.load(tmp_path, pixels, dtype=torch.bfloat16)
    assert half.vlm.model.dtype == torch.bfloat16
    whole = judge(any_vlm, pack, pixels)
    alike = 0
    for rough, exact in zip(half.compare(PAIRS), whole.compare(PAIRS), strict=True):
        assert all(np.isfinite(list(rough.logprobs.values())))
        if (rough.rationale, rough.rationale_swapped) == (exact.rationale, exact.rationale_swapped):
            alike += 1
            assert rough.logprobs == pytest.approx(exact.logprobs, rel=0.05, abs=0.5)
    assert alike
    assert all(np.isfinite(point.score) for point in half.score(POINTS) if point.score is not None)
    prompt = encode(half.vlm.processor, [Segment(image=pixels("i1")), Segment(" a red ring")])
    assert isinstance(generate_text(half.vlm, [prompt], max_new_tokens=4)[0], str)
