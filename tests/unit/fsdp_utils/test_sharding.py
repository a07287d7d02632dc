from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from fsdp_utils.context import DistContext
from fsdp_utils.mesh import make_mesh
from fsdp_utils.sharding import (
    ShardingError,
    ShardingPlan,
    apply_fsdp,
    checkpoint_activations,
    compile_blocks,
    freeze,
    register_forward_methods,
    reshard,
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.block(self.embed(ids))))
        return logits


@pytest.mark.parametrize("units", ["embed", "head", "both"])
def test_tied_parameters_in_two_groups_are_refused(context: DistContext, units: str) -> None:
    model = Tied()
    listed = {"embed": [model.embed], "head": [model.head], "both": [model.embed, model.head]}[units]
    with pytest.raises(
        ShardingError, match=r"embed\.weight and head\.weight are one tied parameter.*together as one unit"
    ):
        apply_fsdp(model, ShardingPlan(make_mesh("cpu", context.world_size), listed))
    assert not isinstance(model.block.weight, DTensor)  # nothing was sharded


@pytest.mark.parametrize("together", [True, False])
def test_tied_parameters_in_one_group_stay_one(context: DistContext, together: bool) -> None:
    model = Tied()
    units = [model.block, [model.embed, model.head]] if together else [model.block]
    apply_fsdp(model, ShardingPlan(make_mesh("cpu", context.world_size), units))
    model(torch.tensor([1, 2])).sum().backward()
    reshard(model)
    assert model.head.weight is model.embed.weight
    assert len(list(model.parameters())) == 3


def test_units_must_be_parts_of_the_root_named_once(context: DistContext) -> None:
    model, mesh = Tied(), make_mesh("cpu", context.world_size)
    for units, message in (
        ([nn.Linear(2, 2)], "not part of the root"), ([model], "the root is listed"), ([model.block, model.block], "listed twice"),
    ):  # fmt: skip
        with pytest.raises(ShardingError, match=message):
            apply_fsdp(model, ShardingPlan(mesh, units))


def test_inner_units_may_be_listed_after_outer_ones(context: DistContext) -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    root = nn.Sequential(inner, nn.Linear(2, 2))
    apply_fsdp(root, ShardingPlan(make_mesh("cpu", context.world_size), [inner, inner[0], inner[1]]))
    root(torch.ones(1, 2)).sum().backward()
    assert all(isinstance(parameter.grad, DTensor) for parameter in root.parameters())


def test_methods_of_modules_that_are_no_units_are_refused() -> None:
    with pytest.raises(ShardingError, match="no sharded unit"):
        register_forward_methods(Tied(), ["forward"])


def test_freeze_names_what_it_froze() -> None:
    model = Tied()
    assert freeze(model, lambda name: name.startswith("block")) == ["block.weight", "block.bias"]
    assert model.embed.weight.requires_grad
    assert not model.block.weight.requires_grad


@pytest.mark.parametrize("compiled", [False, True])
def test_checkpointed_and_compiled_blocks_give_the_same_gradients(context: DistContext, compiled: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    model = copy.deepcopy(plain)
    checkpoint_activations([model[1]])
    if compiled:
        compile_blocks([model[1]], backend="eager")
    apply_fsdp(model, ShardingPlan(make_mesh("cpu", context.world_size), [model[1]]))
    inputs = torch.randn(3, 4)
    for module in (plain, model):
        module(inputs).square().sum().backward()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for left, right in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(left.grad, right.grad.to_local())  # type: ignore[arg-type,union-attr]
