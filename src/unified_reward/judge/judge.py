"""The judge: queries in, verdicts out; each distinct query is asked once, in batches of equal task and like length.

    judge = Judge(load_vlm(directory), load_pack("shapes"), media)
    judge.compare([Query(task, question, (image,), (answer, other))])    # PairVerdict: both orders, averaged
    judge.score([Query(task, question, (image,), (answer,))])            # PointVerdict: expected score

Verdicts come from probabilities: the rationale is decoded greedily, then the verdict strings are weighed after it.
`compare_text` and `score_text` read what the judge says instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from unified_reward.errors import UserError
from unified_reward.judge.grammar import Reading, read_choice, read_score
from unified_reward.judge.media import MediaShelf
from unified_reward.judge.pack import Pack, load_pack, parse_pack
from unified_reward.judge.query import Query
from unified_reward.judge.reader import Answer, Reader
from unified_reward.judge.render import MediaSource, answer_start, pieces, query_segments
from unified_reward.judge.tree import AnswerTree
from unified_reward.judge.verdict import (
    PairVerdict,
    PointVerdict,
    equal_items,
    expected_score,
    pair_from_choices,
    pair_verdict,
)
from unified_reward.models.batching import Encoded, encode
from unified_reward.models.vlm import Vlm, generate_text, load_vlm
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
        self._trees: dict[Task, AnswerTree] = {}

    @classmethod
    def load(cls, directory: str | Path, media: MediaSource, *, pack: str = "", batch: int = 128,
             device: str = "cpu") -> Judge:  # fmt: skip
        """A trained judge with the pack saved beside it, or any Qwen2.5-VL checkpoint with a pack named here."""
        beside = Path(directory) / PACK_FILE
        if pack:
            templates = load_pack(pack)
        elif beside.is_file():
            templates = parse_pack(beside.read_text(encoding="utf-8"), origin=str(beside))
        else:
            templates = load_pack("default")
        return cls(load_vlm(directory, device=device), templates, media, batch=batch)

    def compare(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PairVerdict]:
        """The verdict of each pair, both orders averaged. progress(done, total) counts distinct orders asked."""
        self._check(queries, Mode.PAIR)
        answers = self._ask(_both_orders(queries), progress)
        return [self._pair(query, answers) for query in queries]

    def score(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PointVerdict]:
        """The expected score of each item."""
        self._check(queries, Mode.POINT)
        answers = self._ask(list(dict.fromkeys(queries)), progress)
        verdicts = []
        for query in queries:
            template, answer = self.pack.point(query.task), answers[query]
            logprobs = dict(zip(template.strings, answer.logprobs, strict=True))
            score = expected_score(logprobs, template.values)
            verdicts.append(PointVerdict(score, logprobs, answer.rationale, answer.finished))
        return verdicts

    def compare_text(self, queries: Sequence[Query], *, max_new_tokens: int, reading: Reading = Reading.STRICT,
                     progress: Progress | None = None) -> list[PairVerdict]:  # fmt: skip
        """As `compare`, with the verdicts read from what the judge says in each order."""
        said = self._say(_both_orders(queries), max_new_tokens, progress)
        verdicts = []
        for query in queries:
            if query == query.swapped():
                verdicts.append(equal_items())
                continue
            template, texts = self.pack.pair(query.task), (said[query], said[query.swapped()])
            verdict = pair_from_choices(*(read_choice(text, template, query.task, reading) for text in texts))
            verdicts.append(replace(verdict, rationale=texts[0], rationale_swapped=texts[1]))
        return verdicts

    def score_text(self, queries: Sequence[Query], *, max_new_tokens: int, reading: Reading = Reading.STRICT,
                   progress: Progress | None = None) -> list[PointVerdict]:  # fmt: skip
        """As `score`, with the score read from what the judge says; None where it says none."""
        said = self._say(list(dict.fromkeys(queries)), max_new_tokens, progress)
        return [
            PointVerdict(read_score(said[query], self.pack.point(query.task), reading), rationale=said[query])
            for query in queries
        ]

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

    def _check(self, queries: Sequence[Query], mode: Mode) -> None:
        for task in {query.task for query in queries}:
            if task.mode is not mode:
                raise ValueError(f"{task} is not a {mode} task")
            if not self.pack.template(task).strings:
                raise UserError(
                    field=f"template pack {self.pack.name}: tasks.{task}", value=None,
                    why="it has no verdict strings to weigh", fix="Add them, or read verdicts from text.",
                )  # fmt: skip

    def _ask(self, queries: Sequence[Query], progress: Progress | None) -> dict[Query, Answer]:
        """The answer to each of the distinct queries."""
        answers: dict[Query, Answer] = {}
        for window in _cut(queries, WINDOW * self.batch):
            asked = [self._asked(query) for query in window]
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

    def _say(self, queries: Sequence[Query], max_new_tokens: int, progress: Progress | None) -> dict[Query, str]:
        """What the judge says to each of the distinct queries, greedily."""
        said: dict[Query, str] = {}
        for window in _cut(queries, WINDOW * self.batch):
            prompts = [self._asked(query).prompt for query in window]
            texts = generate_text(self.vlm, prompts, max_new_tokens=max_new_tokens, batch=self.batch)
            said.update(zip(window, texts, strict=True))
            if progress:
                progress(len(said), len(queries))
            self._shelf.trim()
        return said

    def _asked(self, query: Query) -> _Asked:
        return _Asked(query, encode(self._shelf, query_segments(query, self.pack, self._shelf.pixels, self._shelf)))

    def _tree(self, task: Task) -> AnswerTree:
        if task not in self._trees:
            self._trees[task] = answer_tree(self.pack, task, self._shelf)
        return self._trees[task]


def answer_tree(pack: Pack, task: Task, processor: MediaShelf) -> AnswerTree:
    """The verdict strings of a task as tokens, cut where the training text is cut, so that both are the same tokens."""
    template = pack.template(task)
    prefix, texts = template.verdict_prefix, list(template.strings.values())
    if template.rationale is None:
        prefix = answer_start(prefix, processor) if prefix else prefix
        texts = texts if prefix else [answer_start(text, processor) for text in texts]
    strings = [[token for piece, _ in pieces(text, texts) for token in processor.text_ids(piece)] for text in texts]
    return AnswerTree.of(processor.text_ids(prefix) if prefix else [], strings)


def _both_orders(queries: Sequence[Query]) -> list[Query]:
    """Every order that must be asked, each once: (a, b) and (b, a) share theirs, equal items need none."""
    different = [query for query in queries if query != query.swapped()]
    return list(dict.fromkeys(order for query in different for order in (query, query.swapped())))


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
