"""The benchmarks by name, and one call that scores a file of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import genai_bench, vl_rewardbench
from unified_reward.evaluation.benchmarks.metrics import Report

Score = Callable[[str, Path, Path | None], Report]

BENCHMARKS: Mapping[str, Score] = {
    **dict.fromkeys(genai_bench.SIZES, genai_bench.score),
    "vl-rewardbench": vl_rewardbench.score,
}


def score_verdicts(benchmark: str, verdicts: Path, data: Path | None = None) -> Report:
    """Score judges' answers in the benchmark's published layout. data: the benchmark's own file, where the layout needs it.

    UserError for an unknown benchmark, a missing or broken file, or a row that is not of the layout.
    """
    if benchmark not in BENCHMARKS:
        near = get_close_matches(benchmark.lower().replace("_", "-"), BENCHMARKS, n=1)
        hint = f"Do you mean {near[0]}? " if near else ""
        raise UserError(field="BENCHMARK", value=benchmark, why="there is no such benchmark",
                        fix=f"{hint}Known: {', '.join(BENCHMARKS)}.")  # fmt: skip
    return BENCHMARKS[benchmark](benchmark, verdicts, data)
