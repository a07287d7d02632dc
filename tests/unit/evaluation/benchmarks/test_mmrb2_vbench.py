"""MMRB2 in both orders, and VBench's aggregation with published policies as oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts
from unified_reward.evaluation.benchmarks.vbench import DIMENSIONS


def written(path: Path, value: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def judged(forward: str | None, reverse: str | None) -> dict[str, Any]:
    return {"forward": [{"judgement": forward, "metadata": {}}], "reverse": [{"judgement": reverse}] if reverse else []}


def test_mmrb2_by_hand(tmp_path: Path) -> None:
    """t2i: right in both orders; right then unread (null). edit: always the first place: one of two right; reverse not asked.
    Right are 2 + 1 + 1 + 0 of 2 + 2 + 2 + 1; as published the null is left out."""
    data = tmp_path / "benchmark"
    written(data / "t2i.json", {"pairs": [{"id": "a", "chosen": "A"}, {"id": "b", "chosen": "B"}]})
    written(
        data / "edit.json",
        {"pairs": [{"id": "c", "chosen": "A"}, {"id": "d", "chosen": "B"}, {"id": "e", "chosen": "B"}]},
    )
    out = tmp_path / "out"
    written(out / "task1_image.json", {"a": judged("A", "B"), "b": {**judged(None, "A")}})
    written(out / "task2_edit.json", {"c": judged("A", "A"), "d": judged("A", None)})
    found = score_verdicts("mmrb2", out, data).as_json()
    assert (found["accuracy"], found["n"], found["unparsed"]) == (4 / 7, 7, 1)
    by_task = {name: (one["accuracy"], one["n"]) for name, one in found["groups"].items()}
    assert by_task == {"task/t2i": (3 / 4, 4), "task/edit": (1 / 3, 3)}
    assert found["metrics"]["as_published"]["official"] == {"task/t2i": 1.0, "task/edit": 1 / 3, "overall": 4 / 6}
    assert found["metrics"]["both_orders"] == {"n": 3, "consistent": 1 / 3, "both_right": 1 / 3}
    assert found["metrics"]["macro"] == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert found["metrics"]["missing"] == 1
    # a A, b A, c A A, d A name the first place, a B the second
    assert found["metrics"]["first_place_rate"] == 5 / 6


def test_mmrb2_one_order_a_line(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text('{"id": "a", "chosen": "B", "task": "edit", "output": "{\\"better_response\\": \\"B\\"}"}\n'
                    '{"id": "a", "chosen": "B", "task": "edit", "output": "[[B]]", "swapped": true}\n')  # fmt: skip
    found = score_verdicts("mmrb2", path)
    assert (found.overall.accuracy, found.overall.n, list(found.groups)) == (0.5, 2, ["task/edit"])
    path.write_text(
        '{"id": "a", "chosen": "B", "score_A": 1, "score_B": 2}\n{"id": "b", "chosen": "A", "scores": [1, 1]}'
    )
    found = score_verdicts("mmrb2", path)
    assert (found.overall.accuracy, found.overall.n) == (0.5, 4)


def test_mmrb2_faults(tmp_path: Path) -> None:
    verdicts = written(tmp_path / "v.json", {"a": judged("A", "B"), "z": judged("A", "B")})
    with pytest.raises(UserError, match=r'v\.json, entry "a" .* no label `chosen`.*--data'):
        score_verdicts("mmrb2", verdicts)
    data = written(tmp_path / "t2i.json", {"pairs": [{"id": "a", "chosen": "A"}]})
    with pytest.raises(UserError, match="pair 'z' is not in the data"):
        score_verdicts("mmrb2", verdicts, data)
    with pytest.raises(UserError, match="no label `chosen`"):
        score_verdicts("mmrb2", verdicts, written(tmp_path / "e.json", {"pairs": [{"id": "a", "chosen": "same?"}]}))


def test_mmrb2_folder_also_holds_prompts_without_labels(tmp_path: Path) -> None:
    verdicts = written(tmp_path / "v.json", {"a": judged("A", "B")})
    folder = tmp_path / "benchmark"
    folder.mkdir()
    written(folder / "t2i_response_only.json", {"pairs": [{"id": "a", "chosen": "A"}]})
    written(folder / "new_task_release.json", {"pairs": [{"pair_id": "a", "prompt_content": []}]})
    assert score_verdicts("mmrb2", verdicts, folder).groups["task/t2i"].accuracy == 1.0


# Percent by dimension in VBench's order, then quality, semantic, total: VBench leaderboard, VideoCrafter-2.0.
VIDEOCRAFTER2 = [
    96.85,
    98.22,
    98.41,
    97.73,
    42.50,
    63.13,
    67.22,
    92.55,
    40.66,
    95.00,
    92.92,
    35.86,
    55.29,
    25.13,
    25.84,
    28.23,
]
PUBLISHED = (82.20, 73.42, 80.44)


def test_vbench_gives_a_published_policys_totals(tmp_path: Path) -> None:
    scores = {name.replace(" ", "_"): f"{value}%" for name, value in zip(DIMENSIONS, VIDEOCRAFTER2, strict=True)}
    found = score_verdicts("vbench", written(tmp_path / "v.json", scores)).as_json()
    given = [found["metrics"][name] for name in ("quality", "semantic", "total")]
    assert tuple(round(100 * value, 2) for value in given) == PUBLISHED
    assert (found["accuracy"], found["interval"], found["notes"]) == (given[0], None, [])
    assert found["groups"]["quality/dynamic degree"]["accuracy"] == pytest.approx(0.425)


def test_vbench_results_with_videos_and_a_missing_dimension(tmp_path: Path) -> None:
    """Seven files as VBench writes them, means 1, so quality is 1 but for the half weight: dynamic degree 0.5 of two videos.
    (6 + .5 * .5) / 6.5. Imaging quality is in 0..100 per video. Without semantic ones there is no total."""
    for name in ("subject_consistency", "background_consistency", "temporal_flickering", "aesthetic_quality"):
        written(
            tmp_path / "r" / f"{name}_eval_results.json", {name: [1.0, [{"video_path": "a", "video_results": 1.0}] * 2]}
        )
    written(tmp_path / "r" / "more_eval_results.json", {
        "motion_smoothness": [0.9975, [{"video_path": "a", "video_results": 0.9975}, {"video_path": "b", "video_results": 0.9975}]],
        "imaging_quality": [1.0, [{"video_path": "a", "video_results": 100.0}, {"video_path": "b", "video_results": 100.0}]],
        "dynamic_degree": [0.5, [{"video_path": "a", "video_results": True}, {"video_path": "b", "video_results": False},
                                 {"video_path": "c", "video_results": None}]],
    })  # fmt: skip
    found = score_verdicts("vbench", tmp_path / "r").as_json()
    assert found["accuracy"] == pytest.approx(6.25 / 6.5)
    assert (found["n"], found["unparsed"]) == (14, 1)
    assert found["interval"] == pytest.approx((6 / 6.5, 1.0))
    assert found["metrics"]["total"] is None
    assert found["metrics"]["as_published"]["official"]["total"] < found["accuracy"]
    assert "scene" in found["notes"][0]


@pytest.mark.parametrize(("value", "words"), [
    ({"subject_consistency": 96.3}, "outside 0..1"),
    ({"subject_consistency": "high"}, "is 'high'"),
    ({"subject": 0.9}, "no dimension of VBench"),
])  # fmt: skip
def test_vbench_faults(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        score_verdicts("vbench", written(tmp_path / "v.json", value))
