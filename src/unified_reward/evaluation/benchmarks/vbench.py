"""VBench (arXiv 2311.17982): what a video policy's samples are worth, from the scores of its sixteen dimensions.

Every dimension is brought to 0..1 by the least and greatest score that VBench found possible, and weighted; quality is the
weighted mean of seven, semantic that of nine, total = (4 quality + semantic) / 5 (Vchitect/VBench scripts/constant.py).

Read are the `*_eval_results.json` that VBench writes ({dimension: [mean, [{"video_path", "video_results"}, ...]]}), in one
file or one each in a directory, a plain {dimension: score}, or a table with one row. `accuracy` is the quality score; the
groups are the dimensions as measured, with intervals by bootstrap over videos where the file has these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.files import KEY, Row, files_in, read_rows
from unified_reward.evaluation.benchmarks.metrics import SEED, Report, Share
from unified_reward.evaluation.statistics import Array, bootstrap_interval, mean

RESAMPLES = 1000
SEMANTIC_WEIGHT, QUALITY_WEIGHT = 1, 4


@dataclass(frozen=True)
class Dimension:
    low: float
    high: float
    weight: float = 1.0

    def normalised(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


QUALITY = {
    "subject consistency": Dimension(0.1462, 1.0), "background consistency": Dimension(0.2615, 1.0),
    "temporal flickering": Dimension(0.6293, 1.0), "motion smoothness": Dimension(0.706, 0.9975),
    "dynamic degree": Dimension(0.0, 1.0, 0.5), "aesthetic quality": Dimension(0.0, 1.0),
    "imaging quality": Dimension(0.0, 1.0),
}  # fmt: skip
SEMANTIC = {
    "object class": Dimension(0.0, 1.0), "multiple objects": Dimension(0.0, 1.0), "human action": Dimension(0.0, 1.0),
    "color": Dimension(0.0, 1.0), "spatial relationship": Dimension(0.0, 1.0), "scene": Dimension(0.0, 0.8222),
    "appearance style": Dimension(0.0009, 0.2855), "temporal style": Dimension(0.0, 0.364),
    "overall consistency": Dimension(0.0, 0.364),
}  # fmt: skip
DIMENSIONS = QUALITY | SEMANTIC


@dataclass(frozen=True)
class Measured:
    """score: in 0..1 as VBench reports it. videos: the score of each video in the same unit, where the file has them."""

    score: float
    videos: list[float] = field(default_factory=list)
    unread: int = 0


def score(benchmark: str, verdicts: Path, data: Path | None) -> Report:
    if data is not None:
        raise UserError(field="--data", value=data, why="VBench's results need no other file", fix="Leave --data out.")
    found = read_dimensions(verdicts)
    missing = [name for name in DIMENSIONS if name not in found]
    quality, semantic = (
        _mean_of(part, {name: one.score for name, one in found.items()}) for part in (QUALITY, SEMANTIC)
    )
    with_zeros = {name: found[name].score if name in found else 0.0 for name in DIMENSIONS}
    groups = {f"{'quality' if name in QUALITY else 'semantic'}/{name}": _share(found[name])
              for name in DIMENSIONS if name in found}  # fmt: skip
    metrics: dict[str, Any] = {
        "quality": quality, "semantic": semantic, "total": _total(quality, semantic),
        "normalised": {name: DIMENSIONS[name].normalised(one.score) for name, one in found.items()},
        "missing": missing,
        "as_published": {"official": {"quality": _mean_of(QUALITY, with_zeros), "semantic": _mean_of(SEMANTIC, with_zeros),
                         "total": _total(_mean_of(QUALITY, with_zeros), _mean_of(SEMANTIC, with_zeros))}},
    }  # fmt: skip
    videos = sum(len(one.videos) for name, one in found.items() if name in QUALITY)
    unread = sum(one.unread for one in found.values())
    return Report(benchmark, Share(quality, _quality_interval(found), videos, unread), groups, metrics, _notes(missing))


def _mean_of(part: Mapping[str, Dimension], scores: Mapping[str, float]) -> float | None:
    """Weighted mean of normalised scores; None where a dimension is missing."""
    if any(name not in scores for name in part):
        return None
    total = math.fsum(one.weight * one.normalised(scores[name]) for name, one in part.items())
    return total / math.fsum(one.weight for one in part.values())


def _total(quality: float | None, semantic: float | None) -> float | None:
    if quality is None or semantic is None:
        return None
    return (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def _share(measured: Measured) -> Share:
    interval = bootstrap_interval([measured.videos], mean, seed=SEED) if measured.videos else None
    return Share(measured.score, interval, len(measured.videos), measured.unread)


def _quality_interval(found: Mapping[str, Measured]) -> tuple[float, float] | None:
    """Each dimension's videos resampled on their own, as each has its own prompts; None unless all seven have videos."""
    if any(name not in found or len(found[name].videos) < 2 for name in QUALITY):
        return None
    draw = np.random.default_rng(SEED)
    total: Array = np.zeros(RESAMPLES)
    for name, one in QUALITY.items():
        videos = np.asarray(found[name].videos)
        means = videos[draw.integers(0, len(videos), (RESAMPLES, len(videos)))].mean(axis=1)
        total = total + one.weight * (means - one.low) / (one.high - one.low)
    low, high = np.quantile(total / sum(one.weight for one in QUALITY.values()), [0.025, 0.975])
    return float(low), float(high)


