"""Words and media of a judge query or record -> the segments a VLM reads, the tiny one and real ones alike.

user_segments      what the judge is asked, without a chat template: for engines that put their own around it
query_segments     the same in the checkpoint's chat template (nothing is a target)
record_segments    the same, then the answer it is to learn: rationale, verdict prefix, verdict, end of turn
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from unified_reward.errors import UserError
from unified_reward.judge.pack import MEDIA, PLACEHOLDER, Pack, PairTemplate, PointTemplate, Template
from unified_reward.judge.query import Query
from unified_reward.models.batching import Segment, chat
from unified_reward.models.processing import VlmProcessor
from unified_reward.records import Choice, JudgeRecord, Subject

MediaSource = Callable[[str], NDArray[np.uint8]]  # sha256 hex -> [H, W, 3] image or [T, H, W, 3] clip
WORD = re.compile(r"\s*\S+|\s+$")


def user_segments(query: Query, pack: Pack, media: MediaSource, control: Iterable[str]) -> list[Segment]:
    """The user's turn of a query. control: tokens that foreign text must not hold."""
    template = pack.template(query.task)
    words = {"{prompt}": query.prompt, **_answers(query)}
    shown = {"{media}": query.media, "{media_1}": query.media[:1], "{media_2}": query.media[1:]}
    prompt = template.prompt if any(name in template.prompt for name in MEDIA) else "{media}\n" + template.prompt
    segments: list[Segment] = []
    for part in _split(prompt):  # in one pass: a caption that says "{answer_1}" stays as it is
        if part in shown:
            for digest in shown[part]:
                segments.extend(_media_segments(media(digest), pack))
        else:
            segments.append(Segment(text=broken_up(words[part], control) if part in words else part))
    return segments


def query_segments(query: Query, pack: Pack, media: MediaSource, processor: VlmProcessor) -> list[Segment]:
    """The prompt of a query in the checkpoint's chat template, up to where the judge's answer begins."""
    return chat(processor, user_segments(query, pack, media, processor.tokenizer.all_special_tokens))


def record_segments(record: JudgeRecord, pack: Pack, media: MediaSource, processor: VlmProcessor) -> list[Segment]:
    """A labelled record as prompt and weighted answer. Raises UserError when it has no label the pack can say."""
    template, weights = pack.template(record.task), pack.weights
    answer = [
        Segment(text=clean(_rationale(record, template), processor), weight=weights.rationale),
        Segment(text=template.verdict_prefix, weight=weights.rest),
        *(Segment(text=text, weight=weights.verdict if telling else weights.rest)
          for text, telling in pieces(_verdict(record, template), list(template.strings.values()))),
        Segment(text="", weight=weights.rest),  # its weight is that of the end of the turn
    ]  # fmt: skip
    user = user_segments(Query.of_record(record), pack, media, processor.tokenizer.all_special_tokens)
    framed = chat(processor, user, [segment for segment in answer[:-1] if segment.text] + answer[-1:])
    return [segment for segment in framed if segment.text or segment.image is not None or segment.video is not None]


def answer_start(text: str, processor: VlmProcessor) -> str:
    """`text` as it stands when the answer begins with it (the chat template may ask for a blank before it)."""
    return chat(processor, (), [Segment(text=text)])[2].text


def clean(text: str, processor: VlmProcessor) -> str:
    """Foreign text without the tokenizer's control tokens."""
    return broken_up(text, processor.tokenizer.all_special_tokens)


def broken_up(text: str, control: Iterable[str]) -> str:
    """Foreign text with control tokens broken up: a caption or an answer must not be able to end its turn."""
    for token in control:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def pieces(text: str, strings: list[str]) -> list[tuple[str, bool]]:
    """A verdict string in up to three pieces, and whether each tells it from the others of its set.

    Cut between words, so that the tokens are the same whether the pieces or the whole is tokenised:
    " answer 1 is better" beside " answer 2 is better" -> (" answer", no), (" 1", yes), (" is better", no).
    """
    split = [WORD.findall(string) for string in strings]
    words = WORD.findall(text)
    shortest = min(len(other) for other in split)
    start = next((i for i in range(shortest) if len({other[i] for other in split}) > 1), shortest)
    stop = next((i for i in range(shortest - start) if len({other[-1 - i] for other in split}) > 1), shortest - start)
    cut = len(words) - stop
    if start >= cut:  # one string begins another: only what comes after tells them apart, so all of it counts
        return [(text, True)]
    found = [("".join(words[:start]), False), ("".join(words[start:cut]), True), ("".join(words[cut:]), False)]
    return [(piece, telling) for piece, telling in found if piece]


def nearest_score(record: JudgeRecord, template: PointTemplate) -> str:
    """The score string for a record: its score, moved from the source's range to the pack's, to the nearest."""
    if record.score is None:
        raise _unlabelled(record, "score", "a pointwise record needs a score", "Give a score, score_min and score_max.")
    low, high = template.range
    source_low = low if record.score_min is None else record.score_min
    source_high = high if record.score_max is None else record.score_max
    if not source_low <= record.score <= source_high or source_low == source_high:
        raise _unlabelled(record, "score", f"it is outside its range [{source_low}, {source_high}]",
                          "Correct score, score_min or score_max.")  # fmt: skip
    target = low + (record.score - source_low) / (source_high - source_low) * (high - low)
    return min(template.strings.values(), key=lambda text: abs(template.scores[text] - target))


def _verdict(record: JudgeRecord, template: PairTemplate | PointTemplate) -> str:
    if not template.strings:
        raise _unlabelled(record, "task", "the template pack gives no words for its verdict", "Add verdict or scores.")
    if isinstance(template, PointTemplate):
        return nearest_score(record, template)
    if record.choice is None or record.choice is Choice.UNPARSED:
        raise _unlabelled(record, "choice", "a pairwise record needs 1, 2 or tie", "Give a choice.")
    if record.choice.value not in template.strings:
        raise _unlabelled(record, "choice", "the template pack has no words for it",
                          f"Give verdict.{record.choice} in the pack, or drop such records.")  # fmt: skip
    return template.strings[record.choice.value]


def _rationale(record: JudgeRecord, template: Template) -> str:
    """The reasons up to the stop string, and that string: the judge, too, is stopped at its first occurrence."""
    if template.rationale is None:
        return ""
    stop = template.rationale.stop
    return record.rationale.split(stop)[0] + stop


def _answers(query: Query) -> dict[str, str]:
    if query.task.subject is Subject.GENERATION:
        return {}
    return {"{answer}": query.answers[0], "{answer_1}": query.answers[0], "{answer_2}": query.answers[-1]}


def _split(prompt: str) -> list[str]:
    """Text and placeholders in turn."""
    parts, at = [], 0
    for match in PLACEHOLDER.finditer(prompt):
        parts += [prompt[at : match.start()], match.group()]
        at = match.end()
    return [part for part in [*parts, prompt[at:]] if part]


def _media_segments(pixels: NDArray[np.uint8], pack: Pack) -> list[Segment]:
    if pixels.ndim == 3:
        return [Segment(image=pixels)]
    if pack.video == "frames":
        return [Segment(image=frame) for frame in pixels]
    return [Segment(video=pixels)]


def _unlabelled(record: JudgeRecord, field: str, why: str, fix: str) -> UserError:
    return UserError(field=f"record {record.id}: {field}", value=getattr(record, field), why=why, fix=fix)
