"""`unified-reward plan`: what each training of a document needs, before anything is started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unified_reward.cli.console import duration, output, print_json, say
from unified_reward.config import AlignmentRun, PolicyKind, TrainLoopConfig, load_document
from unified_reward.errors import EXIT_USER_ERROR, UserError
from unified_reward.models.refs import BUILTIN, STORED, model_directory
from unified_reward.planning.estimate import Cluster, Estimate, Sample, estimate, way_out
from unified_reward.planning.shape import Shape, config_of, shape_of
from unified_reward.store import open_store

UNITS = {"GiB": 2**30, "Gi": 2**30, "GB": 10**9, "MiB": 2**20, "Mi": 2**20, "MB": 10**6}


@dataclass(frozen=True)
class Planned:
    stage: str
    base: str
    config: TrainLoopConfig
    cluster: Cluster
    shape: Shape
    estimate: Estimate
    way_out: str


def plan(
    file: Path, overrides: Sequence[str], *, gpus: int, gpu_memory: str, gpu_tflops: float, mfu: float, sample: Sample,
    as_json: bool,
) -> int:  # fmt: skip
    """Print the plan; 2 when a stage cannot fit, with what would, on the last lines."""
    document = load_document(file, overrides)
    if not sample.media <= sample.tokens or not sample.targets <= sample.tokens:
        raise UserError(field="--sample-tokens", value=sample.tokens, why="it counts media and target tokens too",
                        fix="Give at least as many as --media-tokens and --target-tokens.")  # fmt: skip
    asked = Cluster(gpus, _bytes(gpu_memory), gpu_tflops * 1e12, mfu)
    for policy in document.spec.policies:
        if policy.kind is PolicyKind.DIFFUSION:
            say(f"note: dpo-train of {policy.name} is not planned, as it trains an image policy")
    planned = [_planned(stage, base, config, asked, sample) for stage, base, config in trainings(document)]
    if as_json:
        print_json({"sample": asdict(sample), "stages": [_values(one) for one in planned]})
    else:
        for one in planned:
            output().print(_page(one, sample), markup=False, soft_wrap=True)
    return EXIT_USER_ERROR if any(not one.estimate.fits for one in planned) else 0


def trainings(document: AlignmentRun) -> Iterator[tuple[str, str, TrainLoopConfig]]:
    """(stage, base, config) of every training of a vision-language model."""
    spec = document.spec
    yield "reward-train", spec.reward_train.base, spec.reward_train
    for policy in spec.expanded_policies():
        if policy.kind is PolicyKind.VLM:
            yield f"dpo-train.{policy.name}", policy.base, policy.dpo_train


def _planned(stage: str, base: str, config: TrainLoopConfig, asked: Cluster, sample: Sample) -> Planned:
    cluster = replace(asked, gpus=asked.gpus or config.processes)
    if config.global_batch % cluster.gpus:
        raise UserError(field="--gpus", value=cluster.gpus, why=f"they cannot share {stage}'s globalBatch of {config.global_batch}",
                        fix=f"Use a divisor of {config.global_batch}.")  # fmt: skip
    try:
        shape = shape_of(config_of(base, _directory(base)), config)
    except UserError as error:
        raise UserError(field=f"{stage}'s {error.field}", value=error.value, why=error.why, fix=error.fix) from error
    found = estimate(shape, config, cluster, sample)
    return Planned(
        stage, base, config, cluster, shape, found, "" if found.fits else way_out(shape, config, cluster, sample)
    )


def _directory(base: str) -> Path | None:
    if base.startswith(BUILTIN):
        return model_directory(base, open_store("memory://"), Path())
    if base.startswith(STORED):
        return None  # a plan reads no store: it goes by the name
    directory = Path(base).expanduser()
    return directory if directory.is_dir() else None


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text.strip())
    size = int(float(match[1]) * UNITS.get(match[2], 0)) if match else 0
    if not size:
        raise UserError(field="--gpu-memory", value=text, why="it is no size", fix="Write for example 80GiB.")
    return size


def _values(one: Planned) -> dict[str, Any]:
    memory = asdict(one.estimate.memory) | {"peak": one.estimate.memory.peak}
    return {
        "stage": one.stage, "base": one.base, "fits": one.estimate.fits, "way_out": one.way_out,
        "parameters": one.shape.parameters, "trainable": one.shape.trainable, "gpus": one.cluster.gpus,
        "memory_per_gpu": memory, "gpu_memory": one.cluster.memory, "tokens_per_step": one.estimate.tokens_per_step,
        "steps": one.config.steps, "flops_per_step": one.estimate.flops_per_step, "hours": one.estimate.hours,
        "mfu": one.cluster.mfu,
    }  # fmt: skip


def _page(one: Planned, sample: Sample) -> str:
    memory, config = one.estimate.memory, one.config
    parts = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "gathered", "activations")}
    lines = [
        f"{one.stage}: {one.base}, {_count(one.shape.parameters)} parameters, {_count(one.shape.trainable)} trainable"
        f" ({config.trains}), {config.precision}, {config.optimizer}, {one.cluster.gpus} GPU{'s' * (one.cluster.gpus > 1)}",
        "  memory per GPU  " + "  ".join(f"{name} {_gib(size)}" for name, size in parts.items()),
        f"                  peak {_gib(memory.peak)} of {_gib(one.cluster.memory)}",
        f"  a step          {config.global_batch} samples x {sample.tokens} tokens ({sample.media} of media) ="
        f" {one.estimate.tokens_per_step:,} tokens, {one.estimate.flops_per_step / 1e15:.3g} PFLOP",
        f"  in all          {config.steps} steps, {duration(one.estimate.hours * 3600)} at"
        f" {one.cluster.flops / 1e12:g} TFLOP/s x {one.cluster.mfu:.0%} (assumed)",
    ]
    if not one.estimate.fits:
        lines.append(f"  does not fit: {one.way_out}")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"
