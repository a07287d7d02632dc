"""Write a sharded model as the safetensors files that `from_pretrained` reads, gathering one tensor at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fsdp_utils.context import DistContext
from fsdp_utils.huggingface import to_file_names
from fsdp_utils.safetensors_file import header, write_tensor
from fsdp_utils.sharding import reshard
from fsdp_utils.training_state import model_tensors

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def export_huggingface(
    model: nn.Module,
    directory: Path,
    context: DistContext,
    *,
    dtype: torch.dtype | None = None,
    max_file_bytes: int = 5_000_000_000,
    rename: Callable[[str], str] | None = None,
) -> None:
    """Weights and configuration of `model` into `directory`, by rank 0. Every rank calls it.

    model: the Hugging Face model itself, also when it is a child of the sharded root.
    dtype: of floating-point tensors in the files; None keeps each.
    max_file_bytes: start another file (and an index) beyond it.
    rename: parameter name -> name in the files; by default what save_pretrained would write.
    """
    names = (
        to_file_names(model, _tensors(model)) if rename is None else {name: rename(name) for name in _tensors(model)}
    )
    export_safetensors(model, directory, context, names=names, dtype=dtype, max_file_bytes=max_file_bytes)
    if not context.is_main:
        return
    config, generation = getattr(model, "config", None), getattr(model, "generation_config", None)
    if config is not None:
        config.architectures = [type(model).__name__.removeprefix("FSDP")]
        config.save_pretrained(directory)
    if generation is not None:
        generation.save_pretrained(directory)


def export_safetensors(
    model: nn.Module,
    directory: Path,
    context: DistContext,
    *,
    names: dict[str, str],
    dtype: torch.dtype | None = None,
    max_file_bytes: int = 5_000_000_000,
) -> list[Path]:
    """Write the model's parameters (tied ones once) and persistent buffers; returns the files, on every rank.

    names: parameter name -> name in the file. Each file appears under its name only once whole.
    """
    reshard(model)
    tensors = _tensors(model)
    types = {name: _target(tensor, dtype) for name, tensor in tensors.items()}
    parts = list(
        _parts(
            {name: math.prod(tensor.shape) * types[name].itemsize for name, tensor in tensors.items()}, max_file_bytes
        )
    )
    files = [directory / name for name in _file_names(len(parts))]
    if context.is_main:
        directory.mkdir(parents=True, exist_ok=True)
    for path, part in zip(files, parts, strict=True):
        head = header({names[name]: (types[name], tuple(tensors[name].shape)) for name in part})
        whole = (_whole(tensors[name]).to(types[name]) for name in part)
        if context.is_main:
            _write(path, head, whole)
        else:
            for _ in whole:  # take part in the gathering
                pass
    if context.is_main and len(files) > 1:
        places = {names[name]: path.name for path, part in zip(files, parts, strict=True) for name in part}
        total = sum(math.prod(tensor.shape) * types[name].itemsize for name, tensor in tensors.items())
        (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1))
    context.barrier()
    return files


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in model_tensors(model).items()}


def _target(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _whole(tensor: Tensor) -> Tensor:
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def _parts(sizes: dict[str, int], limit: int) -> Iterable[list[str]]:
    part: list[str] = []
    used = 0
    for name, size in sizes.items():
        if part and used + size > limit:
            yield part
            part, used = [], 0
        part.append(name)
        used += size
    if part:
        yield part


def _file_names(count: int) -> list[str]:
    return (
        [SINGLE] if count == 1 else [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    )


def _write(path: Path, head: bytes, tensors: Iterable[Tensor]) -> None:
    arriving = path.with_name(f".{path.name}.{os.getpid()}")
    with arriving.open("wb") as stream:
        stream.write(head)
        for tensor in tensors:
            write_tensor(stream, tensor)
    os.replace(arriving, path)
