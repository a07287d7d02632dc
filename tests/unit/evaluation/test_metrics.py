"""Judge and policy metrics on cases small enough to count."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unified_reward.evaluation import Graded, judge_metrics, pair_metrics, point_metrics, policy_metrics
from unified_reward.evaluation.policy_metrics import Compared, opinion_metrics, shares
from unified_reward.evaluation.statistics import wilson_interval
from unified_reward.records import Choice, JudgeRecord, Task, Verdict

PAIR, POINT = Task.IMAGE_UNDERSTANDING_PAIR, Task.VIDEO_GENERATION_POINT


def pair(
    label: Choice, p12: float | None, p21: float | None, choice: Choice, **facts: str
) -> tuple[JudgeRecord, Verdict]:
    """p12, p21: P(first better) in each order."""
    p = None if p12 is None or p21 is None else (p12 + p21) / 2
    record = JudgeRecord(id="r", task=PAIR, split="test", source="t", prompt="?", media=["m"], answers=["a", "b"],
                         choice=label, facts=facts)  # fmt: skip
    verdict = Verdict(id="v", task=PAIR, prompt_id="r", first_id="a", second_id="b", choice=choice, p_first=p,
                      p_first_shown_first=p12, p_first_shown_second=p21)  # fmt: skip
    return record, verdict


def point(
    label: float, said: float | None, low: float = 1, high: float = 5, **facts: str
) -> tuple[JudgeRecord, Verdict]:
    record = JudgeRecord(id="r", task=POINT, split="test", source="t", prompt="?", media=["m"], score=label, score_min=low,
                         score_max=high, facts=facts)  # fmt: skip
    return record, Verdict(id="v", task=POINT, prompt_id="r", first_id="a", score=said)


PAIRS = [
    pair(Choice.FIRST, 0.9, 0.8, Choice.FIRST, color="right/wrong", shape="right/right"),  # both orders right
    pair(Choice.FIRST, 0.9, 0.3, Choice.FIRST, color="right/wrong", shape="wrong/right"),  # one order right, sum right
    pair(Choice.SECOND, 0.9, 0.3, Choice.FIRST, color="right/right", shape="wrong/right"),  # one order right, sum wrong
    pair(Choice.SECOND, 0.1, 0.2, Choice.SECOND, color="wrong/right"),
    pair(Choice.SECOND, 0.5, 0.5, Choice.TIE),  # nothing right
    pair(Choice.FIRST, 1.0, None, Choice.UNPARSED),  # one order right, the other unread
    pair(Choice.TIE, 0.5, 0.5, Choice.TIE),  # not among the decided
]


def test_pair_metrics_by_hand() -> None:
    metrics = pair_metrics(PAIRS)
    assert metrics["n"] == 6
    assert metrics["n_labelled_tie"] == 1
    assert metrics["accuracy"] == pytest.approx(3 / 6)
    assert metrics["single_order_accuracy"] == pytest.approx((2 + 1 + 1 + 2 + 0 + 1) / 12)
    assert metrics["swap_consistency"] == pytest.approx(4 / 6)  # of six read in both orders, the two .9/.3 disagree
    assert metrics["three_way_accuracy"] == pytest.approx(4 / 7)
    assert metrics["tie_rate"] == pytest.approx(2 / 7)
    assert metrics["unparsed_rate"] == pytest.approx(1 / 7)
    assert metrics["first_place_rate"] == pytest.approx((4 + 3) / 9)  # shown first: 4 of 5; shown second: 3 of 4
    assert metrics["facts"] == {"color": {"accuracy": 1.0, "n": 2}, "shape": {"accuracy": 0.0, "n": 1}}
    low, high = metrics["accuracy_interval"]
    assert 0 <= low < 0.5 < high <= 1


def test_point_metrics_by_hand() -> None:
    """Labels 1, 3, 5 on 1..5; 0 and 100 on 0..100 are 1 and 5; one unread."""
    cases = [
        point(1, 1.5),
        point(3, 3.5),
        point(5, 4.0),
        point(0, 1.0, 0, 100),
        point(100, 5.0, 0, 100),
        point(4, None),
    ]
    metrics = point_metrics(cases, (1, 5))
    truth, said = [1, 3, 5, 1, 5], [1.5, 3.5, 4.0, 1.0, 5.0]
    assert metrics["n"] == 5
    assert metrics["pearson"] == pytest.approx(np.corrcoef(truth, said)[0, 1])
    assert metrics["spearman"] == pytest.approx(np.corrcoef([1.5, 3, 4.5, 1.5, 4.5], [2, 3, 4, 1, 5])[0, 1])
    assert metrics["mae"] == pytest.approx((0.5 + 0.5 + 1.0) / 5)
    assert metrics["bias"] == pytest.approx(0.0)
    assert metrics["unparsed_rate"] == pytest.approx(1 / 6)


def test_a_fact_the_judge_misses_shows_as_bias() -> None:
    cases = [point(4, 5.0, color="wrong", shape="right"), point(4, 4.0, color="right", shape="wrong"),
             point(3, 3.0, color="wrong", shape="wrong"), point(5, 5.0, color="right", shape="right")]  # fmt: skip
    assert point_metrics(cases, (1, 5))["facts"] == {"color": {"bias": 1.0, "n": 1}, "shape": {"bias": 0.0, "n": 1}}


def test_judge_metrics_by_task_are_json() -> None:
    labelled = [*PAIRS, point(1, 1.0), point(5, 5.0)]
    records, verdicts = [r for r, _ in labelled], [v for _, v in labelled]
    metrics = judge_metrics(records, verdicts, {POINT: (1, 5)})
    assert set(metrics) == {PAIR.value, POINT.value}
    assert {"accuracy", "single_order_accuracy", "swap_consistency", "n"} <= set(metrics[PAIR.value])
    assert {"pearson", "spearman", "n"} <= set(metrics[POINT.value])
    assert json.loads(json.dumps(metrics, allow_nan=False))[PAIR.value]["n"] == 6
    with pytest.raises(ValueError, match="same order"):
        judge_metrics(records, verdicts[::-1], {POINT: (1, 5)})


def test_nothing_to_correlate_is_null() -> None:
    assert point_metrics([point(3, 3.0)], (1, 5))["pearson"] is None
    assert point_metrics([point(3, 3.0), point(3, 4.0)], (1, 5))["spearman"] is None
    assert pair_metrics([PAIRS[-1]])["accuracy"] is None


def test_policy_metrics_by_hand() -> None:
    before = [Graded("p1", True, {"color": True}), Graded("p2", False, {"color": False}),
              Graded("p3", False, {"shape": False}), Graded("p4", False, {"shape": True})]  # fmt: skip
    after = [Graded("p1", True, {"color": True}), Graded("p2", True, {"color": True}),
             Graded("p3", True, {"shape": True}), Graded("p4", False, {"shape": True})]  # fmt: skip
    metrics = policy_metrics(before, after, "share right")
    assert {k: metrics[k] for k in ("before", "after", "n", "metric", "gain")} == {
        "before": 0.25, "after": 0.75, "n": 4, "metric": "share right", "gain": 0.5,
    }  # fmt: skip
    assert metrics["facts"] == {
        "color": {"before": 0.5, "after": 1.0, "n": 2},
        "shape": {"before": 0.5, "after": 1.0, "n": 2},
    }
    json.dumps(metrics, allow_nan=False)
    with pytest.raises(ValueError, match="same prompts"):
        policy_metrics(before, after[1:], "share right")


def test_images_of_one_caption_are_one_draw() -> None:
    """40 equal images of each of 10 captions say no more than 10 images: the interval is as wide."""
    rng = np.random.default_rng(0)
    outcomes = [(bool(a), bool(b)) for a, b in rng.random((10, 2)) < [0.4, 0.6]]

    def graded(side: int, copies: int) -> list[Graded]:
        return [Graded(f"p{i}", pair[side]) for i, pair in enumerate(outcomes) for _ in range(copies)]

    few = policy_metrics(graded(0, 1), graded(1, 1), "m")
    many = policy_metrics(graded(0, 40), graded(1, 40), "m")
    assert many["gain_interval"] == pytest.approx(few["gain_interval"])
    assert many["n"] == 400
    assert many["prompts"] == 10


def test_an_opinion_by_hand_bears_the_name_of_the_judge() -> None:
    said = [
        Compared("p", Choice.SECOND, 0.1, True, 2.0, 4.0), Compared("p", Choice.TIE, 0.5, True, 3.0, 3.0),
        Compared("q", Choice.FIRST, 0.9, False, 5.0, 4.0), Compared("q", Choice.SECOND, 0.2, True, 1.0, 4.0),
    ]  # fmt: skip
    metrics = opinion_metrics(said)
    assert metrics["judge_win_rate"] == 2.5 / 4
    assert metrics["judge_win_rate_interval"] == wilson_interval(1.25, 2)  # two prompts, however many images of each
    assert [metrics[f"judge_{name}"] for name in ("wins", "ties", "losses")] == [2, 1, 1]
    assert metrics["judge_order_agreement"] == 0.75
    assert (metrics["judge_score_before"], metrics["judge_score_after"]) == (2.75, 3.75)
    assert metrics["judge_score_gain"] == 1.0
    assert metrics["judge_score_gain_interval"] == (1.0, 1.0)  # p and q gained the same
    assert (metrics["n"], metrics["prompts"], metrics["metric"]) == (4, 2, "win rate by the judge")
    assert all(name.startswith("judge") for name in metrics if name not in ("n", "prompts", "metric"))
    assert shares(metrics) == (0.5, 0.625)
    json.dumps(metrics)


def test_an_opinion_without_scores_has_none_and_the_same_policy_is_at_one_half() -> None:
    metrics = opinion_metrics([Compared(f"p{i}", Choice.TIE, 0.5, True) for i in range(30)])
    assert metrics["judge_win_rate"] == 0.5
    low, high = metrics["judge_win_rate_interval"]
    assert low < 0.5 < high
    assert not [name for name in metrics if "score" in name]
    with pytest.raises(ValueError, match="nothing to compare"):
        opinion_metrics([])
