"""`unified-reward eval`: a judge's answers on a public benchmark, from a file or asked for here, scored as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.table import Table

from unified_reward.cli.console import output, print_json, say
from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import Report, benchmark_name, score_verdicts
from unified_reward.home import Home

if TYPE_CHECKING:
    from unified_reward.stages.benchmark import Asking, MediaFolder, Source


UNREAD_SHOWN, UNREAD_CHARACTERS = 3, 100


@dataclass(frozen=True)
class ModelRequest:
    """A judge to ask. votes: samples where the protocol votes. out: where its answers go; "" = the work directory.

    vllm: its arguments, where the judge is run by it; else device and precision ("" = what suits the device) say how.
    """

    model: str
    votes: int
    temperature: float
    template: str
    home: str
    out: Path | None
    vllm: Mapping[str, Any] | None = None
    device: str = "cpu"
    precision: str = ""


def evaluate(benchmark: str, verdicts: Path, data: Path | None, *, as_json: bool) -> int:
    """Score a file and show. Returns the exit code."""
    benchmark = benchmark_name(benchmark)
    return _show(score_verdicts(benchmark, verdicts, data), verdicts.name, as_json=as_json)


def evaluate_model(benchmark: str, source: Source, asked: ModelRequest, *, as_json: bool) -> int:
    """Ask a judge, keep what it said as a verdict file, score that and show. Returns the exit code."""
    from unified_reward.stages.benchmark import ask_and_score

    benchmark = benchmark_name(benchmark)
    home = Home.at(asked.home)
    folder = home.work / "benchmarks" / benchmark
    report, verdicts = ask_and_score(
        benchmark, source, lambda media: _judges(asked, source.seed, home, media), folder, asked.out
    )
    say(f"Its answers are in {verdicts}.")
    return _show(report, asked.model, as_json=as_json)


def _judges(asked: ModelRequest, seed: int, home: Home, media: MediaFolder) -> Sequence[Asking]:
    """The judge, once for each vote; several votes are sampled and read from what it says."""
    if asked.votes > 1 and asked.temperature <= 0:
        raise UserError(field="--temperature", value=asked.temperature, why="votes without it are one and the same",
                        fix="Give --temperature 0.2, as VL-RewardBench has it.")  # fmt: skip
    from unified_reward.cli.judging import judge_directory, judge_here, vllm_judges
    from unified_reward.judge.way import Spoken

    ways = [Spoken(temperature=asked.temperature, seed=seed + vote) for vote in range(asked.votes)]
    if asked.vllm is not None:
        say(f"Asking {asked.model} with vLLM ...")
        return vllm_judges(judge_directory(asked.model, home), asked.template, media, ways, asked.vllm)
    loaded = judge_here(asked.model, home, asked.template, media, asked.device, asked.precision)
    if asked.votes == 1:
        return [loaded]
    return [loaded.spoken(way) for way in ways]


def _show(report: Report, name: str, *, as_json: bool) -> int:
    if as_json:
        print_json(report.as_json())
        return 0
    _show_groups(report)
    values = _percents(report)
    for table in published(report.benchmark):
        _show_beside(name, values, table)
    for note in report.notes:
        say(f"note: {note}")
    for one in report.metrics.get("unread", [])[:UNREAD_SHOWN]:
        say(f"no verdict: {one['at']}: {' '.join(one['answer'].split())[:UNREAD_CHARACTERS]!r}")
    return 0


def published(benchmark: str) -> list[dict[str, Any]]:
    """Published tables of a benchmark: source, columns, rows in percent."""
    text = resources.files("unified_reward.evaluation.benchmarks").joinpath("published.yaml").read_text("utf-8")
    tables: list[dict[str, Any]] = yaml.safe_load(text)[benchmark]["tables"]
    return tables


def _show_groups(report: Report) -> None:
    table = _table(report.benchmark, "accuracy", "95 %", "n", "unparsed")
    for name, share in {"all": report.overall, **report.groups}.items():
        interval = "-" if share.interval is None else f"{100 * share.interval[0]:.1f} to {100 * share.interval[1]:.1f}"
        table.add_row(name, _percent(share.accuracy), interval, f"{share.n:,}", f"{share.unparsed:,}")
    output().print(table)
    output().print()


def _show_beside(name: str, values: Mapping[str, float], published_table: Mapping[str, Any]) -> None:
    columns = published_table["columns"]
    table = _table("beside published rows", *columns)
    protocol = published_table.get("protocol")
    for label, prefix in ((name, ""), *([(f"{name}, their rules", f"{protocol}:")] if protocol else [])):
        own = [values.get(prefix + column) for column in columns]
        table.add_row(label, *("-" if value is None else f"{value:.2f}" for value in own))
    for model, row in published_table["rows"].items():
        table.add_row(model, *("-" if value is None else f"{value:g}" for value in row))
    output().print(table)
    output().print(f"source: {published_table['source']}\n", markup=False, soft_wrap=True)


def _percents(report: Report) -> dict[str, float]:
    """All accuracies by the names of published columns; `official:` before those counted by the rules of that protocol."""
    shares = {"accuracy": report.overall.accuracy, **{name: share.accuracy for name, share in report.groups.items()}}
    shares |= {name: value for name, value in report.metrics.items() if isinstance(value, float)}
    shares |= {f"macro/{name}": value for name, value in _tables(report.metrics.get("macro")).items()}
    for name, by_rule in report.metrics.get("as_published", {}).items():
        counted = {group: value for group, value in by_rule.items() if isinstance(value, float)}
        shares |= {f"{name}:{group}": value for group, value in counted.items()}
        shares |= {f"{name}:{name}/{group}": value for group, value in counted.items()}
        shares |= {f"{name}:accuracy": by_rule.get("overall"), f"{name}:macro/{name}": by_rule.get("macro")}
    return {name: 100 * value for name, value in shares.items() if value is not None}


def _tables(value: Any) -> dict[str, float | None]:
    return value if isinstance(value, dict) else {}


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
