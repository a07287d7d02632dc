"""One self-contained HTML page of a whole run, for the person who wants to know what came out.

`render(ReportData(...))` gives the page: its styles, charts (SVG) and pictures (data URIs) are inside, there is no
script, and its security policy forbids loading anything. Texts from datasets and models are escaped (markup.py).
Shares are in 0..1; intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from unified_reward.tracking.markup import Html, Picture, join, tag, text
from unified_reward.tracking.report_sections import (
    benchmarks_section,
    costs_section,
    groups_section,
    headline_section,
    judge_section,
    notes_section,
    policies_section,
    preferences_section,
    verdicts_section,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Headline:
    """A number one should take away. before: shown in front of it, paler. detail: what it means, in a sentence."""

    label: str
    value: str
    detail: str
    before: str = ""


@dataclass(frozen=True)
class Chart:
    """A matplotlib figure with the sentence that says what one sees."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class PairExample:
    """A chosen and a rejected candidate of one prompt, each a text or a picture, with scores; media: what was asked about."""

    prompt: str
    chosen_score: float | None = None
    rejected_score: float | None = None
    chosen_text: str = ""
    rejected_text: str = ""
    chosen_picture: Picture | None = None
    rejected_picture: Picture | None = None
    media: Sequence[Picture] = ()


@dataclass(frozen=True)
class Preferences:
    """What became of a policy's prompts: pairs kept, and how many were dropped for which reason."""

    policy: str
    prompts: int
    candidates: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    examples: Sequence[PairExample] = ()


@dataclass(frozen=True)
class Drawn:
    """What an image policy drew for one held-out prompt before and after, and which drawings are framed, being `framed`."""

    prompt: str
    before: Sequence[Picture]
    after: Sequence[Picture]
    before_right: Sequence[bool] = ()
    after_right: Sequence[bool] = ()
    framed: str = "right"


@dataclass(frozen=True)
class Answered:
    """What a VLM policy answered to one held-out prompt before and after, and what the judge says of the two.

    prefers: before, after or tie. media: what was asked about.
    """

    prompt: str
    before: str
    after: str
    prefers: str
    p_after: float | None = None
    score_before: float | None = None
    score_after: float | None = None
    media: Sequence[Picture] = ()


@dataclass(frozen=True)
class Policy:
    """A policy before and after. results: as `evaluation.policy_metrics` gives them (JSON), by truth or by the judge."""

    name: str
    results: Mapping[str, Any]
    charts: Sequence[Chart] = ()
    drawn: Sequence[Drawn] = ()
    written: Sequence[Answered] = ()


@dataclass(frozen=True)
class Group:
    """Repeats of one policy under several seeds: shares right before and after, one entry a seed, and pairs trained on."""

    label: str
    before: Sequence[float]
    after: Sequence[float]
    pairs: Sequence[int] = ()


@dataclass(frozen=True)
class VerdictExample:
    """What the judge said of one held-out item. media: each item as its frames (a picture is one frame)."""

    task: str
    prompt: str
    said: str
    label: str
    right: bool
    answers: Sequence[str] = ()
    media: Sequence[Sequence[Picture]] = ()
    p_first: float | None = None
    p_first_shown_first: float | None = None
    p_first_shown_second: float | None = None
    rationale: str = ""


@dataclass(frozen=True)
class StageCost:
    """seconds: of the work itself, also when this run reused it. peak_rss_bytes: over the stage's processes."""

    stage: str
    seconds: float
    reused: bool = False
    peak_rss_bytes: int | None = None
    what: str = ""


@dataclass(frozen=True)
class ReportData:
    """All the page shows. Parts that are empty leave no trace on it.

    summary: what was done, in two sentences. facts: name -> value under it (date, seed, data, command).
    judge: task name -> metrics as `evaluation.judge_metrics` gives them (JSON). groups: repeats of a
    sweep. benchmarks: as `evaluation.benchmarks.Report.as_json` gives them. notes: what the numbers do not say.
    links: label -> URL (http or https), at the end.
    """

    run: str
    summary: str
    facts: Mapping[str, str] = field(default_factory=dict)
    headline: Sequence[Headline] = ()
    judge: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    judge_charts: Sequence[Chart] = ()
    benchmarks: Sequence[Mapping[str, Any]] = ()
    preferences: Sequence[Preferences] = ()
    policies: Sequence[Policy] = ()
    groups: Sequence[Group] = ()
    verdicts: Sequence[VerdictExample] = ()
    costs: Sequence[StageCost] = ()
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = None
    notes: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def render(data: ReportData) -> str:
    """The whole page."""
    body = join([
        _head(data),
        judge_section(data.judge, data.judge_charts),
        benchmarks_section(data.benchmarks),
        preferences_section(data.preferences),
        policies_section(data.policies),
        groups_section(data.groups),
        verdicts_section(data.verdicts),
        costs_section(data.costs, data.wall_seconds, data.cpu_seconds, data.peak_rss_bytes),
        notes_section(data.notes),
        _foot(data),
    ])  # fmt: skip
    skeleton = resources.files("unified_reward.tracking").joinpath("report.html").read_text(encoding="utf-8")
    return Template(skeleton).substitute(title=text(f"{data.run} · Unified Reward"), body=body)


def _head(data: ReportData) -> Html:
    facts = [tag("span", f"{name} ", tag("b", value)) for name, value in data.facts.items()]
    return join([
        tag("p", "Unified Reward · report of a run", class_="eyebrow"),
        tag("h1", data.run),
        tag("p", data.summary, class_="lede"),
        tag("div", *facts, class_="meta"),
        headline_section(data.headline),
    ])  # fmt: skip


def _foot(data: ReportData) -> Html:
    links = [tag("a", label, href=url) for label, url in data.links.items() if url.startswith(("http://", "https://"))]
    return tag("footer", join(links, " · ")) if links else Html("")
