"""A policy before and after alignment, against the known truth of held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unified_reward.evaluation.statistics import Array, wilson_interval


@dataclass(frozen=True)
class Graded:
    """One answer or image against the truth. right: every asked fact is right. facts: fact -> right?"""

    prompt_id: str
    right: bool
    facts: dict[str, bool] = field(default_factory=dict)


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
