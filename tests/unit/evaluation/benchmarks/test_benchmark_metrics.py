"""Accuracies of benchmarks against cases counted by hand, and tie calibration against every threshold tried one by one."""

from __future__ import annotations

import numpy as np
import pytest

from unified_reward.evaluation.benchmarks.metrics import (
    majority,
    share,
    tie_calibrated_accuracy,
    with_and_without_ties,
)


def test_a_share_counts_unparsed_items_as_wrong() -> None:
    found = share([True, False, True, False], [True, True, True, False])
    assert (found.accuracy, found.n, found.unparsed) == (0.5, 4, 1)
    assert found == share([True, False, True, False], [True, True, True, False])
    assert found.interval is not None
    assert found.interval[0] <= 0.5 <= found.interval[1]
    assert share([], []).accuracy is None


def test_the_interval_is_the_binomial_one() -> None:
    found = share([True] * 300 + [False] * 100, [True] * 400)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert found.interval == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_with_and_without_ties_by_hand() -> None:
    """Six items: 3 of 6 right; of the four that people decided, 2 right. A tie and an unparsed answer are wrong there."""
    gold = ["left", "left", "right", "right", "tie", "tie"]
    predicted = ["left", "tie", "right", None, "tie", "left"]
    assert with_and_without_ties(gold, predicted, "tie") == (3 / 6, 2 / 4)
    assert with_and_without_ties(["tie"], ["tie"], "tie") == (1.0, None)
    assert with_and_without_ties([], [], "tie") == (None, None)


def test_majority_is_more_than_half_of_all_votes() -> None:
    assert majority([True, False, True]) is True
    assert majority([False, False, True]) is False
    assert majority([True, None, True]) is True
    assert majority([True, None, None]) is None  # the unparsed votes are votes
    assert majority([True, False]) is None
    assert majority([True, False, None]) is None
    assert majority([]) is None


def test_tie_calibration_by_hand() -> None:
    """e = 0: the second and third are right; e = .1: also the first, a tie; e = .2 loses the second."""
    found = tie_calibrated_accuracy([0.1, 0.2, 0.5, 0.9], [0, 1, 1, -1])
    assert (found.accuracy, found.epsilon, found.without_ties) == (3 / 4, 0.1, 2 / 3)


def test_tie_calibration_with_exact_ties_and_missing_scores() -> None:
    """e = 0 calls the exact tie of people a tie (right) and the one of the scorer too (wrong); a missing score is never right."""
    found = tie_calibrated_accuracy([0.0, 0.0, 1.0, float("nan"), float("nan")], [0, 1, 1, 0, -1])
    assert (found.accuracy, found.epsilon, found.n, found.unparsed) == (2 / 5, 0.0, 5, 2)
    assert found.without_ties == 1 / 3
    assert tie_calibrated_accuracy([], []).accuracy is None
    assert tie_calibrated_accuracy([float("nan")], [1]).accuracy == 0


def test_tie_calibration_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        d = np.round(rng.normal(size=25), 1)
        d[rng.random(25) < 0.1] = np.nan
        gold = rng.integers(-1, 2, 25)
        tried = {}
        for e in {0.0, *np.abs(d[~np.isnan(d)])}:
            says = [None if np.isnan(x) else 0 if abs(x) <= e else int(np.sign(x)) for x in d]
            tried[e] = sum(said == want for said, want in zip(says, gold, strict=True)) / 25
        found = tie_calibrated_accuracy(d, gold)
        assert found.accuracy == max(tried.values())
        assert found.epsilon == min(e for e, accuracy in tried.items() if accuracy == found.accuracy)


def test_tie_calibration_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="one length"):
        tie_calibrated_accuracy([1.0], [1, 0])
