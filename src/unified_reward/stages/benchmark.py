"""A judge on a benchmark's published data: it is asked as the protocol says, and its verdicts are written in the layout
that the benchmark's tools write. `evaluation.benchmarks.score_verdicts` scores that file like any other.

    ties       GenAI-Bench, VideoGen-RewardBench, REACT-Video: asked in both orders; orders that contradict are a tie
    shuffled   VL-RewardBench, ShareGPTVideo-1K, HPD v3: one order for each vote, drawn from the seed; K votes
    both       MMRB2: each order is a judgement of its own
    rewards    ImageReward, HPD v2: the score of each image
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from unified_reward import progress
from unified_reward.data.frames import pack_frames
from unified_reward.data.media import MediaError, MediaLimits, Pixels, decode
from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import Report, score_verdicts
from unified_reward.evaluation.benchmarks.items import Item, Medium, Questions, check_asks_a_judge, read_questions
from unified_reward.evaluation.benchmarks.sides import Side, read_label
from unified_reward.judge import Pack, Query
from unified_reward.judge.verdict import PairVerdict, PointVerdict
from unified_reward.records import Modality, Mode, Subject, Task
from unified_reward.shapes import benchmarks as shapes

TIES = ("genai-bench-image", "genai-bench-edit", "genai-bench-video", "videogen-rewardbench", "react-video")
SCORED_WITH_DATA = ("vl-rewardbench", "imagereward", "hpdv2", "mmrb2")
CACHED_MEDIA = 2048
SHAPES_ITEMS = 300
Row = dict[str, Any]
Progress = Callable[[int, int], None]


class Asking(Protocol):
    """A judge however it is asked: `Judge` from probabilities, `SpokenJudge` from text."""

    pack: Pack

    def compare(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PairVerdict]: ...
    def score(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PointVerdict]: ...


@dataclass
class MediaFolder:
    """Media of items: read once for their digest, decoded when the judge looks at them. root: where paths start."""

    root: Path
    limits: MediaLimits = field(default_factory=MediaLimits)
    found: dict[str, Medium] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._decoded = lru_cache(maxsize=CACHED_MEDIA)(self._decode)

    def add(self, medium: Medium) -> str:
        """The sha256 (hex) of its bytes."""
        digest = hashlib.sha256(self._read(medium)).hexdigest()
        self.found.setdefault(digest, medium)
        return digest

    def __call__(self, digest: str) -> Pixels:
        return self._decoded(digest)

    def _decode(self, digest: str) -> Pixels:
        medium = self.found[digest]
        try:
            return decode(self._read(medium), self.limits)
        except MediaError as error:
            shown = medium if isinstance(medium, str) else digest[:12]
            raise UserError(
                field="--data", value=shown, why=str(error), fix="Fetch this file of the benchmark again."
            ) from error

    def _read(self, medium: Medium) -> bytes:
        if isinstance(medium, bytes):
            return medium
        if isinstance(medium, tuple):
            return pack_frames([self._read(frame) for frame in medium])
        try:
            return (self.root / medium).read_bytes()
        except OSError as error:
            raise UserError(field="--media", value=self.root / medium, why=f"it cannot be read ({error.strerror})",
                            fix="Name the folder from which the paths of the data go.") from error  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a benchmark's questions come from. data: its own file or folder; None = its version in the shapes world.

    media: where the paths in the data start; None = beside the data. items: of each file, 0 = all. seed: of the orders
    shown, and of the shapes version.
    """

    data: Path | None = None
    media: Path | None = None
    items: int = 0
    seed: int = 0


def ask_and_score(
    benchmark: str,
    source: Source,
    judges: Callable[[MediaFolder], Sequence[Asking]],
    folder: Path,
    out: Path | None = None,
) -> tuple[Report, Path]:
    """Ask a judge all questions, keep its answers as a verdict file, and score that. Returns the report and the file.

    judges: the judge, once for each vote, given where its media are. folder: for the shapes version and the answers.
    """
    data, media = source.data, source.media
    check_asks_a_judge(benchmark)
    if data is None:
        data = shapes.write(benchmark, folder, source.items or SHAPES_ITEMS, source.seed)
        media = folder
    questions = read_questions(benchmark, data, source.items)
    if not questions.items:
        raise UserError(field="--data", value=data, why="none of its items can be asked of a judge",
                        fix="Name data of one image or clip for each thing that is judged.")  # fmt: skip
    shelf = MediaFolder(media or (data if data.is_dir() else data.parent))
    rows = judge_benchmark(benchmark, questions, judges(shelf), shelf, seed=source.seed)
    verdicts = out or folder / "verdicts.jsonl"
    write_rows(verdicts, rows)
    found = score_verdicts(benchmark, verdicts, data if benchmark in SCORED_WITH_DATA else None)
    return replace(found, notes=[*found.notes, *_notes(source, questions.left_out)]), verdicts


