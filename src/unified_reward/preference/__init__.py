"""Candidates and verdicts -> preference pairs: rank in disjoint pairs, sift by score, select (paper, section III.B)."""

from unified_reward.preference.rank import Judged, RankedPair, disjoint_pairs
from unified_reward.preference.select import SelectionSummary, limited, select, summarise
from unified_reward.preference.sift import Dropped, Rules, Sifted, sift

__all__ = [
    "Dropped", "Judged", "RankedPair", "Rules", "SelectionSummary", "Sifted",
    "disjoint_pairs", "limited", "select", "sift", "summarise",
]  # fmt: skip
