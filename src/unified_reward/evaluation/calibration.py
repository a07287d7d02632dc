"""Is the judge as often right as it says? Reliability of pair verdicts, and the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Verdicts whose confidence lies in [low, high): how many, their mean confidence, the share that is right."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10) -> list[Bin]:
    """Equal-width bins over [1/2, 1], the confidences a choice between two can have; 1 is in the last bin."""
    values, hits = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    edges = np.linspace(0.5, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    table = []
    for index in range(bins):
        inside = place == index
        count = int(inside.sum())
        means = (float(values[inside].mean()), float(hits[inside].mean())) if count else (None, None)
        table.append(Bin(float(edges[index]), float(edges[index + 1]), count, *means))
    return table


def expected_calibration_error(table: Sequence[Bin]) -> float | None:
    """Mean over verdicts of |accuracy - confidence| of their bin (Naeini et al., AAAI 2015); None without verdicts."""
    total = sum(row.n for row in table)
    gaps = [row.n * abs(row.accuracy - row.confidence) for row in table
            if row.accuracy is not None and row.confidence is not None]  # fmt: skip
    return sum(gaps) / total if total else None


def calibration(confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10) -> dict[str, Any]:
    """{"ece": ..., "bins": [...]} as JSON values."""
    table = reliability(confidences, right, bins=bins)
    return {"ece": expected_calibration_error(table), "bins": [asdict(row) for row in table]}
