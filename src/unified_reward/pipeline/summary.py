"""What came out of a run, as scripts read it: `unified-reward summary NAME --json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from unified_reward.config import AlignmentRun, Stage
from unified_reward.evaluation.policy_metrics import WIN_RATE, shares
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.status import RunStatus, StageStatus
from unified_reward.stages.context import Commit, read_commit
from unified_reward.store import ObjectStore, open_store

PAIR = ("accuracy", "single_order_accuracy", "swap_consistency", "n")
POINT = ("pearson", "spearman", "n")
POLICY = ("before", "after", "n", "metric")
OPINION = (
    WIN_RATE, "judge_win_rate_interval", "judge_wins", "judge_ties", "judge_losses", "judge_score_before",
    "judge_score_after", "judge", "n", "metric",
)  # fmt: skip
# The state of a stage that exists once per policy: the first of these that one of them is in, else Done.
WORST_FIRST = (State.FAILED, State.RUNNING, State.CANCELLED, State.WAITING)


def summarise(status: RunStatus, store: ObjectStore | None = None) -> dict[str, Any]:
    """JSON values: judge by task, policies by name, cost, stages by name. store: by default opened as the status names it.

    Shares are in 0..1, seconds and bytes plain. What has not been measured yet is not there. seconds of a stage: of the
    work itself, also when this run reused it, summed over policies. groups: the repeats of a sweep, by policy and way;
    spread: standard deviation of the gain over seeds, None for one seed. Policies measured by a judge have fields judge_*
    in place of before and after; in their groups a half stands for before, and the win rate for after.
    """
    done = commits_of(status, store)
    judge = done.get(Stage.REWARD_EVAL.value)
    evaluated = {node.partition("/")[2]: commit for node, commit in done.items() if commit.stage == Stage.POLICY_EVAL}
    return {
        "run": status.name,
        "state": status.state.value,
        "judge": {task: _judge_row(metrics) for task, metrics in judge.metrics.items()} if judge else {},
        "policies": {name: _policy_row(commit.metrics) for name, commit in evaluated.items()},
        "groups": _groups(status, evaluated, done),
        "cost": asdict(status.cost),
        "stages": {stage.value: _stage_row(status, stage) for stage in Stage if _nodes(status, stage)},
        "report": status.report,
    }


def commits_of(status: RunStatus, store: ObjectStore | None = None) -> dict[str, Commit]:
    """What the run's finished stages committed, by node. Raises UserError when the store is gone."""
    store = store or open_store(status.store, create=False)
    found = {
        node: read_commit(store, stage.stage, stage.key)
        for node, stage in status.stages.items() if stage.state is State.DONE
    }  # fmt: skip
    return {node: commit for node, commit in found.items() if commit is not None}


def _groups(
    status: RunStatus, evaluated: Mapping[str, Commit], done: Mapping[str, Commit]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    members: dict[str, list[str]] = {}
    for policy in AlignmentRun.model_validate(status.document).spec.expanded_policies():
        if policy.group and policy.name in evaluated:
            members.setdefault(policy.group, []).append(policy.name)
    return {group: _group_row(names, evaluated, done) for group, names in members.items()}


def _group_row(names: list[str], evaluated: Mapping[str, Commit], done: Mapping[str, Commit]) -> dict[str, Any]:
    before, after = zip(*(shares(evaluated[name].metrics) for name in names), strict=True)
    gains = [high - low for low, high in zip(before, after, strict=True)]
    return {
        "policies": names, "seeds": len(names), "before": fmean(before), "after": fmean(after), "gain": fmean(gains),
        "spread": stdev(gains) if len(gains) > 1 else None,
        "metric": evaluated[names[0]].metrics["metric"],
        "pairs": [done[f"{Stage.SCORE}/{name}"].metrics["kept"] for name in names],
    }  # fmt: skip


def _policy_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return _only(metrics, OPINION if WIN_RATE in metrics else POLICY)


def _judge_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return _only(metrics, POINT if "pearson" in metrics else PAIR)


def _stage_row(status: RunStatus, stage: Stage) -> dict[str, Any]:
    own = _nodes(status, stage)
    row = {"state": _state(own.values()).value, "reused": all(s.reused for s in own.values()),
           "seconds": sum(s.seconds for s in own.values())}  # fmt: skip
    if not stage.per_policy:
        return row
    each = {s.policy: {"state": s.state.value, "reused": s.reused, "seconds": s.seconds} for s in own.values()}
    return {**row, "policies": each}


def _nodes(status: RunStatus, stage: Stage) -> dict[str, StageStatus]:
    return {node: own for node, own in status.stages.items() if own.stage == stage.value}


def _state(stages: Iterable[StageStatus]) -> State:
    states = {stage.state for stage in stages}
    return next((state for state in WORST_FIRST if state in states), State.DONE)


def _only(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in names}
