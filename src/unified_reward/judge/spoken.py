"""A judge that is asked through an engine, and whose verdicts are read from what it says.

judge = SpokenJudge(OpenAiEngine("http://localhost:8080/v1"), load_pack("default"), media)
judge.compare([Query(task, question, (image,), (answer, other))], Spoken(samples=5, temperature=0.7))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from unified_reward.engines import Engine, Sampling, Turn, Written
from unified_reward.judge.grammar import Reading, aspect_mean, read_aspects, read_choice, read_score
from unified_reward.judge.pack import Pack, PointTemplate
from unified_reward.judge.query import Query
from unified_reward.judge.render import MediaSource, user_segments
from unified_reward.judge.verdict import (
    PairVerdict,
    PointVerdict,
    equal_items,
    expected_score,
    pair_from_votes,
    pair_verdict,
)
from unified_reward.judge.way import Spoken
from unified_reward.judge.weighing import string_logprobs
from unified_reward.records import Choice, Task

Progress = Callable[[int, int], None]
VERDICT_ROOM = 32  # tokens for a verdict after its rationale
FREE_ROOM = 1024  # tokens for an answer whose template says nothing of its length
WINDOW = 1024  # answers asked for at once


class SpokenJudge:
    """engine: who answers. media: digest -> pixels. Each distinct question is asked once, whatever the samples."""

    def __init__(self, engine: Engine, pack: Pack, media: MediaSource, way: Spoken | None = None) -> None:
        self.engine, self.pack, self._media, self.way = engine, pack, media, way or Spoken()

    def compare(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PairVerdict]:
        """The verdict of each pair. A pair of equal items is a tie unasked where both orders are asked."""
        orders = both_orders(queries) if self.way.both_orders else list(dict.fromkeys(queries))
        said = self._say(orders, progress)
        return [self._pair(query, said) for query in queries]

    def score(self, queries: Sequence[Query], progress: Progress | None = None) -> list[PointVerdict]:
        """The score of each item: the mean of the answers that could be read; None where none could."""
        said = self._say(list(dict.fromkeys(queries)), progress)
        return [self._point(self.pack.point(query.task), said[query]) for query in queries]

    def _pair(self, query: Query, said: dict[Query, list[Written]]) -> PairVerdict:
        way = self.way
        if way.both_orders and query == query.swapped():
            return equal_items()
        template = self.pack.pair(query.task)
        shown, swapped = said[query], said[query.swapped()] if way.both_orders else []
        votes = [
            [read_choice(one.text, template, query.task, way.reading) for one in order] for order in (shown, swapped)
        ]
        verdict = pair_from_votes(*votes)
        if way.alternatives and way.both_orders and template.strings and verdict.choice is not Choice.UNPARSED:
            weighed = [
                string_logprobs(one.tokens, template.strings, template.text.marker) for one in (*shown, *swapped)
            ]
            if all(weighed):
                verdict = pair_verdict(*weighed)
        told = [*shown, *swapped]
        return replace(verdict, rationale=shown[0].text, rationale_swapped=swapped[0].text if swapped else "",
                       finished=all(one.finished for one in told))  # fmt: skip

    def _point(self, template: PointTemplate, said: list[Written]) -> PointVerdict:
        way = self.way
        if template.text.aspects and way.reading is not Reading.PAPER:
            found = [read_aspects(one.text, template, way.reading) for one in said]
            scores = [aspect_mean(aspects, template, way.reading) for aspects in found]
        else:
            found, scores = [], [read_score(one.text, template, way.reading) for one in said]
        read = [score for score in scores if score is not None]
        verdict = PointVerdict(
            math.fsum(read) / len(read) if read else None, rationale=said[0].text,
            finished=all(one.finished for one in said), aspects=_means(found),
        )  # fmt: skip
        if way.alternatives and template.strings and not template.text.aspects and read:
            logprobs = string_logprobs(
                said[0].tokens, template.strings, template.text.marker or template.verdict_prefix
            )
            if logprobs:
                return replace(verdict, logprobs=logprobs, score=expected_score(logprobs, template.values))
        return verdict

    def _say(self, queries: Sequence[Query], progress: Progress | None) -> dict[Query, list[Written]]:
        """The answers to each of the distinct queries, `way.samples` of each."""
        way = self.way
        said: dict[Query, list[Written]] = {}
        for task in sorted({query.task for query in queries}):
            same, sampling = [query for query in queries if query.task is task], self._sampling(task)
            size = max(1, WINDOW // way.samples)
            for start in range(0, len(same), size):
                window = same[start : start + size]
                turns = [self._turn(query) for query in window]
                asked = [turn for turn in turns for _ in range(way.samples)]
                seeds = [_seed(way.seed, query, k) for query in window for k in range(way.samples)]
                written = self.engine.write(asked, sampling, seeds if way.temperature > 0 else None)
                for number, query in enumerate(window):
                    said[query] = written[number * way.samples : (number + 1) * way.samples]
                if progress:
                    progress(len(said), len(queries))
        return said

    def _turn(self, query: Query) -> Turn:
        return user_segments(query, self.pack, self._media, self.engine.control_tokens)

    def _sampling(self, task: Task) -> Sampling:
        way = self.way
        rationale = self.pack.template(task).rationale
        room = way.max_new_tokens or (rationale.max_tokens + VERDICT_ROOM if rationale else FREE_ROOM)
        return Sampling(room, way.temperature, way.top_p, alternatives=way.alternatives)


def both_orders(queries: Sequence[Query]) -> list[Query]:
    """Every order that must be asked, each once: (a, b) and (b, a) share theirs, equal items need none."""
    different = [query for query in queries if query != query.swapped()]
    return list(dict.fromkeys(order for query in different for order in (query, query.swapped())))


def _seed(seed: int, query: Query, sample: int) -> int:
    """Of one answer, from what is asked, so that it can be drawn again in any batch. In [0, 2**63)."""
    words = "\0".join([str(seed), query.task, query.prompt, *query.media, "\0", *query.answers, str(sample)])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def _means(found: Sequence[dict[str, float]]) -> dict[str, float]:
    labels = dict.fromkeys(label for aspects in found for label in aspects)
    values = {label: [aspects[label] for aspects in found if label in aspects] for label in labels}
    return {label: math.fsum(own) / len(own) for label, own in values.items()}
