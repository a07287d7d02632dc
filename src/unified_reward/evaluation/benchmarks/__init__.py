"""Public judge benchmarks, scored as published from files of judges' answers; no model runs here."""

from unified_reward.evaluation.benchmarks.metrics import Report, Share, TieCalibrated, tie_calibrated_accuracy
from unified_reward.evaluation.benchmarks.table import BENCHMARKS, benchmark_name, score_verdicts

__all__ = [
    "BENCHMARKS",
    "Report",
    "Share",
    "TieCalibrated",
    "benchmark_name",
    "score_verdicts",
    "tie_calibrated_accuracy",
]
