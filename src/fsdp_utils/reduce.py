"""Sums over ranks: counts before backward, and a step's metrics in one packed all-reduce."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from fsdp_utils.context import DistContext

SumAndCount = tuple[Tensor | float, Tensor | float]


def all_sum(value: float, context: DistContext) -> float:
    """The sum of every rank's `value` (tokens, pairs), in float64."""
    if context.world_size == 1:
        return float(value)
    packed = torch.tensor([value], dtype=torch.float64, device=context.device)
    dist.all_reduce(packed)
    return float(packed.item())


def reduce_metrics(metrics: Mapping[str, SumAndCount], context: DistContext) -> dict[str, float]:
    """{name: global sum / global count}; NaN where no rank counted anything.

    metrics: name -> (sum, count), scalars. Ranks may know different names (one had no pictures): the result has all.
    """
    names = sorted(metrics)
    if context.world_size > 1 and not _same_everywhere(names, context):
        names = sorted({name for theirs in context.gather_objects(names) for name in theirs})
    if not names:
        return {}
    zero: SumAndCount = (0.0, 0.0)
    packed = torch.stack([_scalar(part, context) for name in names for part in metrics.get(name, zero)])
    if context.world_size > 1:
        dist.all_reduce(packed)
    values = packed.tolist()
    return {
        name: total / count if count else float("nan")
        for name, total, count in zip(names, values[::2], values[1::2], strict=True)
    }


def _scalar(value: Tensor | float, context: DistContext) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=context.device).detach().reshape(())


def _same_everywhere(names: list[str], context: DistContext) -> bool:
    digest = zlib.crc32("\n".join(names).encode())
    ends = torch.tensor([digest, -digest], dtype=torch.int64, device=context.device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1])
