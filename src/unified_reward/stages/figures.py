"""The figures that stages log: curves, calibration, score histograms, grids of pictures. Small inputs, one call each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unified_reward.data.media import Pixels
from unified_reward.tracking import StageRun

Read = Callable[[str], Pixels]  # sha256 hex -> pixels
GRID = 12


def log_judge(track: StageRun, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Calibration over the pair tasks, as one reliability diagram each."""
    from unified_reward.tracking.figures import ConfidenceBin, reliability

    for task, values in metrics.items():
        table = (values.get("calibration") or {}).get("bins", [])
        bins = [ConfidenceBin(b["n"], b["confidence"], b["accuracy"]) for b in table if b["n"]]
        if bins:
            track.figure(f"calibration_{task}", reliability(bins))


def log_pairs(track: StageRun, rows: Sequence[Mapping[str, Any]], scores: Sequence[float], read: Read | None) -> None:
    """Scores of chosen, rejected and all candidates; for pictures, a grid of chosen beside rejected."""
    from unified_reward.tracking.figures import PicturePair, histogram, picture_pairs

    scored = [row for row in rows if row["chosen_score"] is not None and row["rejected_score"] is not None]
    if scored:
        groups = {"chosen": [r["chosen_score"] for r in scored], "rejected": [r["rejected_score"] for r in scored]}
        track.figure("scores", histogram({**groups, "all candidates": list(scores)}, x_label="judge's score"))
    if read is not None and rows:
        pairs = [
            PicturePair(r["prompt"], read(r["chosen"]), read(r["rejected"]), r["chosen_score"], r["rejected_score"])
            for r in rows[:GRID]
        ]
        track.figure("chosen_and_rejected", picture_pairs(pairs))


def marked(example: Mapping[str, Any], side: str) -> list[bool]:
    """Which pictures of a side get a frame: those that are wholly right, or that the judge prefers to their counterpart."""
    found: list[bool] = example[f"{side}_right"] if f"{side}_right" in example else example[f"{side}_preferred"]
    return found


def log_before_after(track: StageRun, examples: Sequence[Mapping[str, Any]], read: Read) -> None:
    """What the image policy drew for a prompt before and after."""
    from unified_reward.tracking.figures import BeforeAfter, before_after

    rows = [
        BeforeAfter(
            e["prompt"],
            [read(d) for d in e["before"]],
            [read(d) for d in e["after"]],
            marked(e, "before"),
            marked(e, "after"),
        )
        for e in examples[:GRID]
    ]
    track.figure("before_and_after", before_after(rows))
