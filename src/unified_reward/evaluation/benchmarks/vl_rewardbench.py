"""VL-RewardBench (arXiv 2411.17451): which of two answers about an image is better; 1,250 pairs in three groups.

Two definitions of the groups are published. They differ in the 448 items whose id starts with `hallucination`: the benchmark
has them in hallucination, the UnifiedReward scripts, by a branch they lack, in general. Every group is given in both.

Three readings of the answers are kept apart:
- ours (accuracy, groups, macro): a text that does not settle on one answer is unparsed, and wrong;
- as_published/unified-reward: right when the text holds the right sentence, even beside the wrong one; first vote only;
- as_published/official: a pattern after "Overall Judgment" or "Therefore"; items without a majority are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.metrics import Report, Share, first_unread, majority, ratio, share
from unified_reward.evaluation.benchmarks.sides import Side, read_answer
from unified_reward.evaluation.benchmarks.vl_rewardbench_files import JudgedPair, Vote, read_pairs

SIZE = 1250
GENERAL, HALLUCINATION, REASONING = GROUPS = ("general", "hallucination", "reasoning")
UNIFIED_REWARD = {"RLAIF": HALLUCINATION, "RLHF": HALLUCINATION, "mathverse": REASONING, "mmmu": REASONING}
OFFICIAL = UNIFIED_REWARD | {"hallucination": HALLUCINATION}
MAPS = {"official": OFFICIAL, "unified-reward": UNIFIED_REWARD}
VOTE_COUNTS = (1, 3, 5, 7, 9)  # as published

OFFICIAL_STATEMENT = re.compile(
    r"(?:Overall Judgment|Therefore)\s*.*\s*-*\s*Answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE
)
STATEMENT = re.compile(r"\bAnswer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE)
ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)


def group_of(item_id: str, definition: dict[str, str]) -> str:
    """Group by the id's text before its first _ or -; what the definition does not name is general."""
    return definition.get(re.split("[_-]", item_id, maxsplit=1)[0], GENERAL)


def shown_swapped(count: int, seed: int = 0) -> list[bool]:
    """Which items the UnifiedReward scripts show in reverse: one draw per item in the data's order, swapped from 1/2 on."""
    draw = random.Random(seed)
    return [draw.random() >= 0.5 for _ in range(count)]


def read_official(text: str) -> int | None:
    """Answer number by the benchmark's own pattern, without newlines and asterisks; None when it does not match."""
    found = OFFICIAL_STATEMENT.search(text.replace("\n", "").replace("*", ""))
    return int(found.group(1)) if found else None


def read_verdict(text: str) -> int | None:
    """1 or 2 where the text settles on it: in its <answer> tag, else by the official pattern, else in all its statements,
    else as answers of other benchmarks are read ("Response 1 is better", [[A]])."""
    tags = ANSWER_TAG.findall(text)
    stated = {int(number) for number in STATEMENT.findall((tags[-1] if tags else text).replace("*", ""))}
    final = None if tags else read_official(text)
    if final is not None:
        stated = {final}
    if not stated:  # not in the benchmark's words
        return {Side.FIRST: 1, Side.SECOND: 2}.get(read_answer(text) or Side.TIE)
    return stated.pop() if len(stated) == 1 and stated <= {1, 2} else None


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    """Overall accuracy by majority of all votes, groups and macro in both definitions, and both published protocols."""
    pairs = read_pairs(verdicts, data, shown_swapped)
    winners = [majority([_right(vote, read_verdict) for vote in pair.votes]) for pair in pairs]
    groups = {f"{name}/{group}": _share([winner for pair, winner in zip(pairs, winners, strict=True)
                                         if group_of(pair.id, chosen) == group])
              for name, chosen in MAPS.items() for group in GROUPS}  # fmt: skip
    metrics: dict[str, Any] = {
        "macro": {name: _mean([groups[f"{name}/{group}"].accuracy for group in GROUPS]) for name in MAPS},
        "as_published": {"official": _official(pairs, None), "unified-reward": _unified_reward(pairs)},
        "votes": {str(k): _official(pairs, k) for k in VOTE_COUNTS if all(len(pair.votes) >= k for pair in pairs)},
        "both_orders": _both_orders(pairs),
        "order_assumed": sum(vote.order_assumed for pair in pairs for vote in pair.votes),
        "missing": max(0, SIZE - len(pairs)),
        "unread": first_unread(
            (pair.id, vote.text) for pair in pairs for vote in pair.votes if read_verdict(vote.text) is None
        ),
    }
    return Report(benchmark, _share(winners), groups, metrics, _notes(len(pairs), metrics["order_assumed"]))


def _notes(count: int, assumed: int) -> list[str]:
    notes = (
        []
        if count == SIZE
        else [f"{count:,} items; the published rows are of {SIZE:,}, so the numbers do not compare."]
    )
    if assumed:
        notes.append(f"{assumed:,} verdicts give no order; that of the UnifiedReward scripts (seed 0) is taken.")
    return notes


def _share(winners: Sequence[bool | None]) -> Share:
    return share([winner is True for winner in winners], [winner is not None for winner in winners])


def _right(vote: Vote, read: Callable[[str], int | None]) -> bool | None:
    stated = read(vote.text)
    return None if stated is None else stated == vote.better


def _official(pairs: Sequence[JudgedPair], votes: int | None) -> dict[str, Any]:
    """Majority of the first `votes`; agree / (agree + reject). Any other number than the rejected one agrees, as published."""
    winners = []
    for pair in pairs:
        stated = [(read_official(vote.text), vote.better) for vote in pair.votes[:votes]]
        winners.append(majority([None if said is None else said != 3 - better for said, better in stated]))
    kept = [(pair.id, winner) for pair, winner in zip(pairs, winners, strict=True) if winner is not None]
    return _by_group(kept, OFFICIAL) | {"left_out": len(pairs) - len(kept)}


def _unified_reward(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    firsts = [(pair.id, pair.votes[0]) for pair in pairs]
    return _by_group([(id_, f"Answer {vote.better} is better" in vote.text) for id_, vote in firsts], UNIFIED_REWARD)


def _by_group(judged: Sequence[tuple[str, bool]], definition: dict[str, str]) -> dict[str, Any]:
    parts = {group: [right for id_, right in judged if group_of(id_, definition) == group] for group in GROUPS}
    table = {group: ratio(sum(part), len(part)) for group, part in parts.items()}
    overall = ratio(sum(right for _, right in judged), len(judged))
    return table | {"overall": overall, "macro": _mean([table[group] for group in GROUPS])}


def _both_orders(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """Of items asked in both orders: how often the first verdicts of the two orders name the same response."""
    same = []
    for pair in pairs:
        by_order = {vote.swapped: _right(vote, read_verdict) for vote in reversed(pair.votes)}
        if len(by_order) == 2:
            same.append(by_order[False] is not None and by_order[False] == by_order[True])
    return {"n": len(same), "consistent": ratio(sum(same), len(same))}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(values) if len(known) == len(values) else None
