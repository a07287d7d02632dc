from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fsdp_utils.muon import Muon, assign_owners, newton_schulz, split_params

SHAPES = [(8, 8), (8, 8), (5, 12), (12, 5), (1, 7)]


@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_torch_on_plain_tensors(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "nesterov": nesterov}
    mine, reference = Muon(ours, **options), torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(6):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        mine.step()
        reference.step()
    assert max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True)) < 1e-5


def test_parameters_without_gradients_stay() -> None:
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([used, unused], lr=0.1)
    used.grad = torch.eye(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3, 3))
    assert not torch.equal(used, torch.ones(3, 3))


def test_newton_schulz_brings_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 48, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(newton_schulz(matrices))
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="AdamW"):
        Muon([nn.Parameter(torch.ones(3))])


@given(st.lists(st.floats(1, 1e6), max_size=40), st.integers(1, 9))
def test_no_rank_has_more_than_the_mean_and_one_matrix(costs: list[float], ranks: int) -> None:
    owners = assign_owners(costs, ranks)
    load = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(ranks)]
    assert all(0 <= owner < ranks for owner in owners)
    assert max(load) <= sum(costs) / ranks + max(costs, default=0) + 1e-3


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.norm = nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.conv, self.frozen, self.head = nn.Conv2d(1, 1, 2), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.frozen.requires_grad_(False)

    def get_output_embeddings(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize("tied", [True, False])
def test_only_hidden_matrices_are_muons(tied: bool) -> None:
    model = Tiny()
    if tied:
        model.head.weight = model.embed.weight
    muon, rest = split_params(nn.Sequential(model))
    assert set(muon) == {"0.hidden.weight"}
    assert split_params(model, exclude=[model.hidden])[0] == {}
    expected = {"embed.weight", "hidden.bias", "norm.weight", "norm.bias", "conv.weight", "conv.bias"}
    assert set(rest) == {f"0.{name}" for name in expected | (set() if tied else {"head.weight"})}
