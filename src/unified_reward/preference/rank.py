"""Pair ranking: N candidates of a prompt -> N/2 disjoint pairs, each put to the judge (paper, section III.B, step 1).

Departures from the released scripts, each for a reason:
- Each pair is judged in both orders and averaged; there, one order, so the judge's position bias goes into the data.
- A tie or an unreadable verdict is no win; there, it is a win of the first item.
- Two equal candidates are a tie without asking: p = (p12 + 1 - p21)/2 is exactly 1/2 when both orders are one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unified_reward.errors import UserError
from unified_reward.records import Choice, Verdict


@dataclass(frozen=True)
class Judged:
    """What is known of one prompt's candidates. Indices are positions in the prompt's list of candidates.

    contents: text or media digest of each candidate. pairs: verdicts by (first, second); scores: None = no score.
    """

    contents: Sequence[str]
    pairs: Sequence[RankedPair] = ()
    scores: Sequence[float | None] = ()


@dataclass(frozen=True)
class RankedPair:
    """A pair and its verdict. p_first: P(first is better), both orders averaged; inconsistency: |their difference|."""

    first: int
    second: int
    choice: Choice
    p_first: float | None = None
    inconsistency: float = 0.0

    @property
    def winner(self) -> int | None:
        return {Choice.FIRST: self.first, Choice.SECOND: self.second}.get(self.choice)

    @property
    def loser(self) -> int | None:
        return {Choice.FIRST: self.second, Choice.SECOND: self.first}.get(self.choice)

    @property
    def certainty(self) -> float:
        """Distance of the verdict from an even one, 0 to 1/2. A verdict without a probability is a plain word: 1/2."""
        return 0.5 if self.p_first is None else abs(self.p_first - 0.5)

    @classmethod
    def of_verdict(cls, first: int, second: int, verdict: Verdict) -> RankedPair:
        single = verdict.p_first_shown_first, verdict.p_first_shown_second
        inconsistency = 0.0 if single[0] is None or single[1] is None else abs(single[0] - single[1])
        choice = verdict.choice or Choice.UNPARSED
        return cls(first, second, choice, verdict.p_first, inconsistency)


def disjoint_pairs(count: int) -> list[tuple[int, int]]:
    """(0, 1), (2, 3), ... over `count` candidates. Raises UserError when they do not come out even."""
    if count < 2 or count % 2:
        near = f"{count - 1} or {count + 1}" if count > 2 else "2"
        raise UserError(
            field="candidates", value=count, why="candidates are ranked in disjoint pairs", fix=f"Use {near}.",
        )  # fmt: skip
    return [(first, first + 1) for first in range(0, count, 2)]


def split(pairs: Sequence[RankedPair], *, max_inconsistency: float = 1.0) -> tuple[list[int], list[int]]:
    """Winners C and losers R of the decided pairs; pairs whose two orders differ by more are left out."""
    decided = [pair for pair in pairs if pair.inconsistency <= max_inconsistency]
    winners = [pair.winner for pair in decided if pair.winner is not None]
    losers = [pair.loser for pair in decided if pair.loser is not None]
    return winners, losers
