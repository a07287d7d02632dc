"""The benchmarks by name, and one call that scores a file of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import genai_bench, mmrb2, pairs, rankings, vbench, vl_rewardbench
from unified_reward.evaluation.benchmarks.metrics import Report

Score = Callable[[str, Path, Path | None], Report]

BENCHMARKS: Mapping[str, Score] = {
    **dict.fromkeys(genai_bench.SIZES, genai_bench.score),
    "vl-rewardbench": vl_rewardbench.score,
    **dict.fromkeys(pairs.LAYOUTS, pairs.score),
    **dict.fromkeys(rankings.SIZES, rankings.score),
    "mmrb2": mmrb2.score,
    "vbench": vbench.score,
}
ALIASES: Mapping[str, str] = {
    "genai-bench": "genai-bench-image", "genai-bench-editing": "genai-bench-edit", "vlrewardbench": "vl-rewardbench",
    "vl-reward-bench": "vl-rewardbench", "videogen-reward-bench": "videogen-rewardbench", "sharegptvideo": "sharegptvideo-1k",
    "image-reward": "imagereward", "imagereward-test": "imagereward", "hpd-v2": "hpdv2", "hpd-v3": "hpdv3",
    "multimodal-rewardbench-2": "mmrb2", "react": "react-video", "vbench-quality": "vbench",
}  # fmt: skip


def benchmark_name(name: str) -> str:
    """The benchmark of this name or alias; UserError with a near one where there is none."""
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    plain = ALIASES.get(plain, plain)
    if plain in BENCHMARKS:
        return plain
    near = get_close_matches(plain, [*BENCHMARKS, *ALIASES], n=1)
    hint = f"Do you mean {ALIASES.get(near[0], near[0])}? " if near else ""
    raise UserError(field="BENCHMARK", value=name, why="there is no such benchmark",
                    fix=f"{hint}Known: {', '.join(BENCHMARKS)}.")  # fmt: skip


def score_verdicts(benchmark: str, verdicts: Path, data: Path | None = None) -> Report:
    """Score judges' answers in the benchmark's published layout. data: the benchmark's own file, where the layout needs it.

    UserError for an unknown benchmark, a missing or broken file, or a row that is not of the layout.
    """
    name = benchmark_name(benchmark)
    return BENCHMARKS[name](name, verdicts, data)
