"""VBench's aggregation on policies of the shapes world whose faults are known: the better one scores better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unified_reward.evaluation.benchmarks import score_verdicts
from unified_reward.shapes.clip_quality import faulty, measure, write_results
from unified_reward.shapes.render import render_clip
from unified_reward.shapes.scenes import Clip

FACTS = {"color": "red", "shape": "square", "move": "left", "background": "white"}


def scored(folder: Path, *faults: float, **more: float) -> dict[str, Any]:
    return score_verdicts("vbench", write_results(faulty(*faults, **more), folder, 60)).as_json()


def test_a_right_clip_has_full_marks_and_a_wrong_one_loses_what_is_wrong() -> None:
    full = measure(render_clip(Clip(**FACTS)), FACTS)
    assert full["motion smoothness"] == pytest.approx(0.9975, abs=0.02)
    assert full["aesthetic quality"] == pytest.approx(1.0, abs=0.05)
    rest = {name: value for name, value in full.items() if name not in ("motion smoothness", "aesthetic quality")}
    limits = {"scene": 0.8222, "overall consistency": 0.364}
    assert rest == pytest.approx({name: limits.get(name, 1.0) for name in rest})
    other = measure(render_clip(Clip(**(FACTS | {"color": "blue", "move": "up"}))), FACTS)
    assert (other["color"], other["human action"], other["object class"]) == (0.0, 0.0, 1.0)
    assert other["overall consistency"] == pytest.approx(0.364 / 2)
    still = np.stack([render_clip(Clip(**FACTS))[0]] * 4)
    assert (measure(still, FACTS)["dynamic degree"], measure(still, FACTS)["human action"]) == (0.0, 0.0)


def test_the_better_policy_is_better(tmp_path: Path) -> None:
    clean, rough = scored(tmp_path / "clean", 0.0, 0.0), scored(tmp_path / "rough", 0.0, 1.0)
    assert clean["accuracy"] > rough["accuracy"]
    assert clean["interval"][0] > rough["interval"][1]
    wrong = scored(tmp_path / "wrong", 0.6, 0.0)
    assert wrong["groups"]["semantic/overall consistency"]["accuracy"] < 0.9 * 0.364
    assert clean["groups"]["semantic/overall consistency"]["accuracy"] > 0.99 * 0.364
    still = scored(tmp_path / "still", 0.0, 0.0, still=1.0)
    # dynamic degree weighs half of 6.5, and is all that a still clip loses
    assert clean["accuracy"] - still["accuracy"] == pytest.approx(0.5 / 6.5, abs=0.02)
    assert clean["metrics"]["semantic"] is None
    assert "multiple objects" in clean["notes"][0]
