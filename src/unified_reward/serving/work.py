"""A batch of questions -> verdicts, in the one thread that the model is asked in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unified_reward.data.media import Pixels
from unified_reward.engines import Sampling, Turn, Written
from unified_reward.engines.transformers_engine import TransformersEngine
from unified_reward.judge import Query
from unified_reward.judge.judge import Judge
from unified_reward.judge.verdict import PairVerdict, PointVerdict

SCORE, COMPARE, CHAT = "score", "compare", "chat"


@dataclass(frozen=True)
class Question:
    query: Query
    pixels: Mapping[str, Pixels]


@dataclass(frozen=True)
class Talk:
    turn: Turn
    sampling: Sampling
    seed: int


class Shown:
    """The media source of a judge that serves: the pixels of the batch at hand, by digest."""

    def __init__(self) -> None:
        self._pixels: dict[str, Pixels] = {}

    def show(self, questions: Sequence[Question]) -> None:
        self._pixels = {digest: pixels for one in questions for digest, pixels in one.pixels.items()}

    def __call__(self, digest: str) -> Pixels:
        return self._pixels[digest]


class Worker:
    """judge: made with `shown` as its media source."""

    def __init__(self, judge: Judge, shown: Shown) -> None:
        self._judge, self._shown = judge, shown
        # Without the judge's memory of media, which holds only what came through its media source.
        self._engine = TransformersEngine(judge.vlm, batch=judge.batch)

    def __call__(self, kind: str, items: list[Any]) -> list[Any]:
        return self._talk(items) if kind == CHAT else self._verdicts(kind, items)

    def _verdicts(self, kind: str, items: Sequence[Question]) -> list[PairVerdict] | list[PointVerdict]:
        self._shown.show(items)
        queries = [item.query for item in items]
        pack = self._judge.pack
        weighed = all(pack.template(query.task).strings for query in queries)
        judge = self._judge if weighed else self._judge.spoken()  # a template without verdict strings is read from text
        return judge.compare(queries) if kind == COMPARE else judge.score(queries)

    def _talk(self, talks: Sequence[Talk]) -> list[Written]:
        found: dict[int, Written] = {}
        for sampling in dict.fromkeys(talk.sampling for talk in talks):
            same = [number for number, talk in enumerate(talks) if talk.sampling == sampling]
            written = self._engine.write(
                [talks[n].turn for n in same], sampling, [talks[n].seed for n in same] if sampling.temperature else None
            )
            found |= dict(zip(same, written, strict=True))
        return [found[number] for number in range(len(talks))]
