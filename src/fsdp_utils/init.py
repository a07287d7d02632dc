"""Fill a sharded model, built without memory, from safetensors files: each rank reads only the bytes of its own shards.

with torch.device("meta"):
    model = Model(config)
apply_fsdp(model, plan)
init_from_files(model, DirectoryReader(path), device)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from fsdp_utils.export import INDEX, SINGLE
from fsdp_utils.huggingface import Rename, reset_unloaded, to_model_names
from fsdp_utils.safetensors_file import Entry, header_length, parse_header


class Reader(Protocol):
    """Files of one model, read by byte range: a directory, or a prefix in an object store."""

    def size(self, name: str) -> int | None:
        """Bytes of the file, None when there is no such file."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of the file."""


class DirectoryReader:
    """Reader over a local directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def size(self, name: str) -> int | None:
        path = self.directory / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, start: int, stop: int) -> bytes:
        with (self.directory / name).open("rb") as stream:
            return os.pread(stream.fileno(), stop - start, start)


@dataclass(frozen=True)
class Loaded:
    """bytes_read: of tensors, by this rank. unexpected: names in the files that the model has no use for."""

    bytes_read: int
    unexpected: list[str]


class InitError(ValueError):
    """The files and the model do not fit, or a buffer would stay without a value."""


def init_from_files(
    root: nn.Module,
    reader: Reader,
    device: torch.device,
    *,
    model: nn.Module | None = None,
    rename: Rename | None = None,
    remake: Callable[[nn.Module], None] | None = None,
    made: Callable[[str], bool] | None = None,
) -> Loaded:
    """Give memory on `device` to what is on meta, load every parameter, and make non-persistent buffers again.

    root: the sharded root, or a plain module. model: the part that the files are of, by default root itself.
    rename: name in the files -> parameter name; by default the model's own (transformers') mapping.
    remake: sets buffers that no file holds; needed for models other than transformers', which make their own again.
    made: parameters, by name, that are in no file; they get memory, and the caller gives them values.
    Stored numbers are converted to the parameter's dtype. Collectives are not used.
    Raises InitError when a parameter is in no file, shapes differ, or a buffer got no value.
    """
    model = root if model is None else model
    unset = _materialise(root, device)
    tied = {name: [name] for name, _ in model.named_parameters()}
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in tied:
            tied[first[id(parameter)]].append(name)
    _check_covered(root, model)

    entries = _entries(reader, rename or to_model_names(model))
    targets: dict[str, Tensor] = {**dict(model.named_parameters()), **_persistent_buffers(model)}
    read = 0
    for name, tensor in targets.items():
        if made is not None and made(name):
            continue
        found = next((entries[alias] for alias in tied.get(name, [name]) if alias in entries), None)
        if found is None:
            raise InitError(f"{name} is in none of the files {sorted({file for file, _ in entries.values()})}.")
        read += _load(name, tensor, *found, reader)
    reset_unloaded(model, targets.values())
    if remake is not None:
        remake(root)
    _check_set(unset)
    known = {alias for aliases in tied.values() for alias in aliases} | set(targets)
    return Loaded(read, sorted(set(entries) - known))


def _materialise(root: nn.Module, device: torch.device) -> dict[str, tuple[nn.Module, str]]:
    """Memory for everything on meta; returns the non-persistent buffers that were there, marked as unset."""
    unset = {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in root.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_meta and name in module._non_persistent_buffers_set
    }
    if any(tensor.is_meta for tensor in (*root.parameters(), *root.buffers())):
        with _same_objects():
            root.to_empty(device=device)
    for module, name in unset.values():
        buffer = module.get_buffer(name)
        buffer.fill_(_sentinel(buffer.dtype))
    return unset


@contextmanager
def _same_objects() -> Iterator[None]:
    """Let to_empty keep parameter objects: by default it makes a new one per module, which unties tied parameters."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _sentinel(dtype: torch.dtype) -> float | int | bool:
    if dtype == torch.bool:
        return True
    return math.nan if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype).max


def _check_set(unset: dict[str, tuple[nn.Module, str]]) -> None:
    for full_name, (module, name) in unset.items():
        buffer = module.get_buffer(name)
        mark = _sentinel(buffer.dtype)
        untouched = buffer.isnan() if isinstance(mark, float) else buffer == mark
        if buffer.numel() and bool(untouched.all()):
            raise InitError(
                f"the buffer {full_name} is in no file and was not made again. Give init_from_files a `remake`."
            )


def _check_covered(root: nn.Module, model: nn.Module) -> None:
    inside = {id(parameter) for parameter in model.parameters()}
    for name, parameter in root.named_parameters():
        if id(parameter) not in inside:
            raise InitError(f"{name} is outside the model that the files are of. Add it after loading.")


def _persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def _entries(reader: Reader, rename: Rename) -> dict[str, tuple[str, Entry]]:
    """Parameter name -> (file, place in it), from the headers alone."""
    return {
        rename(name): (file, entry) for file in _file_names(reader) for name, entry in _header(reader, file).items()
    }


def _file_names(reader: Reader) -> Iterable[str]:
    size = reader.size(INDEX)
    if size is None:
        if reader.size(SINGLE) is None:
            raise InitError(f"there is neither {SINGLE} nor {INDEX}. Point to a directory of safetensors weights.")
        return [SINGLE]
    return sorted(set(json.loads(reader.read(INDEX, 0, size))["weight_map"].values()))


def _header(reader: Reader, file: str) -> dict[str, Entry]:
    size = reader.size(file)
    if size is None:
        raise InitError(f"{file} is missing, though {INDEX} lists it.")
    try:
        length = header_length(reader.read(file, 0, 8))
        entries = parse_header(reader.read(file, 8, 8 + length))
    except ValueError as error:
        raise InitError(f"{file} cannot be read: {error}.") from error
    end = max((entry.stop for entry in entries.values()), default=0)
    if end > size:
        raise InitError(f"{file} has {size} bytes, but its header speaks of {end}: it is cut off. Copy it again.")
    return entries


@torch.no_grad()
def _load(name: str, tensor: Tensor, file: str, entry: Entry, reader: Reader) -> int:
    """Copy this rank's part of one tensor; returns the bytes read."""
    if tuple(tensor.shape) != entry.shape:
        raise InitError(f"{name} is {entry.shape} in {file}, but {tuple(tensor.shape)} in the model.")
    shape, offset = tuple(tensor.shape), (0,) * tensor.ndim
    local = tensor
    if isinstance(tensor, DTensor):
        shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        local = tensor.to_local()
    if local.numel() == 0:
        return 0
    row = math.prod(entry.shape[1:]) * entry.dtype.itemsize
    start, stop = entry.start, entry.stop
    if shape:
        start, stop = entry.start + offset[0] * row, entry.start + (offset[0] + shape[0]) * row
    data = reader.read(file, start, stop)
    if len(data) != stop - start:
        raise InitError(f"{file} gave {len(data)} bytes for [{start}, {stop}): it is cut off. Copy it again.")
    rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(entry.dtype).reshape(shape[:1] + entry.shape[1:])
    for dim in range(1, len(shape)):
        rows = rows.narrow(dim, offset[dim], shape[dim])
    local.copy_(rows)
    return stop - start
