"""The judge: templates, rendering, answer grammar, and verdicts from probabilities or from text.

`load_pack`, `Pack` and `Query` are light; `judge.judge.Judge` brings torch and is imported from its module.
"""

from unified_reward.judge.pack import Pack, load_pack, parse_pack
from unified_reward.judge.query import Query

__all__ = ["Pack", "Query", "load_pack", "parse_pack"]
