"""The norm of all gradients over all ranks, and clipping by it: one all-reduce however many parameters there are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

Groups = tuple[dist.ProcessGroup, ...]


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients in place so that their global L2 norm is at most `max_norm`; returns the norm before clipping.

    max_norm: inf measures only.
    Returns a scalar float32 tensor on the gradients' device, equal on every rank; no host sync.
    A norm that is not finite makes every gradient so: check it before the optimizer step.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), dtype=torch.float32)
    by_groups: dict[Groups, list[Tensor]] = {}
    for gradient in gradients:
        groups, local = _shard(gradient)
        by_groups.setdefault(groups, []).append(local)
    total = torch.zeros((), dtype=torch.float32, device=next(iter(by_groups.values()))[0].device)
    for groups, locals_ in by_groups.items():
        norms = torch._foreach_norm(locals_, 2, dtype=torch.float32)
        squared = torch.stack(norms).square().sum()
        for group in groups:
            dist.all_reduce(squared, group=group)
        total += squared.to(total.device)
    norm = total.sqrt()
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for locals_ in by_groups.values():
        torch._foreach_mul_(locals_, scale.to(locals_[0].device))
    return norm


def _shard(gradient: Tensor) -> tuple[Groups, Tensor]:
    """The groups over which this gradient is split (its squares add up over them), and this rank's piece."""
    if not isinstance(gradient, DTensor):
        return (), gradient
    groups = []
    for dim, placement in enumerate(gradient.placements):
        if placement.is_partial():
            raise ValueError(
                "a gradient is not reduced yet (Partial placement). Clip after the last backward of the step."
            )
        if isinstance(placement, Shard) and gradient.device_mesh.size(dim) > 1:
            groups.append(gradient.device_mesh.get_group(dim))
    return tuple(groups), gradient.to_local()
