"""The seven stages: each reads what the ones before it committed, makes one thing, and commits it last.

A stage is `run(context) -> StageResult`; `python -m unified_reward.stages --spec FILE` is the process around it.
"""