def _notes(source: Source, left_out: int) -> list[str]:
    notes = ["Made in the shapes world after this benchmark's protocol: published rows are of other pictures."]
    return [*(notes if source.data is None else []),
            *([f"{left_out:,} items mix text and images and were not asked."] if left_out else [])]  # fmt: skip


def judge_benchmark(
    benchmark: str, questions: Questions, votes: Sequence[Asking], media: MediaFolder, *, seed: int = 0
) -> list[Row]:
    """Rows of a verdict file. votes: the judge once for each vote (one, but for shuffled protocols); media: theirs."""
    asked = [
        _Asked(number, item, _query(questions.modality, item, media)) for number, item in enumerate(questions.items)
    ]
    judge = votes[0]
    if benchmark in ("imagereward", "hpdv2"):
        return _rewards(judge, asked)
    if benchmark == "mmrb2":
        return _both_orders(judge, asked)
    scores = _scores(judge, asked)
    if benchmark in TIES:
        return _with_ties(benchmark, judge, asked, scores)
    return [
        row for number, vote in enumerate(votes) for row in _shuffled(benchmark, vote, asked, scores, seed + number)
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, default=_plain) + "\n" for row in rows), encoding="utf-8")


def _plain(value: object) -> object:
    return None if isinstance(value, bytes) else str(value)


def _tell(done: int, total: int) -> None:
    progress.report(done, total, "answers")


@dataclass(frozen=True)
class _Asked:
    number: int
    item: Item
    query: Query

    @property
    def points(self) -> list[Query]:
        task = Task.of(self.query.task.modality, self.query.task.subject, Mode.POINT)
        if self.query.answers:
            return [Query(task, self.query.prompt, self.query.media, (answer,)) for answer in self.query.answers]
        return [Query(task, self.query.prompt, (digest,)) for digest in self.query.media]

    def noun(self) -> str:
        return "Answer" if self.query.answers else self.query.task.modality.value.capitalize()


def _query(modality: Modality, item: Item, media: MediaFolder) -> Query:
    task = Task.of(modality, item.subject, Mode.PAIR)
    return Query(task, item.prompt, tuple(media.add(one) for one in item.media), item.answers)


def _scores(judge: Asking, asked: Sequence[_Asked]) -> list[list[float | None]]:
    """The score of each judged thing of each item; none where the judge's templates have no score for it."""
    queries = [query for one in asked for query in one.points]
    if any(query.task not in judge.pack.tasks for query in queries):
        return [[] for _ in asked]
    said = iter([verdict.score for verdict in judge.score(queries, _tell)])
    return [[next(said) for _ in one.points] for one in asked]


def _rewards(judge: Asking, asked: Sequence[_Asked]) -> list[Row]:
    scores = _scores(judge, asked)
    if not all(scores):
        raise UserError(field="--template", value=judge.pack.name, why="this pack scores no single image",
                        fix="Use a pack with the task image_generation_point.")  # fmt: skip
    return [{"id": one.item.row.get("id", str(one.number)), "prompt": one.item.prompt, "rewards": own}
            for one, own in zip(asked, scores, strict=True)]  # fmt: skip


def _with_ties(
    benchmark: str, judge: Asking, asked: Sequence[_Asked], scores: Sequence[list[float | None]]
) -> list[Row]:
    rows = []
    for one, verdict, own in zip(asked, judge.compare([one.query for one in asked], _tell), scores, strict=True):
        side = _of_both_orders(verdict)
        kept = {name: value for name, value in one.item.row.items() if not isinstance(value, bytes | dict)}
        if benchmark.startswith("genai-bench"):
            row = {
                "idx": one.number,
                "response": _label(judge, one, side, own),
                "human_vote": kept.get("vote_type"),
                **kept,
            }
        else:
            row = {**kept, "output": _sentence(one.noun(), side)}
        rows.append(row | _named_scores(own) | {"p_first": verdict.p_first, "rationale": verdict.rationale})
    return rows


def _of_both_orders(verdict: PairVerdict) -> Side | None:
    """first or second where both orders say so; None where one could not be read."""
    singles = [_side(verdict.p_first_shown_first), _side(verdict.p_first_shown_second)]
    if verdict.p_first is not None and None in singles:
        return Side.TIE  # equal items, not asked
    if None in singles:
        return None
    return singles[0] if singles[0] is singles[1] else Side.TIE


