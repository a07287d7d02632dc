"""The order of training examples as arithmetic: any position of any epoch without a list, at any world size.

An epoch is a keyed permutation of 0..size-1 (a Feistel network walked along its cycles, O(1) memory). Epochs follow
each other without a gap; global step s takes positions [s*B, (s+1)*B) of that stream, and ranks share those ids out
among themselves. The plan never depends on ranks or workers, so the state is three integers and every epoch holds each
example once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

ROUNDS = 6  # four make a Feistel network pseudo-random; two more for the tiny domains of tests and demos


@dataclass(frozen=True)
class SamplerState:
    """Where the stream stands. samples_consumed counts within `epoch`: 0 <= samples_consumed < size."""

    seed: int
    epoch: int
    samples_consumed: int


class ElasticSampler:
    """Yields the ids of one global batch after the other; `state` resumes it with any number of ranks.

    size: number of examples, >= 1. global_batch: examples of one optimizer step over all ranks, >= 1 (may exceed size).
    Raises ValueError if a size is not positive or a loaded state belongs to another seed or size.
    """

    def __init__(self, size: int, global_batch: int, *, seed: int) -> None:
        if size < 1 or global_batch < 1:
            raise ValueError(f"size and global_batch must be at least 1, got {size} and {global_batch}")
        self.size, self.global_batch, self.seed = size, global_batch, seed
        self._position = 0

    @property
    def state(self) -> SamplerState:
        epoch, consumed = divmod(self._position, self.size)
        return SamplerState(self.seed, epoch, consumed)

    def restore(self, state: SamplerState) -> None:
        if state.seed != self.seed or not 0 <= state.samples_consumed < self.size or state.epoch < 0:
            raise ValueError(f"{state} does not fit a sampler of {self.size} examples with seed {self.seed}")
        self._position = state.epoch * self.size + state.samples_consumed

    def state_dict(self) -> dict[str, int]:
        return asdict(self.state)

    def load_state_dict(self, values: dict[str, int]) -> None:
        self.restore(SamplerState(**values))

    def next_batch(self) -> Indices:
        """The ids of the next global batch, [global_batch] int64, in the order of the plan."""
        ids = self.peek(self._position, self.global_batch)
        self._position += self.global_batch
        return ids

    def advance(self, batches: int) -> None:
        """Skip this many global batches."""
        self._position += batches * self.global_batch

    def peek(self, position: int, count: int) -> Indices:
        """The ids at stream positions [position, position + count), [count] int64."""
        stream = np.arange(position, position + count, dtype=np.int64)
        ids = np.empty(count, dtype=np.int64)
        epochs = stream // self.size
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ids[here] = permute(stream[here] % self.size, self.size, seed=self.seed, epoch=int(epoch))
        return ids


def permute(positions: Indices, size: int, *, seed: int, epoch: int) -> Indices:
    """Where a permutation of 0..size-1, keyed by (seed, epoch), sends each position; [N] int64 in and out.

    A balanced Feistel network over the smallest 4**k >= size permutes a power of two; values that fall outside are sent
    through again until they land inside (cycle walking), which keeps it a bijection. Less than 4 walks on average.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    values = _feistel(positions.astype(np.uint64), half_bits, keys)
    outside = values >= size
    while outside.any():
        values[outside] = _feistel(values[outside], half_bits, keys)
        outside = values >= size
    return values.astype(np.int64)


def _round_keys(seed: int, epoch: int) -> _Words:
    sequence = np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF, epoch])
    return np.asarray(sequence.generate_state(ROUNDS, np.uint64), dtype=np.uint64)


def _feistel(values: _Words, half_bits: int, keys: _Words) -> _Words:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return np.asarray((left << shift) | right, dtype=np.uint64)


def _mix(words: _Words) -> _Words:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit. Wraps modulo 2**64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)), dtype=np.uint64)


def share_out(ids: Sequence[int] | Indices, costs: Sequence[float], world_size: int) -> list[list[int]]:
    """Deal a global batch to ranks: counts that differ by at most one, and work as even as dealing allows.

    costs: work of each id, any unit (tokens). The costliest go first, one to each rank, back and forth (snake order),
    so that both the sum and the longest row, which sets the padding, are alike on all ranks. Pure: all ranks compute
    the same.
    Raises ValueError when there are fewer ids than ranks.
    """
    if len(ids) < world_size:
        raise ValueError(f"{len(ids)} examples cannot be dealt to {world_size} ranks")
    order = sorted(range(len(ids)), key=lambda i: (-costs[i], i))
    shares: list[list[int]] = [[] for _ in range(world_size)]
    for turn, position in enumerate(order):
        lap, seat = divmod(turn, world_size)
        shares[seat if lap % 2 == 0 else world_size - 1 - seat].append(int(ids[position]))
    return shares
