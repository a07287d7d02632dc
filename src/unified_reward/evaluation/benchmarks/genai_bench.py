"""GenAI-Bench (arXiv 2406.04485, v1 split): which of two generated images, edits or videos is better, by human votes.

A verdict file is what the benchmark's own inference writes: {"idx", "response", "human_vote", ...} per line, or the same
objects in one JSON array. The verdict is read from `response` again; `model_vote` stands in only where there is no `response`.

A file without one [[label]] is of a judge that answers in sentences, as UnifiedReward's scripts write ({"idx", "answer",
"model_output"}, where `answer` is the sentence that is right). Then both kinds of tie are met by "equally good".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.fields import first_of, swapped, value_of
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.metrics import Report, Share, share, with_and_without_ties
from unified_reward.evaluation.benchmarks.sides import Side, read_answer
from unified_reward.evaluation.benchmarks.sides import read_label as read_side

# Items of the v1 split.
SIZES = {"genai-bench-image": 1735, "genai-bench-edit": 919, "genai-bench-video": 1069}
LEFT, RIGHT, TIE = "left", "right", "tie"
HUMAN = {"leftvote": LEFT, "rightvote": RIGHT, "tievote": TIE, "bothbad_vote": TIE}

# label -> (human votes that it meets, side in the 3-way count). The published scorer takes exactly these.
LABELS = {
    "[[A>B]]": ({"leftvote"}, LEFT),
    "[[A>>B]]": ({"leftvote"}, LEFT),
    "[[B>A]]": ({"rightvote"}, RIGHT),
    "[[B>>A]]": ({"rightvote"}, RIGHT),
    "[[A=B=Good]]": ({"tievote"}, TIE),
    "[[A=B=Bad]]": ({"bothbad_vote"}, TIE),
    "[[A=B]]": ({"tievote", "bothbad_vote"}, TIE),
}
# From the first [[ to the last ]] of the first line that has both: a line with two labels is thus no verdict, as published.
MARKED = re.compile(r"\[\[.*\]\]")
VOTES, TEXTS = ("human_vote", "vote_type"), ("response", "model_output", "output", "model_vote")
SENTENCES = {Side.FIRST: "[[A>B]]", Side.SECOND: "[[B>A]]", Side.TIE: "[[A=B]]"}
RIGHT_SENTENCE = {Side.FIRST: "leftvote", Side.SECOND: "rightvote", Side.TIE: "tievote"}


@dataclass(frozen=True)
class Judged:
    human: str
    label: str | None

    @property
    def right(self) -> bool:
        return self.label is not None and self.human in LABELS[self.label][0]

    @property
    def side(self) -> str | None:
        return LABELS[self.label][1] if self.label else None


def read_label(response: str | None) -> str | None:
    """One of LABELS, as the published scorer finds it in a judge's answer; None where there is none."""
    found = MARKED.search(response or "")
    return found.group() if found and found.group() in LABELS else None


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    """4-way accuracy (unparsed is wrong), per human vote, and the 3-way tau and diff of the UnifiedReward paper."""
    if data is not None:
        raise UserError(field="--data", value=data, why=f"the verdict files of {benchmark} bring the human votes with them",
                        fix="Leave --data out.")  # fmt: skip
    rows = read_rows(verdicts, "--verdicts")
    last = {_index(verdicts, row, place): row for place, row in enumerate(rows)}  # the published reader keeps the last
    said = [_said(verdicts, row) for row in last.values()]
    in_sentences = not any(MARKED.search(text) for _, text, _ in said) and any(read_answer(text) for _, text, _ in said)
    judged = [Judged(human, _from_sentence(text, swapped) if in_sentences else read_label(text))
              for human, text, swapped in said]  # fmt: skip
    groups = {vote: _share([one for one in judged if one.human == vote]) for vote in HUMAN}
    tau, diff = with_and_without_ties([HUMAN[one.human] for one in judged], [one.side for one in judged], TIE)
    missing, repeated = max(0, SIZES[benchmark] - len(last)), len(rows) - len(last)
    metrics = {"tau": tau, "diff": diff, "missing": missing, "repeated": repeated}
    return Report(
        benchmark, _share(judged), groups, metrics, _notes(benchmark, len(last), repeated, in_sentences=in_sentences)
    )


def _share(judged: Sequence[Judged]) -> Share:
    return share([one.right for one in judged], [one.label is not None for one in judged])


def _from_sentence(text: str, is_swapped: bool) -> str | None:
    side = read_answer(text)
    return None if side is None else SENTENCES[side.swapped() if is_swapped else side]


def _notes(benchmark: str, count: int, repeated: int, *, in_sentences: bool) -> list[str]:
    size, notes = SIZES[benchmark], []
    if count != size:
        notes.append(f"{count:,} items; the published rows are of {size:,}, so the numbers do not compare.")
    if repeated:
        notes.append(f"{repeated:,} rows have an idx that comes again later; the last one counts.")
    if in_sentences:
        notes.append("Answers are sentences; one tie meets both kinds of people's ties, so accuracy is 3-way (tau).")
    return notes


def _index(path: Path, row: Row, place: int) -> int | str:
    if "human_vote" not in row.values and "problem" in row.values:
        return place  # UnifiedReward's numbers start again with each batch
    index = row.values.get("idx", place)
    if isinstance(index, bool) or not isinstance(index, int | str):
        raise row.error(
            path, "idx must be the number of the item", "Write the item's number from 0 on, as in the benchmark."
        )
    return index


def _said(path: Path, row: Row) -> tuple[str, str, bool]:
    """(people's vote, the judge's answer, whether the two were shown in reverse)."""
    response = value_of(row, TEXTS)
    if first_of(row, TEXTS) is None and row.values.get("success") is not False:
        raise row.error(path, "it has no response", 'Write the judge\'s answer as "response".')
    if response is not None and not isinstance(response, str):
        raise row.error(path, "response is no text", "Write the judge's answer as text, or null where there is none.")
    is_swapped = bool(swapped(path, row))
    return _human(path, row, is_swapped), response or "", is_swapped


def _human(path: Path, row: Row, is_swapped: bool) -> str:
    vote = value_of(row, VOTES)
    if vote is None and (right := read_side(row.values.get("answer"))) is not None:
        return RIGHT_SENTENCE[right.swapped() if is_swapped else right]
    if isinstance(vote, str):
        for word, name in (("left", "leftvote"), ("right", "rightvote"), ("tie", "tievote"), ("both", "bothbad_vote")):
            if word in vote:
                return name
    raise row.error(path, f"human_vote is {vote!r}", f"It must be one of {', '.join(HUMAN)}.")
