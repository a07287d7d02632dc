"""What the page says of the judge by itself."""

from __future__ import annotations

from unified_reward.pipeline.report import _guessing


def test_a_judge_that_may_be_guessing_is_called_so() -> None:
    sure = {"accuracy": 0.98, "accuracy_interval": [0.96, 0.99]}
    unsure = {"accuracy": 0.75, "accuracy_interval": [0.25, 1.0]}
    score = {"pearson": 0.1}
    assert _guessing({"image_generation_pair": sure, "image_generation_point": score}) == ""
    told = _guessing({"image_generation_pair": sure, "video_generation_pair": unsure})
    assert told.startswith("What it says of video generation pair cannot be told from noise")
