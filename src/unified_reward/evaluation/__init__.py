"""Numbers that say how good a judge and a policy are, as JSON values; on numpy alone."""

from unified_reward.evaluation.judge_metrics import judge_metrics, pair_metrics, point_metrics
from unified_reward.evaluation.policy_metrics import Graded, policy_metrics, share_right

__all__ = ["Graded", "judge_metrics", "pair_metrics", "point_metrics", "policy_metrics", "share_right"]
