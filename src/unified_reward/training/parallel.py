"""A model made ready to train on many ranks: what learns, checkpointed layers, FSDP2, then weights read by range.

The order matters: freeze and add low-rank updates, checkpoint, shard, and only then give memory to what is on meta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from fsdp_utils.context import DistContext
from fsdp_utils.init import DirectoryReader, init_from_files
from fsdp_utils.mesh import make_mesh
from fsdp_utils.precision import mixed_precision, parse_dtype
from fsdp_utils.sharding import ShardingPlan, apply_fsdp, checkpoint_activations, freeze
from unified_reward.config import TrainLoopConfig
from unified_reward.config.stages import Precision, ShardUnits, Trains
from unified_reward.models.families import family_of
from unified_reward.models.vlm import Vlm
from unified_reward.training.logprobs import TokenScorer
from unified_reward.training.lora import add_lora, is_lora, reset_lora
from unified_reward.training.objective import ShardUnit

_READY = "_unified_reward_parallel"


def prepare_vlm(vlm: Vlm, config: TrainLoopConfig, dist: DistContext, *, seed: int = 0) -> TokenScorer:
    """The model as the root of training, in place; weights of a model on meta are read now. Every rank calls it."""
    scorer = TokenScorer(vlm.model)
    choose_trainable(vlm.model, config)

    def load() -> None:
        if vlm.files is not None:
            made = is_lora if config.trains is Trains.LORA else None
            init_from_files(scorer, DirectoryReader(vlm.files), dist.device, model=vlm.model, made=made)
            vlm.files = None
        reset_lora(vlm.model, seed)

    layers = [*scorer.decoder_layers(), *family_of(vlm.model).vision_blocks(vlm.model)]
    parallelise(scorer, units=scorer.decoder_layers(), layers=layers, config=config, dist=dist, load=load)
    return scorer


def choose_trainable(model: nn.Module, config: TrainLoopConfig) -> None:
    """Stop the gradients of what `config.trains` leaves alone; add the low-rank updates. Also on meta."""
    if config.trains is Trains.LANGUAGE:
        prefixes = family_of(model).vision_prefixes()
        freeze(model, lambda name: name.startswith(prefixes))
    elif config.trains is Trains.LORA:
        freeze(model, lambda _: True)
        add_lora(model.model.language_model, config.lora_rank, config.lora_alpha)  # type: ignore[union-attr, arg-type]


def parallelise(
    root: nn.Module,
    *,
    units: Sequence[ShardUnit],
    layers: Sequence[nn.Module],
    config: TrainLoopConfig,
    dist: DistContext,
    load: Callable[[], None] | None = None,
    cast_inputs: bool = True,
) -> None:
    """Make `root` ready in place; a second call does nothing.

    units: gathered apart with `shard_units` blocks. layers: what activation checkpointing computes again in backward.
    load: gives memory and weights, after sharding. cast_inputs: cast float inputs of the units to `config.precision`.
    """
    if getattr(root, _READY, False):
        return
    if config.activation_checkpointing:
        checkpoint_activations(layers)
    if not any(parameter.is_meta for parameter in root.parameters()):
        root.to(dist.device)
    if dist.world_size > 1 or config.precision is not Precision.FLOAT32:  # else there is nothing to gather or to cast
        chosen = units if config.shard_units is ShardUnits.BLOCKS else ()
        mesh = make_mesh(dist.device.type, dist.world_size)
        apply_fsdp(
            root, ShardingPlan(mesh, chosen, mixed_precision(parse_dtype(config.precision), cast_inputs=cast_inputs))
        )
    if load is not None:
        load()
    setattr(root, _READY, True)


def flat(units: Sequence[ShardUnit]) -> list[nn.Module]:
    """The modules of shard units."""
    return [module for unit in units for module in (unit if isinstance(unit, list) else [unit])]
