"""The judge against held-out labels, per task.

Pair tasks. A record counts when its label is 1 or 2; records labelled a tie are counted apart, since no judge without a
tie of its own can be right about them.
    accuracy               the verdict of both orders averaged is the label; a tie or an unread verdict is not
    single_order_accuracy  the same for one order at a time, mean of the two: what one pays for asking once
    swap_consistency       both orders name the same item (of the records read in both orders)
    tie_rate, unparsed_rate  of all records; three_way_accuracy: over all records, a labelled tie being right as a tie
Point tasks: Pearson and Spearman correlation, mean absolute error on the template's scale, unparsed_rate.
Intervals are 95 % bootstrap percentiles over records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unified_reward.evaluation.calibration import calibration
from unified_reward.evaluation.statistics import bootstrap_interval, mean, number, pearson, spearman
from unified_reward.records import Choice, JudgeRecord, Mode, Task, Verdict

Labelled = Sequence[tuple[JudgeRecord, Verdict]]
DECIDED = (Choice.FIRST, Choice.SECOND)


def judge_metrics(
    records: Sequence[JudgeRecord], verdicts: Sequence[Verdict], ranges: Mapping[Task, tuple[float, float]], *,
    resamples: int = 1000, seed: int = 0,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Task name -> metrics as JSON values, for the tasks that have records.

    verdicts[i] is about records[i]. ranges: smallest and largest score of the templates, by point task.
    Raises ValueError when the two do not match.
    """
    if len(records) != len(verdicts) or any(r.task is not v.task for r, v in zip(records, verdicts, strict=False)):
        raise ValueError("verdicts must be those of the records, in the same order")
    result: dict[str, dict[str, Any]] = {}
    for task in Task:
        labelled = [(r, v) for r, v in zip(records, verdicts, strict=True) if r.task is task]
        if labelled and task.mode is Mode.PAIR:
            result[task.value] = pair_metrics(labelled, resamples=resamples, seed=seed)
        elif labelled:
            result[task.value] = point_metrics(labelled, ranges[task], resamples=resamples, seed=seed)
    return result


def pair_metrics(labelled: Labelled, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    decided = [(r, v) for r, v in labelled if r.choice in DECIDED]
    right = np.array([v.choice is r.choice for r, v in decided], dtype=np.float64)
    single = np.array([_single_orders(r, v) for r, v in decided], dtype=np.float64)
    orders = [(v.p_first_shown_first, v.p_first_shown_second) for _, v in labelled]
    agreed = [(one > 0.5) == (two > 0.5) and (one < 0.5) == (two < 0.5)
              for one, two in orders if one is not None and two is not None]  # fmt: skip
    sure = [(r, v.p_first) for r, v in decided if v.p_first is not None]
    three_way = [v.choice is r.choice for r, v in labelled]
    return {
        "accuracy": _mean(right),
        "accuracy_interval": bootstrap_interval([right], mean, resamples=resamples, seed=seed),
        "single_order_accuracy": _mean(single),
        "single_order_accuracy_interval": bootstrap_interval([single], mean, resamples=resamples, seed=seed),
        "swap_consistency": _mean(agreed),
        "n": len(decided),
        "n_labelled_tie": len(labelled) - len(decided),
        "three_way_accuracy": _mean(three_way),
        "tie_rate": _mean([v.choice is Choice.TIE for _, v in labelled]),
        "unparsed_rate": _mean([v.choice in (None, Choice.UNPARSED) for _, v in labelled]),
        "first_place_rate": _first_place_rate(orders),
        "calibration": calibration(
            [max(p, 1 - p) for _, p in sure], [(p > 0.5) == (r.choice is Choice.FIRST) for r, p in sure]
        ),
        "facts": _accuracy_by_fact(decided),
    }  # fmt: skip


def point_metrics(
    labelled: Labelled, score_range: tuple[float, float], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    read = [(r, v.score) for r, v in labelled if r.score is not None and v.score is not None]
    truth = np.array([_rescaled(r, score_range) for r, _ in read], dtype=np.float64)
    said = np.array([score for _, score in read], dtype=np.float64)
    known = sum(r.score is not None for r, _ in labelled)
    enough = len(read) > 1
    return {
        "pearson": number(pearson(truth, said)) if enough else None,
        "pearson_interval": bootstrap_interval([truth, said], pearson, resamples=resamples, seed=seed),
        "spearman": number(spearman(truth, said)) if enough else None,
        "spearman_interval": bootstrap_interval([truth, said], spearman, resamples=resamples, seed=seed),
        "n": len(read),
        "mae": _mean(np.abs(truth - said)),
        "bias": _mean(said - truth),
        "unparsed_rate": 1 - len(read) / known if known else None,
        "facts": _error_by_fact(read, truth),
    }


def _single_orders(record: JudgeRecord, verdict: Verdict) -> float:
    """Share of the two orders that name the labelled item. An even or unread one names none."""
    want_first = record.choice is Choice.FIRST
    singles = (verdict.p_first_shown_first, verdict.p_first_shown_second)
    return sum(p is not None and (p > 0.5 if want_first else p < 0.5) for p in singles) / 2


def _first_place_rate(orders: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Share of single verdicts that name the item shown first; 1/2 without position bias."""
    named = [one > 0.5 for one, _ in orders if one is not None and one != 0.5]
    named += [two < 0.5 for _, two in orders if two is not None and two != 0.5]
    return _mean(named)


def _accuracy_by_fact(decided: Labelled) -> dict[str, dict[str, Any]]:
    """Per fact, accuracy on the pairs it alone decides: the two items are alike on every other fact."""
    found: dict[str, list[bool]] = {}
    for record, verdict in decided:
        differing = [fact for fact, states in record.facts.items() if len(set(states.split("/"))) > 1]
        if len(differing) == 1:
            found.setdefault(differing[0], []).append(verdict.choice is record.choice)
    return {fact: {"accuracy": _mean(hits), "n": len(hits)} for fact, hits in sorted(found.items())}


def _error_by_fact(read: Sequence[tuple[JudgeRecord, float]], truth: Any) -> dict[str, dict[str, Any]]:
    """Per fact, mean signed error of the score where this fact alone is wrong: above 0, the judge misses it."""
    found: dict[str, list[float]] = {}
    for (record, said), want in zip(read, truth, strict=True):
        wrong = [fact for fact, state in record.facts.items() if state == "wrong"]
        if len(wrong) == 1:
            found.setdefault(wrong[0], []).append(said - want)
    return {fact: {"bias": _mean(errors), "n": len(errors)} for fact, errors in sorted(found.items())}


def _rescaled(record: JudgeRecord, score_range: tuple[float, float]) -> float:
    """The label on the template's scale."""
    low, high = score_range
    assert record.score is not None
    source_low = low if record.score_min is None else record.score_min
    source_high = high if record.score_max is None else record.score_max
    return low + (record.score - source_low) / (source_high - source_low) * (high - low)


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
