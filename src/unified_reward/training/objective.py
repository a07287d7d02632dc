"""What the training loop asks of an objective; the loop knows neither models nor data.

batch(ids) -> this rank's tensors     normaliser(batch) -> its count      loss(batch) -> the sum to divide by all counts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Batch = dict[str, Tensor]
ShardUnit = nn.Module | list[nn.Module]


@dataclass(frozen=True)
class LossSum:
    """total: scalar with gradient, summed over this rank's batch, never averaged.

    metrics: name -> (sum, count), scalars without gradient; the loop adds them over steps and ranks and divides once.
    """

    total: Tensor
    metrics: dict[str, tuple[Tensor | float, Tensor | float]] = field(default_factory=dict)


class Objective(Protocol):
    """root: what is sharded and trained. `loss` must run the model through root(...), or its shards are not gathered."""

    @property
    def root(self) -> nn.Module: ...

    def shard_units(self) -> Sequence[ShardUnit]:
        """Modules that form communication groups of their own; the rest is the root's group."""

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:
        """This rank's share of a step, on the CPU. Called from a thread, ahead of time.

        seed: the same on all ranks in a step. Draw what an example needs from (seed, its index), so that the numbers do
        not depend on which rank holds it.
        """

    def normaliser(self, batch: Batch) -> float:
        """This rank's count (weighted target tokens, pairs): losses are divided by its sum over ranks."""

    def loss(self, batch: Batch) -> LossSum:
        """The batch's loss, summed."""


@runtime_checkable
class Costed(Protocol):
    """An objective that knows, cheaply, how much work an example is; ranks then get even shares."""

    def cost(self, index: int) -> float:
        """Work of example `index`, any unit (tokens)."""
