"""The field's accuracies of a judge, as pure functions: shares with intervals, with and without ties, majority, tie calibration."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from unified_reward.evaluation.statistics import bootstrap_interval, mean

Vote = TypeVar("Vote", bound=Hashable)

UNREAD_SHOWN, UNREAD_CHARACTERS = 5, 200
SEED = 0  # of every bootstrap here: the same file gives the same interval


@dataclass(frozen=True)
class Share:
    """Items judged right. accuracy: of all n, unparsed ones are wrong; None without items. interval: 95 %, over items."""

    accuracy: float | None
    interval: tuple[float, float] | None
    n: int
    unparsed: int


@dataclass(frozen=True)
class Report:
    """One file of verdicts, scored. metrics: numbers, or tables of numbers, whose names the benchmark's module explains."""

    benchmark: str
    overall: Share
    groups: Mapping[str, Share]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        groups = {name: asdict(share) for name, share in self.groups.items()}
        return {"benchmark": self.benchmark, **asdict(self.overall), "groups": groups, "metrics": dict(self.metrics),
                "notes": list(self.notes)}  # fmt: skip


def share(right: Sequence[bool], parsed: Sequence[bool]) -> Share:
    """Accuracy over items. right, parsed: one each per item."""
    unparsed = sum(not one for one in parsed)
    if not right:
        return Share(None, None, 0, unparsed)
    return Share(sum(right) / len(right), bootstrap_interval([right], mean, seed=SEED), len(right), unparsed)


def first_unread(answers: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The first few (place, answer) without a verdict, to look at."""
    return [{"at": place, "answer": answer[:UNREAD_CHARACTERS]} for place, answer in islice(answers, UNREAD_SHOWN)]


def ratio(right: int, count: int) -> float | None:
    return right / count if count else None


def with_and_without_ties(
    gold: Sequence[Vote], predicted: Sequence[Vote | None], tie: Vote
) -> tuple[float | None, float | None]:
    """(tau, diff) as the UnifiedReward scripts count them: accuracy over all items, and over those people did not call a tie.

    tau is plain 3-way accuracy, neither Kendall's nor the tie-calibrated one. predicted: None is unparsed, so wrong.
    diff = (C_all - C_tie) / (n_all - n_tie). None without items.
    """
    pairs = list(zip(gold, predicted, strict=True))
    decided = [(want, got) for want, got in pairs if want != tie]
    tau, diff = (ratio(sum(want == got for want, got in part), len(part)) for part in (pairs, decided))
    return tau, diff


def majority(votes: Sequence[Vote | None]) -> Vote | None:
    """The vote of more than half of all votes, unparsed (None) ones counted among them; None where there is none such."""
    counts = {vote: votes.count(vote) for vote in votes if vote is not None}
    return next((vote for vote, count in counts.items() if 2 * count > len(votes)), None)


@dataclass(frozen=True)
class TieCalibrated:
    """accuracy: at the best threshold `epsilon`. without_ties: of the items people decided, ties of the scorer being wrong."""

    accuracy: float | None
    epsilon: float | None
    without_ties: float | None
    n: int
    unparsed: int


def tie_calibrated_accuracy(differences: ArrayLike, gold: ArrayLike) -> TieCalibrated:
    """Pairwise accuracy of a scalar scorer with tie calibration (Deutsch et al., arXiv 2305.14324, section 4).

    differences: float [n], score of the first minus score of the second; nan where a score is missing (never right).
    gold: [n] of +1 (first better), -1, 0 (tie). For a threshold e >= 0 the scorer says tie where |difference| <= e;
    accuracy(e) = (C + T_hm) / n with C concordant pairs and T_hm ties of both. The best e among 0 and the |differences| is
    taken, the smallest of equals.
    """
    d, g = np.asarray(differences, dtype=np.float64), np.sign(np.asarray(gold, dtype=np.float64))
    if d.shape != g.shape or d.ndim != 1:
        raise ValueError(f"differences {d.shape} and gold {g.shape} must be vectors of one length")
    count, unparsed = len(d), int(np.isnan(d).sum())
    if not count:
        return TieCalibrated(None, None, None, 0, 0)
    size, right, tie = np.abs(d), np.sign(d) == g, g == 0
    kept = ~np.isnan(d)
    thresholds = np.unique(np.concatenate([[0.0], size[kept]]))
    order = np.argsort(size[kept])
    within = np.searchsorted(size[kept][order], thresholds, side="right")  # pairs called ties at each threshold
    ties_right = np.concatenate([[0], np.cumsum(tie[kept][order])])[within]
    concordant = np.concatenate([[0], np.cumsum((right & ~tie)[kept][order])])
    scores = ties_right + concordant[-1] - concordant[within]
    best = int(np.argmax(scores))
    without = ratio(int((right & ~tie & kept).sum()), int((~tie).sum()))
    return TieCalibrated(float(scores[best]) / count, float(thresholds[best]), without, count, unparsed)
