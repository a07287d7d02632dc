"""A model and its optimizers as a flat {name: tensor}, and back. Names are the parameters' own, so any world size fits.

Only the optimizer state that exists is listed; what torch calls hyperparameters is JSON beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

Hyperparameters = list[list[dict[str, Any]]]  # by optimizer, by parameter group


def model_tensors(root: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once, under their first name) and persistent buffers, sharing the model's memory."""
    found = {f"model.{name}": parameter.detach() for name, parameter in root.named_parameters()}
    for prefix, module in root.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                found[f"model.{prefix}.{name}" if prefix else f"model.{name}"] = buffer
    return found


def optimizer_tensors(root: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """`optimizer.<number>.<parameter>.<state>` -> tensor, for state that a step has made."""
    found = {}
    for number, optimizer in enumerate(optimizers):
        for name, parameter in _named(root, optimizer):
            for key, value in optimizer.state.get(parameter, {}).items():
                if not isinstance(value, Tensor):
                    raise TypeError(
                        f"state {key} of {name} is a {type(value).__name__}: only tensors are checkpointed."
                    )
                found[f"optimizer.{number}.{name}.{key}"] = value
    return found


def hyperparameters(optimizers: Sequence[Optimizer]) -> Hyperparameters:
    """Learning rates and the like, as JSON values."""
    return [
        [
            {key: _plain(value) for key, value in group.items() if key not in ("params", "param_names")}
            for group in o.param_groups
        ]
        for o in optimizers
    ]


def empty_optimizer_tensors(
    root: nn.Module, optimizers: Sequence[Optimizer], stored: Mapping[str, tuple[torch.Size, torch.dtype]]
) -> dict[str, Tensor]:
    """Memory for the stored optimizer state of this run's parameters, placed as they are.

    stored: name -> (full shape, dtype) of everything in the checkpoint.
    """
    made = {}
    for number, optimizer in enumerate(optimizers):
        for name, parameter in _named(root, optimizer):
            prefix = f"optimizer.{number}.{name}."
            for full_name, (shape, dtype) in stored.items():
                if not full_name.startswith(prefix) or "." in full_name[len(prefix) :]:
                    continue
                like_parameter = shape == parameter.shape
                made[full_name] = (
                    torch.zeros_like(parameter.detach(), dtype=dtype)
                    if like_parameter
                    else torch.zeros(shape, dtype=dtype)
                )
    return made


def restore_optimizers(
    root: nn.Module, optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor], hyper: Hyperparameters
) -> None:
    """Give each optimizer the loaded state and hyperparameters; their groups must be the stored ones."""
    for number, (optimizer, groups) in enumerate(zip(optimizers, hyper, strict=True)):
        state: dict[int, dict[str, Tensor]] = {}
        for index, (name, _) in enumerate(_named(root, optimizer)):
            prefix = f"optimizer.{number}.{name}."
            found = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if found:
                state[index] = {key: value for key, value in found.items() if "." not in key}
        current = optimizer.state_dict()["param_groups"]
        merged = [
            {**now, **{key: tuple(value) if isinstance(now.get(key), tuple) else value for key, value in then.items()}}
            for now, then in zip(current, groups, strict=True)
        ]
        optimizer.load_state_dict({"state": state, "param_groups": merged})


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory that training no longer changes; DTensors stay DTensors, with the same global place."""
    return {name: _copy(tensor) for name, tensor in tensors.items()}


def _copy(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.detach().to("cpu", copy=True)
    # DTensor.from_local would move the copy back to the mesh's device.
    return DTensor(tensor.to_local().detach().to("cpu", copy=True), tensor._spec, requires_grad=False)  # type: ignore[no-untyped-call]


def _named(root: nn.Module, optimizer: Optimizer) -> list[tuple[str, Tensor]]:
    """The optimizer's parameters in its own order, with their names in root."""
    names = {id(parameter): name for name, parameter in root.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    missing = [tuple(parameter.shape) for parameter in parameters if id(parameter) not in names]
    if missing:
        raise ValueError(
            f"the optimizer holds parameters of shapes {missing[:3]} that are not in the model. Make it after sharding."
        )
    return [(names[id(parameter)], parameter) for parameter in parameters]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else list(value) if isinstance(value, tuple) else value
