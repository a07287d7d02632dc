"""Low-rank updates of linear layers (LoRA, arXiv 2106.09685): y = W x + (alpha / rank) B A x, with W frozen.

The layer keeps its weight under its own name, so loading, sharding and export know nothing of it; `merged` folds the
update into the weight while a checkpoint is written.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

LORA_A, LORA_B = "lora_a", "lora_b"


class LoraLinear(nn.Linear):
    """lora_a: [rank, in]; lora_b: [out, rank], zero at first: training starts from the layer as it was."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scale: float

    def forward(self, x: Tensor) -> Tensor:
        low = nn.functional.linear(nn.functional.linear(x, self.lora_a), self.lora_b)
        return super().forward(x) + self.scale * low


def is_lora(name: str) -> bool:
    """Whether a parameter's dotted name is that of an update."""
    return name.rpartition(".")[2] in (LORA_A, LORA_B)


def add_lora(module: nn.Module, rank: int, alpha: float) -> None:
    """Turn every linear layer below `module` into a LoraLinear, in place, before sharding; call `reset_lora` after it."""
    for layer in list(module.modules()):
        if type(layer) is not nn.Linear:
            continue
        layer.__class__ = LoraLinear
        assert isinstance(layer, LoraLinear)
        layer.lora_a = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        layer.lora_b = nn.Parameter(layer.weight.new_empty(layer.out_features, rank))
        layer.scale = alpha / rank


@torch.no_grad()
def reset_lora(model: nn.Module, seed: int) -> None:
    """First values, the same at any world size: A uniform as a linear layer's weight is, B zero."""
    for name, parameter in model.named_parameters():
        if name.endswith(LORA_B):
            parameter.zero_()
        elif name.endswith(LORA_A):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            bound = 1 / math.sqrt(parameter.shape[1])
            values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            if isinstance(parameter, DTensor):
                mesh, placements = parameter.device_mesh, parameter.placements
                sharded = distribute_tensor(values.to(mesh.device_type), mesh, placements, src_data_rank=None)
                parameter.to_local().copy_(sharded.to_local())
            else:
                parameter.copy_(values)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within: the weights hold the updates, and the updates are no parameters. Parameters must be shards (`reshard`).

    Every rank enters; the sums are as wide as a layer's weight. The weights come back exactly.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLinear)]
    kept: list[tuple[LoraLinear, Tensor, nn.Parameter, nn.Parameter]] = []
    with torch.no_grad():
        for layer in layers:
            low, high = (p.full_tensor() if isinstance(p, DTensor) else p for p in (layer.lora_a, layer.lora_b))
            update = layer.scale * (high.float() @ low.float())
            weight = layer.weight
            if isinstance(weight, DTensor):
                update = distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None).to_local()
                weight = weight.to_local()
            kept.append((layer, weight.clone(), layer.lora_a, layer.lora_b))
            weight += update.to(weight.dtype)
            del layer._parameters[LORA_A], layer._parameters[LORA_B]
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, before, low_, high_ in kept:
                weight = layer.weight
                (weight.to_local() if isinstance(weight, DTensor) else weight).copy_(before)
                layer._parameters[LORA_A], layer._parameters[LORA_B] = low_, high_
