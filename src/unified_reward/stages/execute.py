"""A stage from its spec to its commit: join the ranks, open the tracking run, run, commit last."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path

from fsdp_utils.context import DistContext
from unified_reward.config import Stage, StageSpec
from unified_reward.stages.context import Commit, StageContext, commit, read_commit, write_pointer
from unified_reward.store import open_store
from unified_reward.tracking import StageRun, Target, stage_run

MODULES = {stage: f"unified_reward.stages.{stage.value.replace('-', '_')}" for stage in Stage} | {
    Stage.IMPORT: "unified_reward.stages.import_data"
}


def execute(spec: StageSpec, *, started: float) -> Commit:
    """Run the stage on every rank; nothing is done when its key is committed already. Returns what is committed."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    spec.stage_config()
    store = open_store(spec.store)
    known = read_commit(store, spec.stage, spec.key)
    if known is not None:  # made by another run, perhaps; from now on also this one's
        write_pointer(store, spec.run, f"{spec.stage}/{spec.policy}" if spec.policy else spec.stage.value, spec.key)
        return known
    store.check_writable()
    work = Path(spec.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    dist = DistContext.init()
    target = Target(spec.tracking.uri, spec.tracking.experiment) if spec.tracking and dist.is_main else None
    with stage_run(
        target, work / "tracking", key=tracking_key(spec), name=_title(spec), parent_key=spec.parent_key,
        tags={"stage": spec.stage.value, "run": spec.run, "key": spec.key, "policy": spec.policy},
    ) as track:  # fmt: skip
        context = StageContext(spec, store, dist, track, work)
        _describe(context, track)
        result = importlib.import_module(MODULES[spec.stage]).run(context)
        if dist.is_main:
            commit(context, result, started=started)
        dist.barrier()
    done = read_commit(store, spec.stage, spec.key)
    assert done is not None
    if dist.is_main:
        _clean_up(context)
        for name, reference in done.outputs.items():
            print(f"{name}: {reference.prefix} sha256:{reference.digest[:12]}", flush=True)
    return done


def tracking_key(spec: StageSpec) -> str:
    """Names the tracking run of this stage execution: the same after a restart of the same key."""
    node = f"{spec.stage.value}.{spec.policy}" if spec.policy else spec.stage.value
    return f"{spec.run}.{node}.{spec.key}"


def _title(spec: StageSpec) -> str:
    return f"{spec.stage.value} {spec.policy}".strip()


def _describe(context: StageContext, track: StageRun) -> None:
    spec = context.spec
    track.params({**spec.stage_config().model_dump(mode="json"), "seed": spec.seed, "key": spec.key,
                  "world_size": context.dist.world_size, "policy_base": spec.policy_base})  # fmt: skip
    for name, reference in spec.inputs.items():
        track.input(name, prefix=reference.prefix, digest=reference.digest, source=spec.store)


def _clean_up(context: StageContext) -> None:
    if context.spec.stage in (Stage.REWARD_TRAIN, Stage.DPO_TRAIN):
        from unified_reward.stages.trained import forget_checkpoints

        forget_checkpoints(context)
