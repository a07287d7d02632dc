"""A tiny judge with random weights: it says nonsense, but the same nonsense however it is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unified_reward.judge import Pack, parse_pack
from unified_reward.models.families import FAMILIES, Qwen25
from unified_reward.models.tiny_families import tiny_family
from unified_reward.models.tiny_vlm import tiny_tokenizer
from unified_reward.models.vlm import Vlm

VOCABULARY = """question answer 1 2 3 10 which is better ? : what color shape the a ring red green blue small large
yes no . score caption image video left right user assistant how good it"""
WORDS = VOCABULARY.split()

PACK = """
name: test
version: 3
tasks:
  image_understanding_pair:
    prompt: "{media} question: {prompt} answer 1: {answer_1} answer 2: {answer_2} which is better?"
    rationale: {stop: " .", max_tokens: 6}
    verdict: {"1": " answer 1 is better", "2": " answer 2 is better", tie: " no answer is better"}
  image_understanding_point:
    prompt: "{media} question: {prompt} answer: {answer} how good is it?"
    verdict_prefix: " score"
    scores: {" 1": 1, " 2": 2, " 3": 3, " 10": 10}
  image_generation_pair:
    prompt: "caption: {prompt} image 1: {media_1} image 2: {media_2} which is better?"
    verdict: {"1": " image 1", "2": " image 2", tie: null}
  video_generation_pair:
    prompt: "caption: {prompt} video 1: {media_1} video 2: {media_2} which is better?"
    verdict: {"1": " video 1", "2": " video 2", tie: null}
  video_generation_point:
    prompt: "caption: {prompt} video: {media} how good is it?"
    rationale: {stop: " .", max_tokens: 5}
    verdict_prefix: " score"
    scores: {" 1": 1, " 2": 2, " 3": 3}
weights: {verdict: 1.0, rationale: 0.5, rest: 0.25}
"""


@pytest.fixture(scope="session")
def vlm() -> Vlm:
    return _tiny(Qwen25.model_type)


@pytest.fixture(scope="session", params=list(FAMILIES))
def any_vlm(request: pytest.FixtureRequest) -> Vlm:
    """One of each family."""
    return _tiny(request.param)


def _tiny(model_type: str) -> Vlm:
    torch.set_num_threads(1)
    corpus = [" " + word for word in WORDS] * 4 + [" 10"] * 4
    made = tiny_family(model_type, tiny_tokenizer(corpus, WORDS), seed=5)
    made.model.eval()
    return made


@pytest.fixture(scope="session")
def pack() -> Pack:
    return parse_pack(PACK, origin="test.yaml")


@pytest.fixture(scope="session")
def pixels() -> Callable[[str], NDArray[np.uint8]]:
    """Digest -> noise of its own; digests that begin with v are clips of 4 frames."""

    def source(digest: str) -> NDArray[np.uint8]:
        rng = np.random.default_rng(list(digest.encode()))
        shape = (4, 32, 32, 3) if digest.startswith("v") else (32, 32, 3)
        return rng.integers(0, 256, shape, dtype=np.uint8)

    return source
