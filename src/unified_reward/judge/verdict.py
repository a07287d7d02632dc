"""Log-probabilities of the verdict strings -> a verdict. Pure arithmetic on plain numbers.

Pair, one order:   P(1), P(2), P(tie) = softmax over the strings; the tie counts half for each side.
Pair, both orders: every probability is the mean of the two orders, so p_first = (p12 + 1 - p21) / 2 and a judge that
                   only ever says "1" is at 1/2. The likeliest of first, second and tie is the choice.
Point:             the expected value over the score strings (arXiv 2503.05236 takes the one decoded; the mean of the
                   distribution is the better estimate, Findings of EMNLP 2025, 23173).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unified_reward.records import Choice, Task, Verdict

ORDER_12, ORDER_21 = "order12", "order21"  # shown as asked; shown swapped


@dataclass(frozen=True)
class PairVerdict:
    """choice, p_first: both orders averaged. p_first_shown_first, p_first_shown_second: P(first is better) in each order.

    finished: the judge ended its rationale itself in both orders (else it was cut and told to go on).
    logprobs: nats, keyed "order12:1", ...; empty when the two items are equal (nothing was asked) or read from text.
    """

    choice: Choice
    p_first: float | None = None
    p_first_shown_first: float | None = None
    p_first_shown_second: float | None = None
    logprobs: dict[str, float] = field(default_factory=dict)
    rationale: str = ""
    rationale_swapped: str = ""
    finished: bool = True

    @property
    def contradictory(self) -> bool:
        """Each order, asked alone, names another item: the judge goes by the place, and the mean hides it."""
        orders = self.p_first_shown_first, self.p_first_shown_second
        return None not in orders and (orders[0] - 0.5) * (orders[1] - 0.5) < 0  # type: ignore[operator]

    def record(self, *, id: str, task: Task, prompt_id: str, first_id: str, second_id: str, judge: str = "",
               template: str = "") -> Verdict:  # fmt: skip
        return Verdict(
            id=id, task=task, prompt_id=prompt_id, first_id=first_id, second_id=second_id, judge=judge,
            template=template, choice=self.choice, p_first=self.p_first, p_first_shown_first=self.p_first_shown_first,
            p_first_shown_second=self.p_first_shown_second, logprobs=self.logprobs, rationale=self.rationale,
            rationale_swapped=self.rationale_swapped,
        )  # fmt: skip


@dataclass(frozen=True)
class PointVerdict:
    """score: expected value over the score strings, None when unread (text only). logprobs: nats, keyed by string.

    aspects: label -> score, where the template scores several; their weighted mean is the score. logprobs then are keyed
    "label string".
    """

    score: float | None
    logprobs: dict[str, float] = field(default_factory=dict)
    rationale: str = ""
    finished: bool = True
    aspects: dict[str, float] = field(default_factory=dict)

    def record(self, *, id: str, task: Task, prompt_id: str, first_id: str, judge: str = "",
               template: str = "") -> Verdict:  # fmt: skip
        return Verdict(
            id=id, task=task, prompt_id=prompt_id, first_id=first_id, judge=judge, template=template, score=self.score,
            logprobs=self.logprobs, rationale=self.rationale,
        )  # fmt: skip


def normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Probabilities among the given strings alone."""
    top = max(logprobs.values())
    if top == -math.inf:
        return dict.fromkeys(logprobs, 1 / len(logprobs))
    weights = {key: math.exp(value - top) for key, value in logprobs.items()}
    total = math.fsum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def pair_verdict(order12: Mapping[str, float], order21: Mapping[str, float]) -> PairVerdict:
    """From log-probs of the strings "1", "2" and perhaps "tie" in both orders ("1" is what is shown first)."""
    shown, swapped = normalised(order12), normalised(order21)
    first = (shown["1"] + swapped["2"]) / 2
    second = (shown["2"] + swapped["1"]) / 2
    tie = (shown.get("tie", 0.0) + swapped.get("tie", 0.0)) / 2
    shown_first, shown_second = _p_first(shown), 1 - _p_first(swapped)
    keyed = {f"{ORDER_12}:{key}": value for key, value in order12.items()}
    keyed |= {f"{ORDER_21}:{key}": value for key, value in order21.items()}
    return PairVerdict(
        choice=_likeliest(first, second, tie), p_first=(shown_first + shown_second) / 2,
        p_first_shown_first=shown_first, p_first_shown_second=shown_second, logprobs=keyed,
    )  # fmt: skip


def equal_items() -> PairVerdict:
    """Two equal items: both orders are one and the same query, so whatever the judge says averages to 1/2."""
    return PairVerdict(choice=Choice.TIE, p_first=0.5)


def majority(choices: Iterable[Choice]) -> Choice:
    """Of several samples: the commonest verdict among those that could be read; equally common ones are a tie."""
    counts = Counter(choice for choice in choices if choice is not Choice.UNPARSED)
    if not counts:
        return Choice.UNPARSED
    most = max(counts.values())
    leading = [choice for choice, count in counts.items() if count == most]
    return leading[0] if len(leading) == 1 else Choice.TIE


def pair_from_votes(shown: Sequence[Choice], swapped: Sequence[Choice]) -> PairVerdict:
    """From one or more answers in each order: the majority of each order counts as its verdict, its share as the probability.

    Orders that contradict each other make the pair a tie; one unread, and so is the pair.
    swapped: empty where one order was asked alone; its verdict is then the pair's.
    """
    first, p_first = majority(shown), _share_first(shown)
    if not swapped:
        return PairVerdict(first, None if first is Choice.UNPARSED else p_first, p_first)
    turned = [choice.swapped() for choice in swapped]
    second, p_second = majority(turned), _share_first(turned)
    if p_first is None or p_second is None:
        return PairVerdict(Choice.UNPARSED, None, p_first, p_second)
    return PairVerdict(first if first is second else Choice.TIE, (p_first + p_second) / 2, p_first, p_second)


def expected_score(logprobs: Mapping[str, float], values: Mapping[str, float]) -> float:
    """Mean of the score distribution, between the smallest and the largest value."""
    probabilities = normalised(logprobs)
    return math.fsum(probability * values[key] for key, probability in probabilities.items())


_CERTAIN = {Choice.FIRST: 1.0, Choice.TIE: 0.5, Choice.SECOND: 0.0}


def _share_first(votes: Sequence[Choice]) -> float | None:
    """Mean over the votes that could be read."""
    read = [_CERTAIN[vote] for vote in votes if vote is not Choice.UNPARSED]
    return math.fsum(read) / len(read) if read else None


def _p_first(probabilities: Mapping[str, float]) -> float:
    return probabilities["1"] + probabilities.get("tie", 0.0) / 2


def _likeliest(first: float, second: float, tie: float) -> Choice:
    if tie >= max(first, second) or first == second:
        return Choice.TIE
    return Choice.FIRST if first > second else Choice.SECOND
