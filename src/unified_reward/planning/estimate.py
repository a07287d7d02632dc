"""From a shape, a config and a cluster to bytes per GPU and hours. Every formula stands in one function.

Weights, gradients and optimizer state are exact for our sharding (a test compares them with what two ranks hold).
Activations are an estimate by counting what each layer keeps for backward (after arXiv 2205.05198, section 4, with an
attention that keeps no scores); they were not compared with a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from unified_reward.config import TrainLoopConfig
from unified_reward.config.stages import Optimizer, Precision, ShardUnits
from unified_reward.planning.shape import Shape

MASTER = 4  # bytes of a float32 weight, gradient, or optimizer number
LOGITS = 1 << 30  # bytes of logits kept at once: training/logprobs.py
SPARE = 0.08  # share of a GPU that the allocator and the collectives need beside the tensors


@dataclass(frozen=True)
class Cluster:
    """gpus: in all. memory: bytes of one. flops: of one, per second, at peak in the precision used. mfu: share reached."""

    gpus: int
    memory: int
    flops: float
    mfu: float = 0.35


@dataclass(frozen=True)
class Sample:
    """An average example: tokens in the row, of which `media` stand for pictures and `targets` are learned."""

    tokens: int
    media: int
    targets: int


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int

    @property
    def peak(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


@dataclass(frozen=True)
class Estimate:
    memory: Memory
    tokens_per_step: int
    flops_per_step: float
    hours: float
    fits: bool


def estimate(shape: Shape, config: TrainLoopConfig, cluster: Cluster, sample: Sample) -> Estimate:
    memory = memory_per_gpu(shape, config, cluster.gpus, sample)
    flops = flops_per_step(shape, config, sample)
    hours = config.steps * flops / (cluster.gpus * cluster.flops * cluster.mfu) / 3600
    fits = memory.peak <= cluster.memory * (1 - SPARE)
    return Estimate(memory, config.global_batch * sample.tokens, flops, hours, fits)


def memory_per_gpu(shape: Shape, config: TrainLoopConfig, gpus: int, sample: Sample) -> Memory:
    """Float32 masters are sharded; a unit is gathered in the compute precision, the next one beside it (prefetch).

    The root's unit stays gathered through a step, and its gradients are whole until they are reduced.
    """
    width = 2 if config.precision is Precision.BFLOAT16 else 4
    states = (
        2 if config.optimizer is Optimizer.ADAMW else 1
    )  # Muon keeps one for matrices: slightly too little for the rest
    gathered = 0
    if gpus > 1 or width == 2:
        blocks = config.shard_units is ShardUnits.BLOCKS
        whole = shape.root_unit if blocks else shape.parameters
        learns = shape.trainable / shape.parameters
        gathered = width * (whole + 2 * shape.largest_unit * blocks) + int(learns * width * whole)
    return Memory(
        weights=-(-MASTER * shape.parameters // gpus),
        gradients=-(-MASTER * shape.trainable // gpus),
        optimizer=-(-MASTER * states * shape.trainable // gpus),
        gathered=gathered,
        activations=_activations(shape, config, gpus, sample, width),
    )


def _activations(shape: Shape, config: TrainLoopConfig, gpus: int, sample: Sample, width: int) -> int:
    """What is kept for backward in one micro-batch.

    A layer keeps, per token: the two norms' inputs and outputs and the residuals (6 h), queries, keys, values and the
    attention's result (2 h + kv), and the gated MLP (4 i). With checkpointing: its input only, and one layer in full.
    """
    share = max(1, config.global_batch // gpus)
    rows = min(share, config.micro_batch or share)
    tokens, patches = rows * sample.tokens, rows * sample.media * shape.patches_per_token
    layer = tokens * (8 * shape.hidden + shape.kv + 4 * shape.intermediate) * width
    tower = patches * (11 * shape.vision_hidden + 3 * shape.vision_intermediate) * width
    if not shape.vision_trainable:
        tower_kept, tower = 0, tower  # nothing is kept, but one layer is alive
    else:
        tower_kept = shape.vision_layers * (
            patches * shape.vision_hidden * width if config.activation_checkpointing else tower
        )
    if config.activation_checkpointing:
        kept = shape.layers * tokens * shape.hidden * width + max(layer, tower)
    else:
        kept = shape.layers * layer
    logits = min(rows * sample.targets * shape.vocabulary * 4, LOGITS) * 2  # they and their gradient
    return int(kept + tower_kept + logits + tokens * shape.hidden * width)


def flops_per_step(shape: Shape, config: TrainLoopConfig, sample: Sample) -> float:
    """6 N tokens (2 forward, 4 backward): N language parameters over all tokens, the tower's over its patches.

    Backward of what is frozen costs half (no weight gradients), of a frozen tower nothing; checkpointing runs forward
    again (8 N). Attention adds 12 h tokens^2 a layer, halved by causality. The embedding table multiplies nothing, unless it
    is the head as well.
    """
    table = 0 if shape.tied else shape.vocabulary * shape.hidden
    text = shape.parameters - shape.vision - table
    learns = shape.trainable - shape.vision_trainable > text / 2
    forward = 2 * (2 if config.activation_checkpointing else 1)
    language = (forward + (4 if learns else 2)) * text * sample.tokens
    language += (forward + 4) * shape.layers * shape.hidden * sample.tokens**2
    patches = sample.media * shape.patches_per_token
    tower = ((forward + 4) if shape.vision_trainable else 2) * shape.vision * patches
    return float(config.global_batch * (language + tower))


def way_out(shape: Shape, config: TrainLoopConfig, cluster: Cluster, sample: Sample) -> str:
    """The nearest settings that fit, as an imperative sentence; what changes the method least comes first."""
    ways: dict[str, dict[str, object]] = {
        "shardUnits: blocks": {"shard_units": ShardUnits.BLOCKS},
        "activationCheckpointing: true": {"activation_checkpointing": True},
        "microBatch: 1": {"micro_batch": 1},
        "precision: bfloat16": {"precision": Precision.BFLOAT16},
    }
    changed: dict[str, object] = {}
    used: list[str] = []
    for name, values in ways.items():
        if all(getattr(config, key) == value for key, value in values.items()):
            continue
        changed |= values
        used.append(name)
        if estimate(shape, config.model_copy(update=changed), cluster, sample).fits:
            return f"Use {' and '.join(used)}."
    tight = config.model_copy(update=changed)
    for gpus in sorted({2**power for power in range(13)} | {cluster.gpus}):
        if gpus <= cluster.gpus:
            continue
        if estimate(shape, tight, Cluster(gpus, cluster.memory, cluster.flops, cluster.mfu), sample).fits:
            return f"Use {gpus} GPUs{' with ' + ' and '.join(used) if used else ''}."
    need = estimate(shape, tight, cluster, sample).memory.peak / (1 - SPARE)
    return f"Use GPUs of {need / 2**30:.0f} GiB{' with ' + ' and '.join(used) if used else ''}, or trains: lora."
