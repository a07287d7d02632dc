"""ImageReward and HPD v2: rankings of several images, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_imagereward_by_hand(tmp_path: Path) -> None:
    """First prompt: ranks 1, 2, 2, 3 make five pairs (2, 2 is none); rewards .9, .5, .7, .5: equal ones are wrong.
    (1,2) (1,2') (1,3) right, (2,3) equal, (2',3) right: 4 of 5. Second: 0 of 1, its reward missing. 4 of 6."""
    data = written(tmp_path / "test.json", [
        {"id": "x", "prompt": "p", "generations": ["a", "b", "c", "d"], "ranking": [1, 2, 2, 3]},
        {"id": "y", "prompt": "q", "generations": ["a", "b"], "ranking": [2, 1]},
    ])  # fmt: skip
    verdicts = written(tmp_path / "mine.json", [
        {"id": "y", "ranking": [1, 2], "rewards": [0.3, None]},
        {"id": "x", "ranking": [1, 4, 2, 3], "rewards": [0.9, 0.5, 0.7, 0.5]},
    ])  # fmt: skip
    found = score_verdicts("imagereward", verdicts, data).as_json()
    assert (found["accuracy"], found["n"], found["unparsed"]) == (4 / 6, 6, 1)
    assert found["metrics"]["per_prompt"] == pytest.approx((4 / 5 + 0) / 2)
    assert found["metrics"]["missing"] == 0
    assert {name: one["n"] for name, one in found["groups"].items()} == {"images/2": 1, "images/4": 5}


def test_a_scorers_own_ranking_is_not_taken_for_peoples(tmp_path: Path) -> None:
    verdicts = written(tmp_path / "mine.json", [{"id": "x", "ranking": [1, 2], "rewards": [1, 0]}])
    with pytest.raises(UserError, match="no human ranking"):
        score_verdicts("imagereward", verdicts)
    row = {
        "id": "x",
        "generations": ["a", "b"],
        "ranking": [2, 1],
        "rewards": [1, 0],
    }  # a row of the data, with rewards
    assert score_verdicts("imagereward", written(tmp_path / "merged.json", [row])).overall.accuracy == 0.0


def test_hpdv2_by_hand(tmp_path: Path) -> None:
    """Three images, three pairs. One inversion: 2/3. Tied scores: here wrong, as published by their place. Mean of prompts."""
    data = written(tmp_path / "test.json", [
        {"prompt": "p", "image_path": ["a", "b", "c"], "rank": [1, 2, 3]},
        {"prompt": "q", "image_path": ["a", "b", "c"], "rank": [1, 2, 2]},
    ])  # fmt: skip
    rewards = [{"rewards": [3, 1, 2]}, {"rewards": [1, 1, 0]}]
    found = score_verdicts("hpdv2", written(tmp_path / "m.json", rewards), data).as_json()
    assert found["accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert (found["n"], found["unparsed"]) == (2, 0)
    assert found["metrics"]["as_published"]["hpsv2"]["inversion_score"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["metrics"]["pairwise"] == 3 / 5


def test_hpdv2_ranks_as_the_published_code_logs_them(tmp_path: Path) -> None:
    """logs/hps_rank.json is a list of predicted ranks from 0, one list a prompt."""
    data = written(tmp_path / "test.json", [{"prompt": "p", "image_path": ["a", "b"], "rank": [2, 1]}])
    found = score_verdicts("hpdv2", written(tmp_path / "hps_rank.json", [[1, 0]]), data)
    assert found.overall.accuracy == 1.0


@pytest.mark.parametrize(("row", "words"), [
    ({"id": "x", "rewards": [1.0]}, "scores 1 images, and people ranked 2"),
    ({"id": "x", "rewards": "high"}, "no list of scores"),
    ({"id": "x", "rewards": [1, "b"]}, "rewards is no number"),
])  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    data = written(tmp_path / "d.json", [{"id": "x", "ranking": [1, 2]}])
    with pytest.raises(UserError, match="entry 1") as caught:
        score_verdicts("imagereward", written(tmp_path / "m.json", [row]), data)
    assert words in str(caught.value)
    with pytest.raises(UserError, match=r"entry 1 .*its id is in no row of"):
        score_verdicts("imagereward", written(tmp_path / "m.json", [{**row, "id": "z"}] * 2), data)
