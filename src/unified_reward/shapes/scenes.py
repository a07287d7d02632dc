"""What can be in a picture or a clip, and which split it belongs to.

A `Scene` has five independent facts (720 scenes), a `Clip` four (288 clips). A split is a function of the facts alone,
so no seed, look or wording can carry a held-out scene into training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SPLITS = ("train", "validation", "test")
SIZES = ("small", "large")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("ring", "square", "triangle", "cross")
POSITIONS = ("left", "right", "top", "bottom", "center")
BACKGROUNDS = ("white", "black", "gray")
MOVES = ("left", "right", "up", "down")

VALUES: Mapping[str, tuple[str, ...]] = {
    "size": SIZES, "color": COLORS, "shape": SHAPES, "position": POSITIONS, "background": BACKGROUNDS, "move": MOVES,
}  # fmt: skip
SCENE_FACTS = ("size", "color", "shape", "position", "background")
CLIP_FACTS = ("color", "shape", "move", "background")
SHORT_FACTS = ("color", "shape", "background")  # what a short caption names


class _Facts:
    """What scenes and clips share: their facts by name."""

    def facts(self) -> dict[str, str]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @property
    def key(self) -> str:
        return "-".join(self.facts().values())


@dataclass(frozen=True)
class Scene(_Facts):
    size: str
    color: str
    shape: str
    position: str
    background: str


@dataclass(frozen=True)
class Clip(_Facts):
    color: str
    shape: str
    move: str
    background: str


@cache
def all_scenes() -> tuple[Scene, ...]:
    return tuple(Scene(*values) for values in itertools.product(*(VALUES[f] for f in SCENE_FACTS)))


@cache
def all_clips() -> tuple[Clip, ...]:
    return tuple(Clip(*values) for values in itertools.product(*(VALUES[f] for f in CLIP_FACTS)))


@cache
def short_triples(split: str) -> tuple[tuple[str, str, str], ...]:
    """(color, shape, background) of the short captions in a split: 48 train, 12 validation, 12 test."""
    triples = sorted(itertools.product(COLORS, SHAPES, BACKGROUNDS), key=lambda t: _digest("short-" + "-".join(t)))
    bounds = {"train": (0, 48), "validation": (48, 60), "test": (60, 72)}
    return tuple(triples[slice(*bounds[split])])


def split_of(item: Scene | Clip) -> str:
    """train (about 80 %), validation or test (about 10 % each).

    A large shape in the center is what an image policy draws for a short caption, so it follows that caption's split.
    """
    if isinstance(item, Scene) and item.size == "large" and item.position == "center":
        triple = (item.color, item.shape, item.background)
        return next(s for s in SPLITS if triple in short_triples(s))
    bucket = _digest(item.key) % 10
    return "train" if bucket < 8 else SPLITS[bucket - 7]


@cache
def scenes_of(split: str) -> tuple[Scene, ...]:
    return tuple(s for s in all_scenes() if split_of(s) == split)


@cache
def clips_of(split: str) -> tuple[Clip, ...]:
    return tuple(c for c in all_clips() if split_of(c) == split)


def pick(pool: Sequence[T], rng: np.random.Generator) -> T:
    return pool[int(rng.integers(len(pool)))]


def changed(facts: Mapping[str, str], which: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """`facts` with each fact of `which` set to another of its values."""
    other = dict(facts)
    for fact in which:
        other[fact] = pick([v for v in VALUES[fact] if v != facts[fact]], rng)
    return other


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