def _side(p_first: float | None) -> Side | None:
    if p_first is None:
        return None
    return Side.TIE if p_first == 0.5 else Side.FIRST if p_first > 0.5 else Side.SECOND


def _label(judge: Asking, one: _Asked, side: Side | None, scores: Sequence[float | None]) -> str:
    """GenAI-Bench's words: a tie of things above the middle of the scale is Good, below it Bad, without scores neither."""
    if side is not Side.TIE:
        return {Side.FIRST: "[[A>B]]", Side.SECOND: "[[B>A]]"}.get(side, "") if side else ""
    known = [score for score in scores if score is not None]
    if not known:
        return "[[A=B]]"
    low, high = judge.pack.point(one.points[0].task).range
    return "[[A=B=Good]]" if sum(known) / len(known) >= (low + high) / 2 else "[[A=B=Bad]]"


def _sentence(noun: str, side: Side | None) -> str:
    words = {Side.FIRST: f"{noun} 1 is better.", Side.SECOND: f"{noun} 2 is better.",
             Side.TIE: f"Both {noun.lower()}s are equally good."}  # fmt: skip
    start = "Overall Judgment: " if noun == "Answer" else ""  # without it VL-RewardBench's own pattern finds nothing
    return start + words[side] if side else ""


def _named_scores(scores: Sequence[float | None]) -> Row:
    return {"score_A": scores[0], "score_B": scores[1]} if len(scores) == 2 else {}


def _shuffled(
    benchmark: str, judge: Asking, asked: Sequence[_Asked], scores: Sequence[list[float | None]], seed: int
) -> list[Row]:
    """One vote on each item, in an order drawn from the seed as UnifiedReward's scripts do: reversed from 1/2 on."""
    draw = random.Random(seed)
    swapped = [draw.random() >= 0.5 for _ in asked]
    rows = []
    for one, verdict, reverse, own in zip(
        asked, judge.compare([one.query for one in asked], _tell), swapped, scores, strict=True
    ):
        side = _side(verdict.p_first_shown_second if reverse else verdict.p_first_shown_first)
        shown = side.swapped() if side and reverse else side
        said = {"output": _sentence(one.noun(), shown),
                "rationale": verdict.rationale_swapped if reverse else verdict.rationale}  # fmt: skip
        rows.append(_NAMED[benchmark](one, reverse) | said | _named_scores(own))
    return rows


def _vl(one: _Asked, reverse: bool) -> Row:
    return {"id": one.item.row.get("id"), "index": one.number, "order": [1, 0] if reverse else [0, 1]}


def _sharegpt(one: _Asked, reverse: bool) -> Row:
    gold = read_label(one.item.row.get("answer"))
    return {"id": str(one.number), "prompt": one.item.prompt, "swapped": reverse,
            "label": {Side.FIRST: "A", Side.SECOND: "B", Side.TIE: "tie", None: None}[gold]}  # fmt: skip


def _hpdv3(one: _Asked, reverse: bool) -> Row:
    kept = {name: value for name, value in one.item.row.items() if isinstance(value, str | int | float)}
    return {"id": str(one.number), **kept, "swapped": reverse}


_NAMED: Mapping[str, Callable[[_Asked, bool], Row]] = {
    "vl-rewardbench": _vl, "sharegptvideo-1k": _sharegpt, "hpdv3": _hpdv3
}  # fmt: skip


def _both_orders(judge: Asking, asked: Sequence[_Asked]) -> list[Row]:
    verdicts: dict[int, PairVerdict] = {}
    for subject in Subject:
        own = [one for one in asked if one.query.task.subject is subject]
        compared = judge.compare([one.query for one in own], _tell)
        verdicts |= {one.number: verdict for one, verdict in zip(own, compared, strict=True)}
    return [_orders_row(one, verdicts[one.number]) for one in asked]


def _orders_row(one: _Asked, verdict: PairVerdict) -> Row:
    letters = {Side.FIRST: "A", Side.SECOND: "B", Side.TIE: "tie", None: None}
    shown, second = _side(verdict.p_first_shown_first), _side(verdict.p_first_shown_second)
    reverse = second.swapped() if second else None
    row = one.item.row
    return {"id": row.get("id", row.get("pair_id")), "chosen": row.get("chosen"), "task": one.item.task,
            "forward": [{"judgement": letters[shown]}], "reverse": [{"judgement": letters[reverse]}]}  # fmt: skip
