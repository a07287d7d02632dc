"""The card of a data set: what it was made of, under which terms, what was left out, and how its labels and media lie."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unified_reward.data.importer import Imported
from unified_reward.data.limits import About
from unified_reward.records import JudgeRecord, Mode

LISTED = 20  # rejects named in the card itself; the list beside it has all


@dataclass(frozen=True)
class Media:
    """How many media, and of each one's own size: width, height, frames, seconds (None = a picture), bytes."""

    about: Sequence[About] = ()
    sizes: Sequence[int] = ()


@dataclass(frozen=True)
class Card:
    """counts: split -> task -> records. choices: task -> verdict -> records. scores: "source task" -> scores in 0..1 of
    their range. ranges: likewise -> (lowest, highest) of the source. rationales: records with reasons."""

    sources: Sequence[Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, int]]
    choices: Mapping[str, Mapping[str, int]]
    scores: Mapping[str, Sequence[float]]
    ranges: Mapping[str, tuple[float, float]]
    rationales: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 0
    media: Media = field(default_factory=Media)
    decoding: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The card as small JSON: counts, no lists of values."""
        return {
            "sources": list(self.sources), "counts": self.counts, "choices": self.choices,
            "scores": {name: _spread(values) for name, values in self.scores.items()}, "ranges": self.ranges,
            "rationales": self.rationales, "rejects": dict(self.rejects), "repeats": self.repeats,
            "media": media_facts(self.media), "decoding": dict(self.decoding),
        }  # fmt: skip


def card_of(found: Imported, decoding: Mapping[str, Any]) -> Card:
    """decoding: how media are sampled and scaled when they are read."""
    media = Media([m.about for m in found.media.values()], [m.size for m in found.media.values()])
    reasons = Counter(reject.reason for reject in found.rejects)
    return records_card(found.records, [asdict(source) for source in found.sources], rejects=dict(reasons.most_common()),
                        repeats=len(found.repeats), media=media, decoding=decoding)  # fmt: skip


def records_card(
    records: Iterable[JudgeRecord],
    sources: Sequence[Mapping[str, Any]],
    *,
    rejects: Mapping[str, int] | None = None,
    repeats: int = 0,
    media: Media | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> Card:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    choices: dict[str, Counter[str]] = defaultdict(Counter)
    scores: dict[str, list[float]] = defaultdict(list)
    ranges: dict[str, tuple[float, float]] = {}
    rationales = 0
    for record in records:
        counts[record.split][record.task.value] += 1
        rationales += bool(record.rationale)
        if record.task.mode is Mode.PAIR and record.choice is not None:
            choices[record.task.value][record.choice.value] += 1
        elif record.score is not None and record.score_min is not None and record.score_max is not None:
            name = f"{record.source} {record.task.value}"
            low, high = ranges.setdefault(name, (record.score_min, record.score_max))
            scores[name].append((record.score - low) / (high - low))
    return Card(sources, _plain(counts), _plain(choices), dict(scores), ranges, rationales, rejects or {}, repeats,
                media or Media(), decoding or {})  # fmt: skip


def media_facts(media: Media) -> dict[str, Any]:
    """Counts and spreads of what the files hold."""
    clips = [about for about in media.about if about.frames > 1]
    if not media.about:
        return {}
    return {
        "pictures": len(media.about) - len(clips),
        "clips": len(clips),
        "bytes": sum(media.sizes),
        "width": _spread([about.width for about in media.about]),
        "height": _spread([about.height for about in media.about]),
        "frames": _spread([about.frames for about in clips]),
        "seconds": _spread([about.seconds for about in clips if about.seconds is not None]),
    }


def markdown(card: Card, title: str, rejects: Sequence[Any] = ()) -> str:
    """The card for people. rejects: the first of them are named."""
    lines = [f"# {title}", "", "## Sources", ""]
    lines += _table(("file", "format", "licence", "taken", "rows", "records", "rejects", "repeats"), [
        (s["file"], s["format"], s["licence"], s["strategy"], s["rows"], s["records"], s["rejects"], s["repeats"])
        for s in card.sources
    ])  # fmt: skip
    lines += ["", "## Records", ""]
    splits = sorted(card.counts)
    tasks = sorted({task for counts in card.counts.values() for task in counts})
    lines += _table(("task", *splits), [(t, *(card.counts[s].get(t, 0) for s in splits)) for t in tasks])
    lines += ["", f"{card.rationales} of them with reasons before the verdict.", "", "## Labels", ""]
    lines += _table(("task", "first", "second", "tie"), [
        (task, *(choices.get(c, 0) for c in ("1", "2", "tie"))) for task, choices in sorted(card.choices.items())
    ])  # fmt: skip
    lines += ["", *_table(("scores of", "range", "mean", "number"), [
        (name, "{:g} to {:g}".format(*card.ranges[name]), _mean(name, values, card), len(values))
        for name, values in sorted(card.scores.items())
    ])]  # fmt: skip
    lines += ["", "## Media", ""]
    lines += [f"- {name}: {_words(value)}" for name, value in {**media_facts(card.media), **card.decoding}.items()]
    lines += ["", "## Left out", ""]
    lines += [f"- {count} x {reason}" for reason, count in card.rejects.items()] or ["Nothing."]
    lines += [f"- {card.repeats} x the same record again"] if card.repeats else []
    if rejects:
        lines += ["", "The first of them:", ""]
        lines += [f"- `{r.file}:{r.row}` {r.reason}{f' ({r.detail})' if r.detail else ''}" for r in rejects[:LISTED]]
    return "\n".join(lines) + "\n"


def _mean(name: str, values: Sequence[float], card: Card) -> str:
    low, high = card.ranges[name]
    return f"{low + sum(values) / len(values) * (high - low):.2f}"


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    ranked = sorted(values)
    return {"min": round(ranked[0], 3), "median": round(ranked[len(ranked) // 2], 3), "max": round(ranked[-1], 3)}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each:g}" for name, each in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    if not rows:
        return ["None."]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells)]


def _plain(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {name: dict(inner) for name, inner in sorted(counts.items())}
