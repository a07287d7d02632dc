"""Verdicts of many prompts -> one PreferencePair row per prompt, kept or dropped with the reason.

Everything here is a pure function of verdicts, so another way, margin or limit needs no new judging.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from unified_reward.preference.rank import Judged, RankedPair
from unified_reward.preference.sift import Dropped, Rules, Sifted, sift
from unified_reward.records import Candidate, Mode, PreferencePair, Prompt, Verdict


@dataclass(frozen=True)
class SelectionSummary:
    """Counts of a selection. mean_gap: mean score of chosen minus rejected, over kept pairs with scores."""

    prompts: int
    kept: int
    dropped: dict[str, int]
    mean_gap: float | None


def select(
    prompts: Sequence[Prompt],
    candidates: Iterable[Candidate],
    verdicts: Iterable[Verdict],
    rules: Rules,
    *,
    seed: int = 0,
    limit: int = 0,
) -> list[PreferencePair]:
    """One row per prompt, in the order of `prompts`.

    limit: keep this many pairs, 0 = all. Which ones depends on seed and prompt id alone, so that ways compared at equal
    numbers share as many prompts as they can. Raises ValueError when a verdict names a candidate that is not there.
    """
    by_prompt = _candidates_by_prompt(candidates)
    judged = _judged_by_prompt(by_prompt, verdicts)
    rows = []
    for prompt in prompts:
        offered = by_prompt.get(prompt.id, [])
        outcome = sift(judged[prompt.id], rules, _rng(seed, prompt.id)) if offered else Dropped.NO_CANDIDATES
        rows.append(_row(prompt, offered, judged, outcome))
    return limited(rows, limit, seed=seed)


def limited(rows: Sequence[PreferencePair], limit: int, *, seed: int = 0) -> list[PreferencePair]:
    """`rows` with all but `limit` of the kept ones dropped (0 = no limit), drawn evenly by seed and prompt id."""
    kept = sorted((row.prompt_id for row in rows if not row.dropped), key=lambda key: _hash(seed, key))
    if not limit or len(kept) <= limit:
        return list(rows)
    beyond = set(kept[limit:])
    return [replace(row, dropped=Dropped.LIMIT.value) if row.prompt_id in beyond else row for row in rows]


def summarise(rows: Sequence[PreferencePair]) -> SelectionSummary:
    kept = [row for row in rows if not row.dropped]
    gaps = [row.chosen_score - row.rejected_score for row in kept
            if row.chosen_score is not None and row.rejected_score is not None]  # fmt: skip
    dropped = Counter(row.dropped for row in rows if row.dropped)
    mean_gap = sum(gaps) / len(gaps) if gaps else None
    return SelectionSummary(len(rows), len(kept), dict(sorted(dropped.items())), mean_gap)


def content(candidate: Candidate) -> str:
    """What a candidate is: its text, or the digest of its media."""
    return candidate.media or candidate.text


def _candidates_by_prompt(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate.prompt_id, []).append(candidate)
    return {key: sorted(group, key=lambda one: one.index) for key, group in found.items()}


def _judged_by_prompt(by_prompt: Mapping[str, list[Candidate]], verdicts: Iterable[Verdict]) -> dict[str, Judged]:
    place = {one.id: i for group in by_prompt.values() for i, one in enumerate(group)}
    pairs: dict[str, list[RankedPair]] = {key: [] for key in by_prompt}
    scores: dict[str, list[float | None]] = {key: [None] * len(group) for key, group in by_prompt.items()}
    for verdict in verdicts:
        if verdict.prompt_id not in by_prompt or verdict.first_id not in place:
            raise ValueError(f"verdict {verdict.id} is about a candidate that is not among the candidates")
        if verdict.task.mode is Mode.PAIR:
            pair = RankedPair.of_verdict(place[verdict.first_id], place[verdict.second_id], verdict)
            pairs[verdict.prompt_id].append(pair)
        else:
            scores[verdict.prompt_id][place[verdict.first_id]] = verdict.score
    return {
        key: Judged([content(one) for one in group], sorted(pairs[key], key=lambda pair: pair.first), scores[key])
        for key, group in by_prompt.items()
    }


def _row(
    prompt: Prompt, offered: Sequence[Candidate], judged: Mapping[str, Judged], outcome: Sifted | Dropped
) -> PreferencePair:
    if isinstance(outcome, Dropped):
        return PreferencePair(prompt_id=prompt.id, split=prompt.split, dropped=outcome.value)
    chosen, rejected = offered[outcome.chosen], offered[outcome.rejected]
    scores = judged[prompt.id].scores
    return PreferencePair(
        prompt_id=prompt.id, split=prompt.split,
        chosen_id=chosen.id, rejected_id=rejected.id, chosen=content(chosen), rejected=content(rejected),
        chosen_score=scores[outcome.chosen], rejected_score=scores[outcome.rejected],
    )  # fmt: skip


def _hash(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def _rng(seed: int, key: str) -> random.Random:
    return random.Random(int.from_bytes(_hash(seed, key)[:8], "big"))
