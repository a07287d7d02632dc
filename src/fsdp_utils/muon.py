"""Muon for sharded matrices: each rank orthogonalises its share of them; two all-to-alls carry them there and back.

Same numbers as torch.optim.Muon. Momentum stays sharded as the parameters are; only the update, in the 16 bits the
iteration works in anyway, travels to the matrix's owner and returns as rows.
Source: kellerjordan.github.io/posts/muon; step size: arXiv 2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
EPSILON = 1e-7


class Muon(Optimizer):
    """Muon over 2-D parameters, plain or DTensors split on dim 0.

    lr: step size, matched to AdamW's (an update's RMS is 0.2 lr). weight_decay: decoupled.
    momentum: of the gradient's running mean.
    iteration_dtype: of Newton-Schulz; bfloat16 equals torch.optim.Muon.
    Every rank must have gradients for the same parameters. With replicated copies (HSDP) each copy does the whole work.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        iteration_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError(f"lr {lr}, momentum {momentum}, weight_decay {weight_decay}: want >= 0, in [0, 1), >= 0.")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps,
        }  # fmt: skip
        super().__init__(params, defaults)
        self._iteration_dtype = iteration_dtype
        self._plans: dict[tuple[int, ...], list[_Exchange]] = {}
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            _check(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            self._step_group(number, group)
        return loss

    def _step_group(self, number: int, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        gradients = [_local(parameter.grad) for parameter in parameters]
        buffers = [_local(self.state[parameter]["momentum_buffer"]) for parameter in parameters]
        momentum = group["momentum"]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = list(torch._foreach_lerp(gradients, buffers, momentum)) if group["nesterov"] else buffers
        updates = [update.to(self._iteration_dtype) for update in updates]

        key = (number, *map(id, parameters))
        if key not in self._plans:
            self._plans[key] = _exchanges(parameters)
        for exchange in self._plans[key]:
            exchange.orthogonalise(updates, group["ns_steps"])

        lr = float(group["lr"])
        locals_ = [_local(parameter) for parameter in parameters]
        torch._foreach_mul_(locals_, 1 - lr * group["weight_decay"])
        for parameter, local, update in zip(parameters, locals_, updates, strict=True):
            local.add_(update, alpha=-lr * 0.2 * math.sqrt(max(parameter.shape)))


def split_params(
    module: nn.Module, exclude: Collection[nn.Module] = ()
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(matrices for Muon, the rest for AdamW), name -> trainable parameter; works before and after sharding.

    Muon's are the weights of nn.Linear inside the network; embeddings, output heads (what `get_output_embeddings`
    returns, or shares its weight with an embedding), norms, biases and convolutions are AdamW's.
    exclude: more linear layers for AdamW, such as the last one of a diffusion model.
    """
    lookups: list[Any] = [getattr(m, "get_output_embeddings", None) for m in module.modules()]
    heads = [lookup() for lookup in lookups if callable(lookup)]
    outer: set[int] = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    outer |= {id(head.weight) for head in heads if head is not None}
    outer |= {id(parameter) for layer in exclude for parameter in layer.parameters()}
    hidden = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)} - outer
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    muon = {name: parameter for name, parameter in named.items() if id(parameter) in hidden and parameter.ndim == 2}
    return muon, {name: parameter for name, parameter in named.items() if name not in muon}


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix to each, roughly (singular values in about 0.5 to 1.5).

    matrices: [N, rows, columns]; the dtype is the iteration's. Returns the same shape and dtype.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def assign_owners(costs: Sequence[float], ranks: int) -> list[int]:
    """The rank that works on each matrix: largest first, each to the rank with least so far. The same on every rank."""
    load = [0.0] * ranks
    owners = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        owners[index] = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[owners[index]] += costs[index]
    return owners


@dataclass(frozen=True)
class _Exchange:
    """The matrices that share one process group (None: each rank holds them whole), and who owns which."""

    group: dist.ProcessGroup | None
    indices: list[int]  # into the step's list of parameters
    shapes: list[torch.Size]  # full shapes
    owners: list[int]

    def orthogonalise(self, updates: list[Tensor], steps: int) -> None:
        """Replace this rank's shard of each update by its shard of the orthogonalised update."""
        if self.group is None:
            results = _by_shape([updates[index] for index in self.indices], steps)
        else:
            results = self._exchange([updates[index] for index in self.indices], steps)
        for index, result in zip(self.indices, results, strict=True):
            updates[index] = result

    def _exchange(self, shards: list[Tensor], steps: int) -> list[Tensor]:
        assert self.group is not None
        ranks, me = self.group.size(), self.group.rank()
        order = sorted(range(len(shards)), key=lambda index: self.owners[index])  # stable: grouped by owner
        mine = [index for index in order if self.owners[index] == me]
        rows = [[_rows(shape, ranks, rank) for shape in self.shapes] for rank in range(ranks)]
        columns = [shape[1] for shape in self.shapes]
        to_owner = [
            sum(rows[me][index] * columns[index] for index in order if self.owners[index] == owner)
            for owner in range(ranks)
        ]
        from_rank = [sum(rows[rank][index] * columns[index] for index in mine) for rank in range(ranks)]

        received = _all_to_all(
            torch.cat([shards[index].reshape(-1) for index in order]), to_owner, from_rank, self.group
        )
        pieces = [
            dict(zip(mine, _unpack(part, [(rows[rank][index], columns[index]) for index in mine]), strict=True))
            for rank, part in enumerate(torch.split(received, from_rank))
        ]
        whole = _by_shape([torch.cat([pieces[rank][index] for rank in range(ranks)]) for index in mine], steps)
        heights = [[rows[rank][index] for rank in range(ranks)] for index in mine]
        cut = [torch.split(matrix, height) for matrix, height in zip(whole, heights, strict=True)]
        outgoing = [part[rank].reshape(-1) for rank in range(ranks) for part in cut]
        flat = torch.cat(outgoing) if outgoing else received.new_empty(0)
        returned = _all_to_all(flat, from_rank, to_owner, self.group)
        unpacked = _unpack(returned, [(rows[me][index], columns[index]) for index in order])
        by_index = dict(zip(order, unpacked, strict=True))
        return [by_index[index] for index in range(len(shards))]


def _exchanges(parameters: Sequence[Tensor]) -> list[_Exchange]:
    groups: dict[dist.ProcessGroup | None, list[int]] = {}
    for index, parameter in enumerate(parameters):
        groups.setdefault(_shard_group(parameter), []).append(index)
    plans = []
    for group, indices in groups.items():
        shapes = [parameters[index].shape for index in indices]
        costs = [float(shape[0] * shape[1] * min(shape)) for shape in shapes]
        plans.append(_Exchange(group, indices, shapes, assign_owners(costs, group.size() if group else 1)))
    return plans


def _shard_group(parameter: Tensor) -> dist.ProcessGroup | None:
    if not isinstance(parameter, DTensor):
        return None
    for dim, placement in enumerate(parameter.placements):
        if isinstance(placement, Shard) and parameter.device_mesh.size(dim) > 1:
            return parameter.device_mesh.get_group(dim)
    return None


def _check(parameter: Tensor) -> None:
    if parameter.ndim != 2:
        raise ValueError(
            f"Muon got a parameter of shape {tuple(parameter.shape)}: it takes matrices. Give others to AdamW."
        )
    if not isinstance(parameter, DTensor):
        return
    split = [p for p in parameter.placements if not isinstance(p, Replicate)]
    if len(split) > 1 or any(not (isinstance(p, Shard) and p.dim == 0) for p in split):
        raise ValueError(f"Muon got a parameter placed {parameter.placements}: it takes one split, on dim 0.")


def _by_shape(matrices: list[Tensor], steps: int) -> list[Tensor]:
    """Newton-Schulz on each, stacked by shape: one batched product costs less than many small ones."""
    shapes: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(index)
    results: dict[int, Tensor] = {}
    for indices in shapes.values():
        results.update(zip(indices, newton_schulz(torch.stack([matrices[i] for i in indices]), steps), strict=True))
    return [results[index] for index in range(len(matrices))]


def _rows(shape: torch.Size, ranks: int, rank: int) -> int:
    """Rows of a matrix that a rank holds: torch.chunk's rule, as DTensor's Shard(0) has it."""
    chunk = -(-shape[0] // ranks)
    return max(0, min(chunk, shape[0] - rank * chunk))


def _unpack(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = torch.split(flat, [rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _all_to_all(flat: Tensor, sizes_out: list[int], sizes_in: list[int], group: dist.ProcessGroup) -> Tensor:
    received = flat.new_empty(sum(sizes_in))
    dist.all_to_all_single(received, flat, output_split_sizes=sizes_in, input_split_sizes=sizes_out, group=group)
    return received


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
