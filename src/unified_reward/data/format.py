"""A published layout: what tells it, what its rows say, under which terms it is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unified_reward.data.examples import Example, Row, RowError

Reader = Callable[[Row], Sequence[Example]]


@dataclass(frozen=True)
class Combined:
    """Examples made of several rows, and which groups of rows gave none, with the reason."""

    examples: Sequence[Example]
    rejects: Sequence[tuple[str, RowError]] = ()


@dataclass(frozen=True)
class Format:
    """A layout and its reader.

    name: as users write it. title: data set and layout. licence: as its publisher states it. matches: whether a row has
    this layout. read: a pure function from a row to examples; raises RowError. opened: where rows need what lies beside
    their file, the reader for that file. combine: what several rows make together (pairs of images with scores).
    """

    name: str
    title: str
    licence: str
    matches: Callable[[Row], bool]
    read: Reader
    opened: Callable[[Path], Reader] | None = field(default=None)
    combine: Callable[[Sequence[Example]], Combined] | None = field(default=None)

    def reader(self, path: Path) -> Reader:
        return self.opened(path) if self.opened else self.read


def has(*keys: str) -> Callable[[Row], bool]:
    """Whether a row has all these keys."""
    return lambda row: all(key in row for key in keys)
