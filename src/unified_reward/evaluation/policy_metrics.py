"""A policy before and after alignment on held-out prompts: against their known truth, or in a judge's opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unified_reward.evaluation.statistics import Array, bootstrap_interval, mean, wilson_interval
from unified_reward.records import Choice

WIN_RATE = "judge_win_rate"
OPINION = "win rate by the judge"
OWN_JUDGE = "this run's"


@dataclass(frozen=True)
class Graded:
    """One answer or image against the truth. right: every asked fact is right. facts: fact -> right?"""

    prompt_id: str
    right: bool
    facts: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """What the judge said of an answer or image before (first) and its counterpart after (second).

    p_before: P(before is better), both orders averaged. agree: each order alone says the same. score_before, score_after:
    each scored alone, None where the judge's templates have no words for that.
    """

    prompt_id: str
    choice: Choice
    p_before: float
    agree: bool
    score_before: float | None = None
    score_after: float | None = None

    @property
    def won(self) -> float:
        """1 when the judge prefers what came after, 0 when what was before, 1/2 for a tie."""
        return {Choice.SECOND: 1.0, Choice.FIRST: 0.0}.get(self.choice, 0.5)


def opinion_metrics(compared: Sequence[Compared], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How the judge compares before and after, as JSON values; every name says whose opinion it is.

    judge_win_rate: share of comparisons that `after` wins, ties as half; 0.5 = no difference. Its interval is Wilson's 95 %
    with one draw a prompt: several images of one caption are not independent, and no mean of shares varies more than that.
    judge_score_*: means of the judge's scores; judge_score_gain_interval: 95 % bootstrap over prompts, paired.
    judge_order_agreement: share of comparisons in which both orders, asked alone, say the same.
    Raises ValueError without any comparison.
    """
    if not compared:
        raise ValueError("there is nothing to compare")
    prompts = {one.prompt_id for one in compared}
    rate = sum(one.won for one in compared) / len(compared)
    return {
        "metric": OPINION, WIN_RATE: rate, "judge_win_rate_interval": wilson_interval(rate * len(prompts), len(prompts)),
        "judge_wins": sum(one.choice is Choice.SECOND for one in compared),
        "judge_losses": sum(one.choice is Choice.FIRST for one in compared),
        "judge_ties": sum(one.won == 0.5 for one in compared),
        "judge_order_agreement": sum(one.agree for one in compared) / len(compared),
        **_score_metrics(compared, resamples, seed), "n": len(compared), "prompts": len(prompts),
    }  # fmt: skip


def shares(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """(before, after) of either kind of metrics: shares right, or the share of comparisons won, in which the policy before
    stands at one half against itself."""
    return (0.5, metrics[WIN_RATE]) if WIN_RATE in metrics else (metrics["before"], metrics["after"])


def _score_metrics(compared: Sequence[Compared], resamples: int, seed: int) -> dict[str, Any]:
    scored = [
        (one.prompt_id, one.score_before, one.score_after) for one in compared
        if one.score_before is not None and one.score_after is not None
    ]  # fmt: skip
    if not scored:
        return {}
    before, after = (
        sum(values) / len(scored) for values in ([low for _, low, _ in scored], [high for *_, high in scored])
    )
    gains = _per_prompt([prompt for prompt, *_ in scored], [high - low for _, low, high in scored])
    return {
        "judge_score_before": before, "judge_score_after": after, "judge_score_gain": after - before,
        "judge_score_gain_interval": bootstrap_interval([gains], mean, resamples=resamples, seed=seed),
    }  # fmt: skip


def _per_prompt(prompts: Sequence[str], values: Sequence[float]) -> list[float]:
    """The mean of the values of each prompt; values[i] belongs to prompts[i]."""
    own: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        own.setdefault(prompt, []).append(value)
    return [sum(each) / len(each) for each in own.values()]


def policy_metrics(
    before: Sequence[Graded], after: Sequence[Graded], metric: str, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Shares right before and after, as JSON values.

    metric: what "right" means, in words. n: answers or images graded after; `prompts`: how many prompts they belong to.
    before_interval, after_interval: 95 % Wilson (as if answers were independent). gain_interval: 95 % bootstrap over
    prompts, paired, so that several images of one caption count as one draw.
    Raises ValueError when the two are not about the same prompts.
    """
    if not before or {g.prompt_id for g in before} != {g.prompt_id for g in after}:
        raise ValueError("before and after must be about the same prompts, at least one")
    shares = [share_right(side) for side in (before, after)]
    return {
        "before": shares[0], "after": shares[1], "n": len(after), "metric": metric,
        "prompts": len({g.prompt_id for g in after}),
        "before_interval": wilson_interval(sum(g.right for g in before), len(before)),
        "after_interval": wilson_interval(sum(g.right for g in after), len(after)),
        "gain": shares[1] - shares[0], "gain_interval": _gain_interval(before, after, resamples, seed),
        "facts": _by_fact(before, after),
    }  # fmt: skip


def share_right(graded: Sequence[Graded]) -> float:
    return sum(g.right for g in graded) / len(graded)


def _gain_interval(
    before: Sequence[Graded], after: Sequence[Graded], resamples: int, seed: int
) -> tuple[float, float] | None:
    prompts = sorted({g.prompt_id for g in after})
    if len(prompts) < 2:
        return None
    index = np.random.default_rng(seed).integers(0, len(prompts), (resamples, len(prompts)))
    gains = _share(after, prompts, index) - _share(before, prompts, index)
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def _share(graded: Sequence[Graded], prompts: Sequence[str], index: Any) -> Array:
    """Share right in each resample of prompts: index [resamples, prompts] -> [resamples]."""
    place = {prompt: i for i, prompt in enumerate(prompts)}
    right, count = np.zeros(len(prompts)), np.zeros(len(prompts))
    for one in graded:
        right[place[one.prompt_id]] += one.right
        count[place[one.prompt_id]] += 1
    result: Array = right[index].sum(axis=1) / count[index].sum(axis=1)
    return result


def _by_fact(before: Sequence[Graded], after: Sequence[Graded]) -> dict[str, dict[str, Any]]:
    names = sorted({name for g in after for name in g.facts} & {name for g in before for name in g.facts})
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        sides = [[g.facts[name] for g in side if name in g.facts] for side in (before, after)]
        table[name] = {"before": sum(sides[0]) / len(sides[0]), "after": sum(sides[1]) / len(sides[1]),
                       "n": len(sides[1])}  # fmt: skip
    return table
