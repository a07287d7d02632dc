"""What the training stages share: the loop with checkpoints in the store, and the trained model as an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.training_state import snapshot
from unified_reward.config import ArtifactRef, TrainLoopConfig
from unified_reward.models.diffusion import ImagePolicy, load_image_policy, save_image_policy
from unified_reward.models.vlm import Vlm
from unified_reward.stages.context import StageContext
from unified_reward.store import ObjectStore, upload_directory
from unified_reward.training.export import write_vlm
from unified_reward.training.logprobs import TokenScorer
from unified_reward.training.loop import Metrics, TrainResult, train
from unified_reward.training.objective import Objective


class StoredCheckpoints:
    """fsdp_utils' checkpoint storage in the object store, so that a stage goes on wherever it is started again."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    def put_file(self, local: Path, key: str) -> None:
        self.store.put_file(local, f"{self.prefix}/{key}")

    def get_file(self, key: str, local: Path) -> None:
        self.store.get_file(f"{self.prefix}/{key}", local)

    def list(self, prefix: str) -> dict[str, int]:
        found = self.store.list(f"{self.prefix}/{prefix}")
        return {key.removeprefix(f"{self.prefix}/"): size for key, size in found.items()}

    def exists(self, key: str) -> bool:
        return self.store.exists(f"{self.prefix}/{key}")

    def delete(self, key: str) -> None:
        self.store.delete(f"{self.prefix}/{key}")

    def clear(self) -> None:
        for key in self.list(""):
            self.delete(key)


def train_stage(
    context: StageContext,
    config: TrainLoopConfig,
    objective: Objective,
    *,
    dataset_size: int,
    validate: Callable[[int], Metrics] | None = None,
    select_by: str = "",
) -> TrainResult:
    """Train, resuming from the last checkpoint of this stage key; the checkpoints go when training has ended."""
    storage = StoredCheckpoints(context.store, f"checkpoints/{context.spec.key}")
    staging = context.work_dir / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpointer(storage, context.dist, keep=config.keep_checkpoints, staging=staging)
    result = train(
        objective,
        dataset_size=dataset_size,
        config=config,
        dist=context.dist,
        seed=context.spec.seed,
        checkpoints=checkpoints,
        log=lambda step, metrics: context.track.metrics(metrics, step),
        validate=validate,
        select_by=select_by,
    )
    checkpoints.close()
    context.dist.barrier()
    return result


def forget_checkpoints(context: StageContext) -> None:
    """Remove a stage's checkpoints, once its result is committed."""
    StoredCheckpoints(context.store, f"checkpoints/{context.spec.key}").clear()


def export_vlm(
    context: StageContext,
    name: str,
    vlm: Vlm,
    scorer: TokenScorer,
    *,
    meta: dict[str, Any],
    extra: dict[str, bytes] | None = None,
) -> ArtifactRef | None:
    """The model as an artifact of Hugging Face files; rank 0 gets the reference, the others None. Every rank calls it."""
    with tempfile.TemporaryDirectory(dir=context.work_dir) as temporary:
        directory = Path(temporary)
        write_vlm(vlm, directory, context.dist, scorer)
        if not context.dist.is_main:
            return None
        for path, content in (extra or {}).items():
            (directory / path).write_bytes(content)
        return _publish(context, name, directory, meta)


def export_image_policy(
    context: StageContext, name: str, policy: ImagePolicy, base: Path, *, meta: dict[str, Any]
) -> ArtifactRef | None:
    """As `export_vlm`, for a diffusion policy: the trained denoiser in a copy of the base."""
    weights: dict[str, Tensor] = {}
    for key, value in policy.denoiser.state_dict().items():  # one at a time: no rank holds them all but the main one
        whole_tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
        if context.dist.is_main:
            weights |= snapshot({key: whole_tensor})
    if not context.dist.is_main:
        return None
    whole = load_image_policy(base)
    whole.denoiser.load_state_dict(weights)
    with tempfile.TemporaryDirectory(dir=context.work_dir) as temporary:
        save_image_policy(whole, temporary)
        return _publish(context, name, Path(temporary), meta)


def curves(result: TrainResult) -> dict[str, list[list[float]]]:
    """Metric name -> [[step, value], ...] of training and validation."""
    found: dict[str, list[list[float]]] = {}
    for step, metrics in result.history:
        for name, value in metrics.items():
            found.setdefault(name, []).append([step, value])
    for step, metrics in result.validations:
        for name, value in metrics.items():
            found.setdefault(f"validation/{name}", []).append([step, value])
    return found


def summary(result: TrainResult) -> dict[str, Any]:
    """The numbers that sum up a training."""
    return {
        "steps": result.steps,
        "best_step": result.best_step,
        "resumed_at": result.resumed_at,
        "seconds": result.seconds,
        "last": result.last,
        "validations": [[step, metrics] for step, metrics in result.validations],
    }


def _publish(context: StageContext, name: str, directory: Path, meta: dict[str, Any]) -> ArtifactRef:
    """The files as an artifact with its lineage, and as a new version in the model registry."""
    inputs = {key: ref.digest for key, ref in context.spec.inputs.items()}
    prefix = f"{context.prefix}/{name}"
    reference = upload_directory(context.store, prefix, directory, "model", {"inputs": inputs, **meta})
    # MLflow cannot read a local store by its URL, so it is given the files; any other store's it names.
    source = directory if context.store.root is not None else f"{context.store.url.rstrip('/')}/{prefix}"
    lineage = {f"input/{key}": digest for key, digest in inputs.items()}
    tags = {"run": context.spec.run, "artifact": prefix, "digest": reference.digest, **lineage, **meta}
    context.track.register_model("-".join(filter(None, (context.spec.run, context.spec.policy, name))), source, tags)
    return reference
