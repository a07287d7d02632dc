"""What the page says of the judge by itself."""

from __future__ import annotations

from typing import Any

import pytest

from unified_reward.pipeline.report import _benchmarks, _guessing
from unified_reward.stages.context import Commit


def test_a_judge_that_may_be_guessing_is_called_so() -> None:
    sure = {"accuracy": 0.98, "accuracy_interval": [0.96, 0.99]}
    unsure = {"accuracy": 0.75, "accuracy_interval": [0.25, 1.0]}
    score = {"pearson": 0.1}
    assert _guessing({"image_generation_pair": sure, "image_generation_point": score}) == ""
    told = _guessing({"image_generation_pair": sure, "video_generation_pair": unsure})
    assert told.startswith("What it says of video generation pair cannot be told from noise")


@pytest.mark.parametrize(
    ("report", "config", "shown"),
    [
        ({}, {}, []),
        ({"benchmarks": [{"benchmark": "mmrb2", "n": 3}]}, {"benchmark_data": "/data"}, ["mmrb2"]),
        ({"benchmarks": [{"benchmark": "mmrb2", "n": 3}]}, {"benchmark_data": ""}, ["mmrb2 of drawn shapes"]),
    ],
)
def test_a_benchmark_of_drawn_shapes_is_not_taken_for_the_published_one(
    report: dict[str, Any], config: dict[str, Any], shown: list[str]
) -> None:
    commit = Commit("reward-eval", "k", "", {}, {}, report, config, {}, 1.0, 2.0)
    assert [each["benchmark"] for each in _benchmarks(commit)] == shown
