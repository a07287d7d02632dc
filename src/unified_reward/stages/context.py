"""What every stage has at hand, and how it commits what it made."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unified_reward.config import StageConfig, StageSpec
from unified_reward.config.spec import ArtifactRef
from unified_reward.errors import UserError
from unified_reward.models.refs import model_digest, model_directory
from unified_reward.records import JudgeRecord
from unified_reward.store import Dataset, ObjectStore, open_artifact

if TYPE_CHECKING:
    import torch

    from fsdp_utils.context import DistContext
    from unified_reward.tracking import StageRun

COMMIT = "_stage.json"
MISSING = {
    "prompts_vlm": "Import again with files of prompts in vlmPrompts (docs/data.md).",
    "prompts_diffusion": "Import again with files of prompts in imagePrompts (docs/data.md).",
}
ConfigType = TypeVar("ConfigType", bound=StageConfig)
RowType = TypeVar("RowType")


@dataclass(frozen=True)
class StageResult:
    """What a stage made: outputs by name, the numbers that sum it up, and what a report shows of it.

    metrics is JSON: nested dicts of numbers. report: JSON for the run's page (small: curves, rows, media digests).
    """

    outputs: dict[str, ArtifactRef] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    spec: StageSpec
    store: ObjectStore
    dist: DistContext
    track: StageRun
    work_dir: Path

    @property
    def prefix(self) -> str:
        return self.spec.output_prefix

    @property
    def cache(self) -> Path:
        """Where artifacts are brought to; shared by the stages of this machine."""
        return self.work_dir / "artifacts"

    def config(self, kind: type[ConfigType]) -> ConfigType:
        config = self.spec.stage_config()
        assert isinstance(config, kind), f"{self.spec.stage} was given a {type(config).__name__}"
        return config

    def dataset(self, name: str, kind: type[RowType] = JudgeRecord) -> Dataset[RowType]:  # type: ignore[assignment]
        """The input dataset `name`, checked against its digest."""
        return Dataset(self.store, self.spec.inputs[name], kind)

    def model(self, name: str) -> Path:
        """The local directory of the input model `name`."""
        return open_artifact(self.store, self.spec.inputs[name]).materialise(self.cache)

    def base(self, ref: str) -> Path:
        """The local directory of a model one starts from."""
        return model_directory(ref, self.store, self.cache)

    def base_digest(self, ref: str) -> str:
        """sha256 (hex) of a model one starts from."""
        return model_digest(ref, self.store)

    @property
    def dtype(self) -> torch.dtype:
        """What models that are not trained compute in where this process stands: bfloat16 on a GPU, float32 on a CPU."""
        from unified_reward.models.place import inference_dtype

        return inference_dtype(self.dist.device)


@dataclass(frozen=True)
class Commit:
    """A finished stage as it stands in the store."""

    stage: str
    key: str
    policy: str
    outputs: dict[str, ArtifactRef]
    metrics: dict[str, Any]
    report: dict[str, Any]
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    seconds: float
    finished: float

    def output(self, name: str) -> ArtifactRef:
        """Raises UserError when the stage made no such thing."""
        if name not in self.outputs:
            made = ", ".join(self.outputs) or "nothing"
            fix = MISSING.get(name, "Name another input.")
            raise UserError(field=f"input {name}", value=None, why=f"{self.stage} {self.key} made {made}", fix=fix)
        return self.outputs[name]


def commit(context: StageContext, result: StageResult, *, started: float) -> Commit:
    """Publish a result: the stage is done from the moment this object exists. The first to commit a key wins."""
    spec = context.spec
    done = Commit(
        stage=spec.stage.value, key=spec.key, policy=spec.policy, outputs=result.outputs, metrics=result.metrics,
        report=result.report, config=spec.config, inputs=spec.inputs, seconds=time.time() - started, finished=time.time(),
    )  # fmt: skip
    context.store.put_if_absent(f"{spec.output_prefix}/{COMMIT}", json.dumps(_plain(done), indent=1).encode())
    write_pointer(context.store, spec.run, f"{spec.stage}/{spec.policy}" if spec.policy else spec.stage.value, spec.key)
    return done


def read_commit(store: ObjectStore, stage: str, key: str) -> Commit | None:
    """The committed result of a stage key, or None when the stage has not finished."""
    path = f"stages/{stage}/{key}/{COMMIT}"
    if not store.exists(path):
        return None
    values = json.loads(store.get(path))
    for name in ("outputs", "inputs"):
        values[name] = {key: ArtifactRef.model_validate(ref) for key, ref in values[name].items()}
    return Commit(**values)


def write_pointer(store: ObjectStore, run: str, node: str, key: str) -> None:
    """Note which key a run's stage has now; the only thing in the store that changes."""
    store.put(f"runs/{run}/{node}.json", json.dumps({"key": key}).encode())


def read_pointer(store: ObjectStore, run: str, node: str) -> str:
    """The key that a run's stage has now, "" when it has none."""
    path = f"runs/{run}/{node}.json"
    return str(json.loads(store.get(path))["key"]) if store.exists(path) else ""


def _plain(value: Commit) -> dict[str, Any]:
    fields: Mapping[str, Any] = vars(value)
    refs = {name: {k: r.model_dump() for k, r in fields[name].items()} for name in ("outputs", "inputs")}
    return {**fields, **refs}
