"""Benchmarks of pairs with one label each: VideoGen-RewardBench, REACT-Video, ShareGPTVideo-1K, HPD v3.

Answers in words: an item is right when more than half of its votes say its label; "tie" is an answer like the others.
    with_ties     over all items (UnifiedReward's "tau")
    without_ties  over the items that people did not call a tie ("diff")
Scores of two items: the scorer says tie where the scores differ by at most e; with_ties is taken at the best e (Deutsch et
al., arXiv 2305.14324, as VideoAlign reports), without_ties needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unified_reward.evaluation.benchmarks.metrics import (
    Report,
    Share,
    first_unread,
    majority,
    ratio,
    share,
    tie_calibrated_accuracy,
    with_and_without_ties,
)
from unified_reward.evaluation.benchmarks.pairs_files import OVERALL, JudgedPair, PairLayout, read_pairs, side_of
from unified_reward.evaluation.benchmarks.sides import Side

LAYOUTS: Mapping[str, PairLayout] = {
    "videogen-rewardbench": PairLayout(26_500, rounded=True, aspects=("VQ", "MQ", "TA")),
    "react-video": PairLayout(None, groups=("category", "distortion", "subset", "type")),
    "sharegptvideo-1k": PairLayout(1000),
    "hpdv3": PairLayout(None, groups=("source", "category", "style"), first_is_better=True),
}
SIGNS = {Side.FIRST: 1, Side.SECOND: -1, Side.TIE: 0}


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    """Accuracy with and without ties, per label and group, from answers, scores or both (then answers are the accuracy)."""
    layout = LAYOUTS[benchmark]
    read = read_pairs(layout, verdicts, data)
    pairs, known = read.pairs, read.known
    in_words = any(pair.votes for pair in pairs)
    verdict_of = _winners(pairs) if in_words else _by_score(pairs, OVERALL)
    right = [side is pair.gold for side, pair in zip(verdict_of, pairs, strict=True)]
    parsed = [side is not None for side in verdict_of]
    groups = {name: _part(right, parsed, members) for name, members in _groups(pairs).items()}
    groups |= {f"aspect/{name}": _aspect(pairs, name) for name in layout.aspects if _has(pairs, name)}
    with_ties, without_ties = with_and_without_ties([pair.gold for pair in pairs], verdict_of, Side.TIE)
    metrics: dict[str, Any] = {
        "with_ties": with_ties, "without_ties": without_ties,
        "macro": _macro([one.accuracy for name, one in groups.items() if name.startswith("label/")]),
    }  # fmt: skip
    if in_words:
        metrics["as_published"] = {"unified-reward": _unified_reward(pairs)}
        metrics |= {"first_place_rate": _first_place_rate(pairs), "both_orders": _both_orders(pairs)}
    scalar = {name: _scalar(pairs, name) for name in (OVERALL, *layout.aspects) if _has(pairs, name)}
    if scalar:
        metrics["scores"] = scalar
    expected = known if known is not None or layout.rounded else layout.size
    metrics |= {"missing": max(0, expected - len(pairs)) if expected else None, "unlabelled": read.unlabelled}
    unread = ((pair.place, vote.text) for pair in pairs for vote in pair.votes if vote.side is None)
    metrics["unread"] = first_unread(unread)
    return Report(benchmark, share(right, parsed), groups, metrics, _notes(layout, pairs, metrics, in_words=in_words))


def _winners(pairs: Sequence[JudgedPair]) -> list[Side | None]:
    return [majority([vote.side for vote in pair.votes]) for pair in pairs]


def _differences(pairs: Sequence[JudgedPair], aspect: str) -> tuple[list[float], list[Side]]:
    """Of the pairs that have a label of the aspect."""
    kept = [(pair, pair.gold if aspect == OVERALL else pair.aspects.get(aspect)) for pair in pairs]
    labelled = [(pair.difference.get(aspect, float("nan")), gold) for pair, gold in kept if gold is not None]
    return [difference for difference, _ in labelled], [gold for _, gold in labelled]


def _has(pairs: Sequence[JudgedPair], aspect: str) -> bool:
    return any(aspect in pair.difference for pair in pairs) and bool(_differences(pairs, aspect)[1])


def _by_score(pairs: Sequence[JudgedPair], aspect: str) -> list[Side | None]:
    differences, gold = _differences(pairs, aspect)
    best = tie_calibrated_accuracy(differences, [SIGNS[side] for side in gold])
    return [side_of(one, best.epsilon or 0.0) for one in differences]


def _aspect(pairs: Sequence[JudgedPair], aspect: str) -> Share:
    said, gold = _by_score(pairs, aspect), _differences(pairs, aspect)[1]
    return share([a is b for a, b in zip(said, gold, strict=True)], [side is not None for side in said])


def _scalar(pairs: Sequence[JudgedPair], aspect: str) -> dict[str, Any]:
    differences, gold = _differences(pairs, aspect)
    found = asdict(tie_calibrated_accuracy(differences, [SIGNS[side] for side in gold]))
    return {"with_ties": found.pop("accuracy"), **found}


def _groups(pairs: Sequence[JudgedPair]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {
        f"label/{side}": [i for i, pair in enumerate(pairs) if pair.gold is side] for side in Side
    }
    for number, pair in enumerate(pairs):
        for name, value in pair.groups.items():
            members.setdefault(f"{name}/{value}", []).append(number)
    return {name: found for name, found in members.items() if found}


def _part(right: Sequence[bool], parsed: Sequence[bool], members: Sequence[int]) -> Share:
    return share([right[i] for i in members], [parsed[i] for i in members])


def _macro(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _unified_reward(pairs: Sequence[JudgedPair]) -> dict[str, float | None]:
    """First vote; "1 is better" before "2 is better" wherever it stands, and a tie when neither does."""
    said = [_first_found(pair) for pair in pairs]
    with_ties, without_ties = with_and_without_ties([pair.gold for pair in pairs], said, Side.TIE)
    return {"with_ties": with_ties, "without_ties": without_ties}


def _first_found(pair: JudgedPair) -> Side | None:
    if not pair.votes:
        return None
    vote = pair.votes[0]
    side = Side.FIRST if "1 is better" in vote.text else Side.SECOND if "2 is better" in vote.text else Side.TIE
    return side.swapped() if vote.swapped else side


def _first_place_rate(pairs: Sequence[JudgedPair]) -> float | None:
    """Of the votes that are no tie: how many name what was shown first. 1/2 without position bias, if labels are even."""
    places = [vote.side.swapped() if vote.swapped else vote.side for pair in pairs for vote in pair.votes if vote.side]
    decided = [place for place in places if place is not Side.TIE]
    return ratio(sum(place is Side.FIRST for place in decided), len(decided))


def _both_orders(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """Of pairs asked in both orders: how often the first verdicts of the two are one."""
    same = []
    for pair in pairs:
        by_order = {vote.swapped: vote.side for vote in reversed(pair.votes)}
        if len(by_order) == 2:
            same.append(by_order[False] is not None and by_order[False] is by_order[True])
    return {"n": len(same), "consistent": ratio(sum(same), len(same))}


def _notes(layout: PairLayout, pairs: Sequence[JudgedPair], metrics: Mapping[str, Any], *, in_words: bool) -> list[str]:
    notes = []
    if layout.size is not None and abs(len(pairs) - layout.size) > 50 * layout.rounded:
        about = "about " if layout.rounded else ""
        notes.append(f"{len(pairs):,} items; the published rows are of {about}{layout.size:,}, so they do not compare.")
    elif metrics["missing"]:
        notes.append(f"{metrics['missing']:,} items of the data have no verdict and are not counted.")
    if metrics["unlabelled"]:
        notes.append(f"{metrics['unlabelled']:,} rows have an empty label and are not counted.")
    one_sided = len({pair.gold for pair in pairs}) == 1 and len(pairs) > 1
    if in_words and one_sided and not any(pair.order_given for pair in pairs):
        notes.append("Every label is the same side and no row gives the order shown: a judge that always names one place "
                     'would be right. Shuffle, and write "swapped".')  # fmt: skip
    if not in_words and any(pair.gold is Side.TIE for pair in pairs):
        notes.append("Scores alone: the tie threshold is the best for these labels, as published for scalar scorers.")
    return notes
