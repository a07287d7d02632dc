from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unified_reward.training.sampler import ElasticSampler, SamplerState, permute, share_out

sizes = st.integers(1, 300)
seeds = st.integers(-(2**63), 2**63 - 1)


@given(size=sizes, seed=seeds, epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    ids = permute(np.arange(size), size, seed=seed, epoch=epoch)
    assert sorted(ids.tolist()) == list(range(size))


@given(size=sizes, batch=st.integers(1, 50), seed=seeds, epochs=st.integers(1, 3))
@settings(max_examples=50)
def test_each_example_once_per_epoch_whatever_the_batch(size: int, batch: int, seed: int, epochs: int) -> None:
    sampler = ElasticSampler(size, batch, seed=seed)
    stream: list[int] = []
    while len(stream) < epochs * size:
        stream += sampler.next_batch().tolist()
    for epoch in range(epochs):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(
    size=sizes,
    batch=st.integers(4, 40),
    seed=seeds,
    before=st.integers(0, 20),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=50)
def test_resume_at_another_world_size_continues_the_plan(
    size: int, batch: int, seed: int, before: int, worlds: tuple[int, int]
) -> None:
    costs = [float(i % 7) for i in range(size)]

    def steps(sampler: ElasticSampler, count: int, world: int) -> list[list[int]]:
        taken = []
        for _ in range(count):
            ids = sampler.next_batch()
            shares = share_out(ids, [costs[i] for i in ids], world)
            taken.append(sorted(i for share in shares for i in share))
        return taken

    whole = steps(ElasticSampler(size, batch, seed=seed), before + 5, 1)
    first = ElasticSampler(size, batch, seed=seed)
    head = steps(first, before, worlds[0])
    second = ElasticSampler(size, batch, seed=seed)
    second.load_state_dict(first.state_dict())
    assert head + steps(second, 5, worlds[1]) == whole


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(permute(np.arange(50), 50, seed=s, epoch=e).tolist()) for s in range(5) for e in range(5)}
    assert len(orders) == 25


def test_positions_are_spread_evenly() -> None:
    """Over many epochs, example 0 is as often in each third of the epoch (chi-square, 2 degrees, p = 0.001)."""
    size, epochs = 30, 600
    where = [int(np.flatnonzero(permute(np.arange(size), size, seed=7, epoch=e) == 0)[0]) for e in range(epochs)]
    counts = np.bincount(np.array(where) // 10, minlength=3)
    assert ((counts - epochs / 3) ** 2 / (epochs / 3)).sum() < 13.8


def test_memory_does_not_grow_with_the_dataset() -> None:
    ids = permute(np.arange(1000), 2**40 + 3, seed=1, epoch=0)
    assert len(set(ids.tolist())) == 1000
    assert ids.max() > 2**38


@given(costs=st.lists(st.integers(1, 100), min_size=1, max_size=64), world=st.integers(1, 8))
def test_shares_are_a_partition_of_even_counts(costs: list[int], world: int) -> None:
    ids = list(range(100, 100 + len(costs)))
    if len(ids) < world:
        with pytest.raises(ValueError, match="cannot be dealt"):
            share_out(ids, costs, world)
        return
    shares = share_out(ids, costs, world)
    assert sorted(i for share in shares for i in share) == ids
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    work = [sum(costs[i - 100] for i in share) for share in shares]
    assert max(work) - min(work) <= max(costs)


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ElasticSampler(10, 2, seed=0).restore(SamplerState(seed=1, epoch=0, samples_consumed=0))
    with pytest.raises(ValueError, match="does not fit"):
        ElasticSampler(10, 2, seed=0).restore(SamplerState(seed=0, epoch=0, samples_consumed=10))
