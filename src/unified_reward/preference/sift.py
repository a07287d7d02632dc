"""Point sifting: winners C and losers R -> one chosen and one rejected candidate (paper, section III.B, step 2).

    chosen = argmax over C of score        rejected = argmin over R of score
    keep the prompt iff score(chosen) > score(rejected)

The two may come from different pairs. Equal scores: the first candidate, as in the paper's code. Scores are numbers
throughout (the released scripts compared them as text, where "10" < "9", and cut 3.7 to 3).
The other ways are ablations: one step without the other, or chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unified_reward.config.stages import PairWay
from unified_reward.preference.rank import Judged, split


class Dropped(StrEnum):
    """Why a prompt gives no pair."""

    NO_DECIDED_PAIR = "no_decided_pair"  # every pair was a tie, unparsed, or inconsistent
    NO_SCORE = "no_score"  # no chosen or no rejected candidate has a score
    SCORE_GAP = "score_gap"  # chosen does not score higher than rejected by more than the margin
    NO_CANDIDATES = "no_candidates"
    ALL_EQUAL = "all_equal"  # all candidates are the same
    LIMIT = "limit"  # fit, but more pairs than asked for


@dataclass(frozen=True)
class Sifted:
    """Indices of the chosen and the rejected candidate."""

    chosen: int
    rejected: int


@dataclass(frozen=True)
class Rules:
    """way: which steps to use. min_margin: the score gap must exceed it (0: the paper's rule).
    max_inconsistency: ignore pair verdicts whose two orders differ by more (1: use all)."""

    way: PairWay = PairWay.PAIR_POINT
    min_margin: float = 0.0
    max_inconsistency: float = 1.0


def sift(judged: Judged, rules: Rules, rng: random.Random) -> Sifted | Dropped:
    """The pair of one prompt, or why there is none. Only `random` draws from `rng`."""
    if len(set(judged.contents)) < 2:
        return Dropped.ALL_EQUAL
    return _WAYS[rules.way](judged, rules, rng)


def pair_point(judged: Judged, rules: Rules, rng: random.Random) -> Sifted | Dropped:  # noqa: ARG001
    """The paper's two steps."""
    winners, losers = split(judged.pairs, max_inconsistency=rules.max_inconsistency)
    if not winners:
        return Dropped.NO_DECIDED_PAIR
    return _extremes(judged.scores, winners, losers, rules.min_margin)


def point_only(judged: Judged, rules: Rules, rng: random.Random) -> Sifted | Dropped:  # noqa: ARG001
    """Best and worst score over all candidates."""
    everyone = range(len(judged.contents))
    return _extremes(judged.scores, everyone, everyone, rules.min_margin)


def pair_only(judged: Judged, rules: Rules, rng: random.Random) -> Sifted | Dropped:  # noqa: ARG001
    """The winner and the loser of the pair the judge is surest of (the paper does not say which pair it took)."""
    decided = [p for p in judged.pairs if p.winner is not None and p.inconsistency <= rules.max_inconsistency]
    if not decided:
        return Dropped.NO_DECIDED_PAIR
    surest = max(decided, key=lambda pair: pair.certainty)
    (chosen,), (rejected,) = split([surest])
    return Sifted(chosen, rejected)


def by_chance(judged: Judged, rules: Rules, rng: random.Random) -> Sifted | Dropped:  # noqa: ARG001
    """Two different candidates in random order."""
    chosen = rng.randrange(len(judged.contents))
    others = [i for i, content in enumerate(judged.contents) if content != judged.contents[chosen]]
    return Sifted(chosen, rng.choice(others))


def _extremes(
    scores: Sequence[float | None], winners: Sequence[int], losers: Sequence[int], margin: float
) -> Sifted | Dropped:
    best = [(score, -i) for i in winners if (score := scores[i]) is not None]
    worst = [(score, i) for i in losers if (score := scores[i]) is not None]
    if not best or not worst:
        return Dropped.NO_SCORE
    high, low = max(best), min(worst)
    if not high[0] - low[0] > margin:
        return Dropped.SCORE_GAP
    return Sifted(-high[1], low[1])


_WAYS: dict[PairWay, Callable[[Judged, Rules, random.Random], Sifted | Dropped]] = {
    PairWay.PAIR_POINT: pair_point,
    PairWay.PAIR_ONLY: pair_only,
    PairWay.POINT_ONLY: point_only,
    PairWay.RANDOM: by_chance,
}
