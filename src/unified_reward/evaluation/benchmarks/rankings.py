"""Benchmarks of several images a prompt, ranked by people: ImageReward test, HPD v2 test.

imagereward  over all pairs of images of one prompt with different human ranks: does the reward order them as people do?
             An equal or missing reward does not (THUDM/ImageReward test.py).
hpdv2        mean over prompts of 1 - inversions / pairs (tgxs002/HPSv2 inversion_score). Pairs that people ranked equal
             are no inversion. The published code ranks by argsort, so equal scores fall as they stand; here they are not
             right (`as_published` has the other).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from unified_reward.evaluation.benchmarks.fields import first_of, item_id, number_of, value_of
from unified_reward.evaluation.benchmarks.files import Row, read_rows
from unified_reward.evaluation.benchmarks.metrics import SEED, Report, Share, ratio
from unified_reward.evaluation.statistics import Array, bootstrap_interval, mean

SIZES = {"imagereward": 466, "hpdv2": 400}
REWARDS = ("rewards", "scores", "reward", "score", "predicted_scores", "logits")
RANKS = ("predicted_ranking", "predicted_rank", "pred_ranking", "hps_ranking")  # of the judge; 0 or 1 is the best
HUMAN = ("human_ranking", "rank", "labels", "gold")  # of people; the smallest is the best
IN_DATA = (*HUMAN, "ranking")  # in a result file of ImageReward, which names no images, `ranking` is the scorer's own
IMAGES = ("generations", "image_path", "images", "file_path")
GROUPS = ("style", "category", "source")
PREDICTED = "predicted_ranking"


@dataclass(frozen=True)
class Ranked:
    """One prompt. human: ranks, smaller is better. rewards: greater is better, nan where missing."""

    human: list[float]
    rewards: list[float]
    groups: dict[str, str] = field(default_factory=dict)

    def pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self.human)), 2))

    def decided(self) -> list[tuple[int, int]]:
        """Pairs of different human ranks, the better one first."""
        return [(a, b) if self.human[a] < self.human[b] else (b, a) for a, b in self.pairs()
                if self.human[a] != self.human[b]]  # fmt: skip

    def right(self) -> list[bool]:
        return [self.rewards[better] > self.rewards[worse] for better, worse in self.decided()]

    def missing(self) -> int:
        return sum(math.isnan(self.rewards[a] + self.rewards[b]) for a, b in self.decided())

    def inversion_score(self) -> float:
        """1 - (pairs in the wrong order, or undecided by the scorer) / all pairs."""
        return 1 - (len(self.decided()) - sum(self.right())) / len(self.pairs())

    def inversion_score_as_published(self) -> float:
        """The rewards ranked by a stable argsort, so that equal ones stand in their order."""
        order = np.argsort([-math.inf if math.isnan(one) else -one for one in self.rewards], kind="stable").tolist()
        place = {image: rank for rank, image in enumerate(order)}
        inversions = sum(place[better] > place[worse] for better, worse in self.decided())
        return 1 - inversions / len(self.pairs())


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    prompts, known = read_ranked(verdicts, data)
    right, count = [sum(one.right()) for one in prompts], [len(one.decided()) for one in prompts]
    pairwise = ratio(sum(right), sum(count))
    inversion = [one.inversion_score() for one in prompts]
    groups = _groups(benchmark, prompts)
    per_prompt = [r / c for r, c in zip(right, count, strict=True) if c]
    metrics: dict[str, Any] = {
        "pairwise": pairwise, "pairs": sum(count), "prompts": len(prompts),
        "per_prompt": sum(per_prompt) / len(per_prompt) if per_prompt else None,
        "macro": _mean([one.accuracy for one in groups.values()]),
        "inversion_score": sum(inversion) / len(inversion),
        "as_published": {"hpsv2": {"inversion_score": _mean([one.inversion_score_as_published() for one in prompts])}},
        "missing": max(0, (known or SIZES[benchmark]) - len(prompts)),
    }  # fmt: skip
    return Report(benchmark, _share(benchmark, prompts), groups, metrics, _notes(benchmark, len(prompts)))


def _share(benchmark: str, prompts: Sequence[Ranked]) -> Share:
    """imagereward: of pairs, n pairs. hpdv2: mean over prompts, n prompts. Intervals: bootstrap over prompts in both."""
    missing = sum(one.missing() for one in prompts)
    if benchmark == "hpdv2":
        scores = [one.inversion_score() for one in prompts]
        interval = bootstrap_interval([scores], mean, seed=SEED)
        unparsed = sum(one.missing() > 0 for one in prompts)
        return Share(sum(scores) / len(scores) if scores else None, interval, len(scores), unparsed)
    right, count = [sum(one.right()) for one in prompts], [len(one.decided()) for one in prompts]
    return Share(
        ratio(sum(right), sum(count)), bootstrap_interval([right, count], _ratio, seed=SEED), sum(count), missing
    )


def _ratio(right: Array, count: Array) -> Array:
    with np.errstate(invalid="ignore"):
        result: Array = right.sum(axis=-1) / count.sum(axis=-1)
    return result


def _groups(benchmark: str, prompts: Sequence[Ranked]) -> dict[str, Share]:
    members: dict[str, list[Ranked]] = {}
    for one in prompts:
        members.setdefault(f"images/{len(one.human)}", []).append(one)
        for name, value in one.groups.items():
            members.setdefault(f"{name}/{value}", []).append(one)
    return {name: _share(benchmark, part) for name, part in sorted(members.items())}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _notes(benchmark: str, count: int) -> list[str]:
    size = SIZES[benchmark]
    if count == size:
        return []
    return [f"{count:,} prompts; the published rows are of {size:,}, so the numbers do not compare."]


def read_ranked(verdicts: Path, data: Path | None) -> tuple[list[Ranked], int | None]:
    """Each prompt once, and how many the data have (None without data)."""
    rows = read_rows(verdicts, "--verdicts", lists_as=PREDICTED)
    if data is None:
        return [_ranked(verdicts, row, _human(verdicts, row, IN_DATA if first_of(row, IMAGES) else HUMAN))
                for row in rows], None  # fmt: skip
    known = read_rows(data, "--data")
    by_id = {item_id(row): row for row in known}
    if len(by_id) == len(known) and all(item_id(row) in by_id for row in rows) and None not in by_id:
        last = {item_id(row): row for row in rows}  # a file written twice counts once
        joined = [(row, by_id[name]) for name, row in last.items()]
    elif len(rows) == len(known):
        joined = list(zip(rows, known, strict=True))
    else:
        stray = next((row for row in rows if item_id(row) not in by_id), rows[0])
        raise stray.error(verdicts, f"its id is in no row of {data}",
                          f"Give each row the id of its prompt, or one row for each of its {len(known):,}.")  # fmt: skip
    ranked = [_ranked(verdicts, row, _human(data, of_data, IN_DATA), of_data) for row, of_data in joined]
    return ranked, len(known)


def _ranked(path: Path, row: Row, human: list[float], of_data: Row | None = None) -> Ranked:
    rewards = _rewards(path, row)
    if len(rewards) != len(human) or len(human) < 2:
        raise row.error(path, f"it scores {len(rewards)} images, and people ranked {len(human)}",
                        "Write one score for each image, in the order of the data.")  # fmt: skip
    values = (of_data or row).values
    groups = {name: str(values[name]) for name in GROUPS if values.get(name) not in (None, "")}
    return Ranked(human, rewards, groups)


def _rewards(path: Path, row: Row) -> list[float]:
    name = first_of(row, (*REWARDS, *RANKS))
    values = None if name is None else row.values[name]
    if name is None or not isinstance(values, list):
        raise row.error(path, "it has no list of scores", 'Write one score for each image as "rewards".')
    numbers = [number_of(path, row, name, one) for one in values]
    return [-one for one in numbers] if name in RANKS else numbers


def _human(path: Path, row: Row, names: Sequence[str]) -> list[float]:
    value = value_of(row, names)
    if isinstance(value, list):
        return [number_of(path, row, "the human ranking", one) for one in value]
    preference = row.values.get("human_preference")  # HPD train.json: 1 for the preferred of the images
    if isinstance(preference, list):
        return [-number_of(path, row, "human_preference", one) for one in preference]
    raise row.error(path, "it has no human ranking", "Name the benchmark's own data with --data.")
