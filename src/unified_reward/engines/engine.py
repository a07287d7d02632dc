"""The thin interface that every engine has: turns in, what was written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from unified_reward.models.batching import Segment

Turn = Sequence[Segment]  # what the user says: text, pictures and clips in order, without any chat template around it


@dataclass(frozen=True)
class Sampling:
    """max_new_tokens: where an answer is cut. temperature: 0 = greedy. top_p: of the sampled distribution.

    alternatives: how many of the likeliest tokens are told at each place of the answer; 0 = none.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    alternatives: int = 0


@dataclass(frozen=True)
class Token:
    """A token of an answer and the likeliest tokens that could have stood there: text -> log-prob in nats."""

    text: str
    alternatives: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """text: without special tokens; a stop that was reached stands at its end or is left out, as the engine has it.

    finished: the model ended it, else it was cut. tokens: where alternatives were asked for and the engine tells them.
    """

    text: str
    finished: bool = True
    tokens: tuple[Token, ...] = ()


class Engine(Protocol):
    """control_tokens: what must not stand in foreign text, as it would end a turn or stand for a medium."""

    control_tokens: tuple[str, ...]

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        """What is written to each turn, in their order. The same turn object given several times is read once where the
        engine can. seeds: one for each turn, needed where temperature is above 0; equal seed, equal answer, where the
        engine keeps that promise (transformers does; servers do as they say).
        """
        ...
