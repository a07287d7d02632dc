"""The end of a run in a few lines: judge by task, policies before and after, time, and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from unified_reward.cli.console import duration

WORDS, WITNESS = "right means", "judge"  # the columns that may wrap


def show_summary(summary: Mapping[str, Any], to: Console) -> None:
    """summary: as `pipeline.summary.summarise` gives it."""
    pairs = {task: row for task, row in summary["judge"].items() if "accuracy" in row}
    points = {task: row for task, row in summary["judge"].items() if "pearson" in row}
    rows: list[Sequence[str]]
    if pairs:
        rows = [(_words(task), _percent(row["accuracy"]), _percent(row["single_order_accuracy"]),
                 _percent(row["swap_consistency"]), f"{row['n']:,}") for task, row in pairs.items()]  # fmt: skip
        _table(to, ("judge: which of two is better", "both orders", "one order", "orders agree", "n"), rows)
    if points:
        rows = [(_words(task), _number(row["pearson"]), _number(row["spearman"]), f"{row['n']:,}")
                for task, row in points.items()]  # fmt: skip
        _table(to, ("judge: how good is one", "Pearson", "Spearman", "n"), rows)
    graded = {name: row for name, row in summary["policies"].items() if "before" in row}
    judged = {name: row for name, row in summary["policies"].items() if "judge_win_rate" in row}
    if graded:
        rows = [(name, _percent(row["before"]), _percent(row["after"]), _points(row), f"{row['n']:,}", row["metric"])
                for name, row in graded.items()]  # fmt: skip
        _table(to, ("policy, known truth", "before", "after", "change", "n", WORDS), rows, left=(0, 5))
    if judged:
        rows = [(name, _percent(row["judge_win_rate"]), _between(row["judge_win_rate_interval"]),
                 f"{row['judge_wins']:,} / {row['judge_ties']:,} / {row['judge_losses']:,}", _scores(row), f"{row['n']:,}",
                 row["judge"]) for name, row in judged.items()]  # fmt: skip
        titles = ("policy, after against before", "win rate by the judge", "95 %", "won / tie / lost",
                  "judge's score", "n", WITNESS)  # fmt: skip
        _table(to, titles, rows, left=(0, 6))
    if summary["groups"]:
        rows = [(label, str(row["seeds"]), _pairs(row["pairs"]), _percent(row["before"]), _percent(row["after"]),
                 f"{100 * row['gain']:+.1f}", "-" if row["spread"] is None else f"{100 * row['spread']:.1f}")
                for label, row in summary["groups"].items()]  # fmt: skip
        _table(to, ("over seeds (means)", "seeds", "pairs", "before", "after", "change", "spread"), rows)
    cost = summary["cost"]
    if cost["wall_seconds"]:
        memory = f"{cost['peak_rss_bytes'] / 2**30:.2f} GiB at most"
        used = (
            f", {duration(cost['cpu_seconds'])} of CPU, {memory}" if cost["cpu_seconds"] else ""
        )  # on a cluster known when a stage has ended
        to.print(f"{duration(cost['wall_seconds'])}{used}", markup=False)


def _table(to: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place in left else "right", no_wrap=title not in (WORDS, WITNESS))
    for row in rows:
        table.add_row(*row)
    to.print(table)
    to.print()


def _words(task: str) -> str:
    """image_generation_pair -> image generation."""
    return " ".join(task.split("_")[:-1])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _pairs(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _between(bounds: Sequence[float]) -> str:
    return " - ".join(f"{100 * bound:.1f}" for bound in bounds)


def _scores(row: Mapping[str, Any]) -> str:
    before, after = row["judge_score_before"], row["judge_score_after"]
    return "-" if before is None or after is None else f"{before:.2f} -> {after:.2f}"


def _points(row: Mapping[str, Any]) -> str:
    return "-" if row["before"] is None or row["after"] is None else f"{100 * (row['after'] - row['before']):+.1f}"
