"""Intervals and correlations against formulas written out, and against their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unified_reward.evaluation.calibration import calibration, reliability
from unified_reward.evaluation.statistics import (
    bootstrap_interval,
    mean,
    number,
    pearson,
    ranks,
    spearman,
    wilson_interval,
)


def test_wilson_solves_its_equation() -> None:
    """The bounds are where |p - share| = z sqrt(p (1 - p) / n)."""
    for right, count in ((7, 10), (0, 12), (50, 50), (300, 400)):
        share = right / count
        for bound in wilson_interval(right, count):
            if 0 < bound < 1:
                assert abs(bound - share) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / count), rel=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_pearson_is_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    assert float(pearson(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert float(pearson(x, -2 * x + 1)) == pytest.approx(-1)
    assert math.isnan(pearson(x, np.ones(50)))
    assert number(pearson(x, np.ones(50))) is None


def test_ranks_share_ties() -> None:
    assert ranks([10, 20, 10, 30, 10]).tolist() == [2, 4, 2, 5, 2]


def test_spearman_by_the_classic_formula() -> None:
    x, y = [1.0, 4.0, 2.0, 9.0, 7.0], [3.0, 1.0, 2.0, 5.0, 4.0]
    order = [1, 3, 2, 5, 4]
    d2 = sum((a - b) ** 2 for a, b in zip(order, [3, 1, 2, 5, 4], strict=True))
    assert float(spearman(x, y)) == pytest.approx(1 - 6 * d2 / (5 * 24))
    assert float(spearman(x, np.exp(x))) == pytest.approx(1)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap_interval([values], mean, resamples=4000) or (0, 0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap_interval([values], mean, seed=2) == bootstrap_interval([values], mean, seed=2)
    assert bootstrap_interval([[1.0]], mean) is None


def test_bootstrap_keeps_pairs_together() -> None:
    x = np.random.default_rng(2).normal(size=30)
    low, high = bootstrap_interval([x, 2 * x], pearson) or (0, 0)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)


def test_calibration_by_hand() -> None:
    """Two verdicts at .62 (one right), two at .97 (both right), one at 1.0 (wrong)."""
    confidences, right = [0.62, 0.62, 0.97, 0.97, 1.0], [True, False, True, True, False]
    table = {round(row.low, 2): row for row in reliability(confidences, right)}
    assert (table[0.6].n, table[0.6].confidence, table[0.6].accuracy) == (2, pytest.approx(0.62), 0.5)
    assert (table[0.95].n, table[0.95].accuracy) == (3, pytest.approx(2 / 3))
    assert (table[0.5].n, table[0.5].accuracy) == (0, None)
    wanted = 2 / 5 * 0.12 + 3 / 5 * (2.94 / 3 - 2 / 3)
    assert calibration(confidences, right)["ece"] == pytest.approx(wanted)
    assert calibration([], [])["ece"] is None


def test_a_judge_as_good_as_it_says_is_calibrated() -> None:
    rng = np.random.default_rng(3)
    confidences = rng.uniform(0.5, 1, 20_000)
    right = rng.random(20_000) < confidences
    assert calibration(confidences.tolist(), right.tolist())["ece"] < 0.015
