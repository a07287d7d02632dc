"""How a Hugging Face model's parameters are called in its files: often not as in the modules of today."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

Rename = Callable[[str], str]


def to_model_names(model: nn.Module) -> Rename:
    """File name -> parameter name, by the model's own conversion mapping; the identity for a model without one.

    The returned function raises ValueError for a tensor that the mapping transforms, not only renames (fused experts).
    """
    transforms = _transforms(model)
    if not transforms:
        return lambda name: name
    from transformers.core_model_loading import WeightRenaming, apply_converters, apply_renamings

    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if not isinstance(transform, WeightRenaming)]

    def rename(name: str) -> str:
        renamed: str = apply_renamings(name, renamings)
        if apply_converters(renamed, converters)[1] is not None:
            raise ValueError(
                f"{name} is transformed while loading, which ranged loading cannot do. "
                "Load this model with from_pretrained."
            )
        return renamed

    return rename


def to_file_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Parameter name -> the name save_pretrained gives it. Raises ValueError where saving would transform a tensor."""
    wanted = list(names)
    if not _transforms(model):
        return {name: name for name in wanted}
    from transformers.core_model_loading import revert_weight_conversion

    # A distinct empty tensor stands for each parameter; where it comes out tells the new name.
    stand_ins = {name: torch.empty(0) for name in wanted}
    with _own_classes(model):
        reverted: dict[str, Any] = revert_weight_conversion(model, dict(stand_ins))
    found = {id(value): name for name, value in reverted.items()}
    lost = [name for name, value in stand_ins.items() if id(value) not in found]
    if lost or len(reverted) != len(wanted):
        raise ValueError(
            f"{(lost or wanted)[0]} is transformed while saving, which streamed export cannot do. Use save_pretrained."
        )
    return {name: found[id(value)] for name, value in stand_ins.items()}


def _transforms(model: nn.Module) -> list[Any]:
    if not hasattr(model, "save_pretrained"):
        return []
    try:
        from transformers import PreTrainedModel
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        return []
    if not isinstance(model, PreTrainedModel):
        return []
    with _own_classes(model):
        return list(get_model_conversion_mapping(model))


@contextmanager
def _own_classes(model: nn.Module) -> Iterator[None]:
    """Sharding gives a module the class FSDP<Name>; transformers looks conversions up by class name."""
    sharded = [(module, type(module)) for module in model.modules() if isinstance(module, FSDPModule)]
    try:
        for module, kind in sharded:
            module.__class__ = kind.__mro__[FSDPModule._orig_cls_mro_index]
        yield
    finally:
        for module, kind in sharded:
            module.__class__ = kind


def reset_unloaded(model: nn.Module, loaded: Iterable[Tensor]) -> None:
    """Let transformers' models inside `model` set what no file holds (rotary frequencies), and not touch `loaded`."""
    if not any(hasattr(module, "initialize_weights") for module in model.modules()):
        return
    for tensor in loaded:
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]
    done: list[nn.Module] = []
    for module in model.modules():
        initialise: Callable[[], None] | None = getattr(module, "initialize_weights", None)
        if initialise is None or any(module in outer.modules() for outer in done):
            continue
        initialise()
        done.append(module)
