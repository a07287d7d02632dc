"""The judge: queries in, verdicts out; each distinct query is asked once, in batches of equal task and like length.

    judge = Judge(load_vlm(directory), load_pack("shapes"), media)
    judge.compare([Query(task, question, (image,), (answer, other))])    # PairVerdict: both orders, averaged
    judge.score([Query(task, question, (image,), (answer,))])            # PointVerdict: expected score

Verdicts come from probabilities: the rationale is decoded greedily, then the verdict strings are weighed after it.
`judge.spoken()` reads what the judge says instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from unified_reward.engines.transformers_engine import TransformersEngine
from unified_reward.errors import UserError
from unified_reward.judge.grammar import aspect_mean
from unified_reward.judge.media import MediaShelf
from unified_reward.judge.pack import Pack, PairTemplate, PointTemplate, load_pack, parse_pack
from unified_reward.judge.query import Query
from unified_reward.judge.reader import Answer, Reader
from unified_reward.judge.render import MediaSource, answer_start, pieces, query_segments
from unified_reward.judge.spoken import SpokenJudge, both_orders
from unified_reward.judge.tree import AnswerTree
from unified_reward.judge.verdict import (
    PairVerdict,
    PointVerdict,
    equal_items,
    expected_score,
    pair_verdict,
)
from unified_reward.judge.way import Spoken
from unified_reward.models.batching import Encoded, Segment, encode
from unified_reward.models.vlm import Vlm, load_vlm
from unified_reward.records import Mode, Task

PACK_FILE = "template.yaml"  # beside a trained judge's weights: the words it was trained with
WINDOW = 8  # batches encoded at once; they are sorted by length before they are cut
T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Asked:
    query: Query
    prompt: Encoded


class Judge:
    """vlm: model and processor; its device is where judging happens. media: decodes a digest to pixels. batch: prompts
    at once. Results depend on neither batch nor order beyond rounding."""

    def __init__(self, vlm: Vlm, pack: Pack, media: MediaSource, *, batch: int = 128) -> None:
        self.vlm, self.pack, self.batch = vlm, pack, batch
        self._shelf = MediaShelf(vlm.processor, media)
        self._reader = Reader(vlm)
        self.engine = TransformersEngine(vlm, batch=batch, processor=self._shelf)
        self._trees: dict[Task, AnswerTree] = {}

    @classmethod
    def load(cls, directory: str | Path, media: MediaSource, *, pack: str = "", batch: int = 128,
             device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Judge:  # fmt: skip
        """A trained judge with the pack saved beside it, or any checkpoint of `models.families` with a pack named here."""
        return cls(load_vlm(directory, dtype, device), pack_of(directory, pack), media, batch=batch)

    def compare(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PairVerdict]:
        """The verdict of each pair, both orders averaged. progress(done, total) counts distinct orders asked."""
        self._check(queries, Mode.PAIR)
        answers = self._ask(both_orders(queries), progress)
        return [self._pair(query, answers) for query in queries]

    def score(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PointVerdict]:
        """The expected score of each item."""
        self._check(queries, Mode.POINT)
        distinct = list(dict.fromkeys(queries))
        by_aspect = [query for query in distinct if self.pack.point(query.task).text.aspects]
        answers = self._ask([query for query in distinct if query not in set(by_aspect)], progress)
        found = {query: self._point(query, answer) for query, answer in answers.items()}
        found |= self._by_aspect(by_aspect)
        return [found[query] for query in queries]

    def spoken(self, way: Spoken | None = None) -> SpokenJudge:
        """The same judge, with verdicts read from what it says."""
        self._shelf.trim()
        return SpokenJudge(self.engine, self.pack, self._shelf.pixels, way)

    def _pair(self, query: Query, answers: dict[Query, Answer]) -> PairVerdict:
        if query == query.swapped():
            return equal_items()
        keys = self.pack.pair(query.task).strings
        shown, swapped = answers[query], answers[query.swapped()]
        verdict = pair_verdict(
            *(dict(zip(keys, answer.logprobs, strict=True)) for answer in (shown, swapped))
        )  # fmt: skip
        return replace(verdict, rationale=shown.rationale, rationale_swapped=swapped.rationale,
                       finished=shown.finished and swapped.finished)  # fmt: skip

    def _point(self, query: Query, answer: Answer) -> PointVerdict:
        template = self.pack.point(query.task)
        logprobs = dict(zip(template.strings, answer.logprobs, strict=True))
        return PointVerdict(expected_score(logprobs, template.values), logprobs, answer.rationale, answer.finished)

    def _by_aspect(self, queries: Sequence[Query]) -> dict[Query, PointVerdict]:
        """Scores of several aspects: each label is written in its turn, its score weighed, the likeliest written after it."""
        said = dict.fromkeys(queries, "")
        verdicts = {query: PointVerdict(None) for query in queries}
        for place in range(max((len(self.pack.point(query.task).text.aspects) for query in queries), default=0)):
            labels = {
                query: list(self.pack.point(query.task).text.aspects)[place]
                for query in queries if place < len(self.pack.point(query.task).text.aspects)
            }  # fmt: skip
            begun = {query: f"{said[query]}{label}" for query, label in labels.items()}
            for query, answer in self._ask(list(labels), None, begun).items():
                point, label, template = self._point(query, answer), labels[query], self.pack.point(query.task)
                likeliest = max(point.logprobs, key=lambda key: point.logprobs[key])
                said[query] = f"{begun[query]}{template.strings[likeliest]}\n"
                before = verdicts[query]
                verdicts[query] = replace(
                    before, aspects=before.aspects | {label: point.score or 0.0}, rationale=said[query],
                    logprobs=before.logprobs | {f"{label} {key}": value for key, value in point.logprobs.items()},
                )  # fmt: skip
        return {
            query: replace(verdict, score=aspect_mean(verdict.aspects, self.pack.point(query.task)))
            for query, verdict in verdicts.items()
        }

    def _check(self, queries: Sequence[Query], mode: Mode) -> None:
        for task in {query.task for query in queries}:
            if task.mode is not mode:
                raise ValueError(f"{task} is not a {mode} task")
            if not self.pack.template(task).strings:
                raise UserError(
                    field=f"template pack {self.pack.name}: tasks.{task}", value=None,
                    why="it has no verdict strings to weigh", fix="Add them, or read verdicts from text.",
                )  # fmt: skip

    def _ask(self, queries: Sequence[Query], progress: Progress | None,
             begun: Mapping[Query, str] | None = None) -> dict[Query, Answer]:  # fmt: skip
        """The answer to each of the distinct queries. begun: what the judge is held to have written of it already."""
        answers: dict[Query, Answer] = {}
        for window in _cut(queries, WINDOW * self.batch):
            asked = [self._asked(query, (begun or {}).get(query, "")) for query in window]
            self._reader.features([one.prompt for one in asked], self._shelf.features)
            for task in sorted({query.task for query in window}):
                tree, rationale = self._tree(task), self.pack.template(task).rationale
                same = sorted((one for one in asked if one.query.task is task), key=lambda one: len(one.prompt))
                for part in _cut(same, self.batch):
                    read = self._reader.read([one.prompt for one in part], self._shelf.features, tree, rationale)
                    answers.update(zip((one.query for one in part), read, strict=True))
                    if progress:
                        progress(len(answers), len(queries))
            self._shelf.trim()
        return answers

    def _asked(self, query: Query, begun: str) -> _Asked:
        segments = query_segments(query, self.pack, self._shelf.pixels, self._shelf)
        if begun:
            segments = [*segments, Segment(answer_start(begun, self._shelf))]
        return _Asked(query, encode(self._shelf, segments))

    def _tree(self, task: Task) -> AnswerTree:
        if task not in self._trees:
            self._trees[task] = answer_tree(self.pack, task, self._shelf)
        return self._trees[task]


def pack_of(directory: str | Path, named: str = "") -> Pack:
    """The words of a judge: the pack `named`, else the one saved beside its weights, else the default one."""
    beside = Path(directory) / PACK_FILE
    if not named and beside.is_file():
        return parse_pack(beside.read_text(encoding="utf-8"), origin=str(beside))
    return load_pack(named or "default")


def answer_tree(pack: Pack, task: Task, processor: MediaShelf) -> AnswerTree:
    """The verdict strings of a task as tokens, cut where the training text is cut, so that both are the same tokens."""
    template = pack.template(task)
    prefix, texts = template.verdict_prefix, list(template.strings.values())
    if template.rationale is None and not _by_aspect(template):
        prefix = answer_start(prefix, processor) if prefix else prefix
        texts = texts if prefix else [answer_start(text, processor) for text in texts]
    strings = [[token for piece, _ in pieces(text, texts) for token in processor.text_ids(piece)] for text in texts]
    return AnswerTree.of(processor.text_ids(prefix) if prefix else [], strings)


def _by_aspect(template: PairTemplate | PointTemplate) -> bool:
    return isinstance(template, PointTemplate) and bool(template.text.aspects)


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