def _notes(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [f"Not measured: {', '.join(missing)}. The published script counts such a dimension as 0 (as_published)."]


def read_dimensions(path: Path) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for file in files_in(path, "--verdicts"):
        if file.name.endswith("_full_info.json"):  # VBench's list of prompts stands beside its results
            continue
        for row in read_rows(file, "--verdicts"):
            for name, value in _cells(row):
                if name in found:
                    raise row.error(file, f"{name} comes twice", "Give the results of one policy.")
                found[name] = _measured(file, row, name, value)
    if not found:
        raise UserError(field="--verdicts", value=path, why="no dimension of VBench is in it",
                        fix=f"Write {{dimension: score}}; dimensions are {', '.join(DIMENSIONS)}.")  # fmt: skip
    return found


def _cells(row: Row) -> list[tuple[str, Any]]:
    """(dimension, score) of {dimension: score}, or of a row {"dimension": ..., "score": ...}."""
    named = row.values.get("dimension", row.values.get(KEY))
    if isinstance(named, str) and _canonical(named) in DIMENSIONS:
        return [(_canonical(named), row.values.get("score", row.values.get("mean")))]
    return [(_canonical(name), value) for name, value in row.values.items()
            if value is not None and _canonical(name) in DIMENSIONS]  # fmt: skip


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _measured(path: Path, row: Row, name: str, value: Any) -> Measured:
    head, rest = (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (value, [])
    if isinstance(value, list) and len(value) == 1:
        head = value[0]
    videos = [_video(one) for one in rest] if isinstance(rest, list) else []
    read = [one for one in videos if one is not None]
    score = _fraction(path, row, name, head)
    # imaging quality is written per video in 0..100, and its mean in 0..1
    scale = 100.0 if read and max(read) > 1.0 else 1.0
    return Measured(score, [one / scale for one in read], len(videos) - len(read))


def _video(entry: Any) -> float | None:
    value = entry.get("video_results") if isinstance(entry, dict) else entry
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _fraction(path: Path, row: Row, name: str, value: Any) -> float:
    """A score in 0..1; "96.3%" is 0.963."""
    text = str(value).strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise row.error(path, f"{name} is {text!r}", "Write its score in 0..1, or in percent with the sign.") from None
    if not 0.0 <= found <= 1.0:
        raise row.error(
            path, f"{name} is {text}, outside 0..1", "Write its score in 0..1, or in percent with the sign."
        )
    return found
