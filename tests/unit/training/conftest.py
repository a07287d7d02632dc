"""A tiny VLM and random trees: pictures, clips and plain text, prompts and answers of many lengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fsdp_utils.context import DistContext
from unified_reward.models.batching import Segment
from unified_reward.models.tiny_vlm import tiny_tokenizer, tiny_vlm
from unified_reward.models.vlm import Vlm
from unified_reward.training.packing import Tree, answer_tree

WORDS = ["red", "blue", "green", "ring", "square", "cross", "yes", "no"]
Trees = Callable[[int, int], list[Tree]]


@pytest.fixture(scope="session")
def vlm() -> Vlm:
    corpus = [" red blue green ring square cross yes no user assistant"]
    return tiny_vlm(tiny_tokenizer(corpus, WORDS), seed=0)


@pytest.fixture(scope="session")
def alone() -> DistContext:
    return DistContext.init("cpu")


@pytest.fixture
def trees(vlm: Vlm) -> Trees:
    """trees(count, seed): two answers each; every third prompt has a picture, every third a clip."""

    def make(count: int, seed: int) -> list[Tree]:
        rng = np.random.default_rng(seed)
        return [answer_tree(vlm.processor, user(rng, i), [sentence(rng), sentence(rng)]) for i in range(count)]

    return make


def sentence(rng: np.random.Generator) -> str:
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, 7)))


def user(rng: np.random.Generator, index: int) -> list[Segment]:
    text = Segment(" " + sentence(rng))
    if index % 3 == 0:
        return [Segment(image=rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)), text]
    if index % 3 == 1:
        return [text, Segment(video=rng.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)), text]
    return [text]
