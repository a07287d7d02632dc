"""Shard a model over ranks from outside: the model names no mesh and no process group.

A plan lists units (modules whose parameters travel together). What no unit holds goes to the root's group; a tower that
some ranks do not run in a step must be left there (see ShardingPlan.units).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import checkpoint

Unit = nn.Module | list[nn.Module]


@dataclass(frozen=True)
class ShardingPlan:
    """How to shard one root module.

    units: modules, or lists of modules that form one group; each is gathered and reduced in one collective. Every rank
        must run every unit in every step: leave a vision tower to the root when some ranks may have no pictures.
    reshard_after_forward: free gathered parameters after forward and gather again in backward: memory against
        communication. The root's own group is kept either way.
    cpu_offload: parameters, gradients and optimizer state live in host memory.
    """

    mesh: DeviceMesh
    units: Sequence[Unit] = ()
    precision: MixedPrecisionPolicy = field(default_factory=MixedPrecisionPolicy)
    reshard_after_forward: bool = True
    cpu_offload: bool = False


class ShardingError(ValueError):
    """The plan does not fit the model."""


def apply_fsdp(root: nn.Module, plan: ShardingPlan) -> nn.Module:
    """Shard `root` in place and return it; its parameters become DTensors split on dim 0.

    Gradients come out as sums over ranks, never means: the loss is divided by a global count before backward.
    Parameters a rank did not use in a step count as zero gradients. Freeze, checkpoint and compile before this call.
    Raises ShardingError when a unit is not inside root, appears twice, or splits tied parameters over groups.
    """
    units = [unit if isinstance(unit, list) else [unit] for unit in plan.units]
    _check_units(root, units)
    _check_ties(root, units)
    depth = {id(module): name.count(".") for name, module in root.named_modules() if name}
    units.sort(key=lambda unit: -max(depth[id(module)] for module in unit))
    offload = CPUOffloadPolicy(pin_memory=plan.mesh.device_type == "cuda") if plan.cpu_offload else OffloadPolicy()
    shard = partial(fully_shard, mesh=plan.mesh, mp_policy=plan.precision, offload_policy=offload)
    for unit in units:
        shard(unit if len(unit) > 1 else unit[0], reshard_after_forward=plan.reshard_after_forward)
    shard(root, reshard_after_forward=False)
    for module in fsdp_modules(root):
        # Gloo has no pre-multiplied sum, and NCCL's gives zeros in bfloat16 up to torch 2.13: plain sums everywhere.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    next(iter(fsdp_modules(root))).set_reduce_scatter_unused_params(True)
    return root


def fsdp_modules(root: nn.Module) -> Iterable[FSDPModule]:
    """The sharded modules of `root`, itself first; none when it is not sharded."""
    return (module for module in root.modules() if isinstance(module, FSDPModule))


def reshard(root: nn.Module) -> None:
    """Free gathered parameters, so that `root.parameters()` are shards: needed after a forward without a backward."""
    for module in fsdp_modules(root):
        module.reshard()


def freeze(root: nn.Module, match: Callable[[str], bool]) -> list[str]:
    """Stop gradients of the parameters whose dotted name matches; returns their names. Before apply_fsdp."""
    frozen = [name for name, _ in root.named_parameters() if match(name)]
    for name in frozen:
        root.get_parameter(name).requires_grad_(False)
    return frozen


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Keep only the inputs of each module's forward and run it again in backward. Before compile_blocks and apply_fsdp.

    The forward is replaced, not the module wrapped, so parameter names stay as they are.
    """
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def compile_blocks(modules: Iterable[nn.Module], **options: Any) -> None:
    """torch.compile each module alone: equal blocks share one compilation. After checkpointing, before apply_fsdp."""
    for module in modules:
        module.compile(**options)


def register_forward_methods(module: nn.Module, names: Iterable[str]) -> None:
    """Let these methods of a sharded module (`generate`, say) gather parameters as forward does.

    Raises ShardingError if the module is not sharded itself: the method would see shards as if they were whole.
    """
    for name in names:
        if not isinstance(module, FSDPModule):
            raise ShardingError(
                f"{type(module).__name__}.{name} cannot gather parameters: the module is no sharded unit. "
                "Register the method on the root or on a unit of the plan."
            )
        register_fsdp_forward_method(module, name)


def _check_units(root: nn.Module, units: list[list[nn.Module]]) -> None:
    inside = {id(module): name for name, module in root.named_modules()}
    seen: set[int] = set()
    for module in (module for unit in units for module in unit):
        name = inside.get(id(module))
        if name is None:
            raise ShardingError(
                f"a {type(module).__name__} in units is not part of the root. List modules of the root."
            )
        if name == "":
            raise ShardingError("the root is listed in units: it always forms the last group. Leave it out.")
        if id(module) in seen:
            raise ShardingError(f"{name} is listed twice in units. List it once.")
        seen.add(id(module))


def _check_ties(root: nn.Module, units: list[list[nn.Module]]) -> None:
    """fully_shard silently unties a parameter whose owners fall into different groups; refuse instead."""
    unit_of = {id(module): number for number, unit in enumerate(units) for module in unit}
    first_owner: dict[Tensor, tuple[str, int]] = {}
    for name, group, parameter in _owned_parameters(root, "", -1, unit_of):
        earlier, earlier_group = first_owner.setdefault(parameter, (name, group))
        if earlier_group != group:
            raise ShardingError(
                f"{earlier} and {name} are one tied parameter, but the plan puts them into different groups, "
                "which would untie them. List their modules together as one unit, or leave both to the root."
            )


def _owned_parameters(
    module: nn.Module, prefix: str, group: int, unit_of: dict[int, int]
) -> Iterable[tuple[str, int, nn.Parameter]]:
    group = unit_of.get(id(module), group)
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        yield f"{prefix}{name}", group, parameter
    for name, child in module.named_children():
        yield from _owned_parameters(child, f"{prefix}{name}.", group, unit_of)
