"""The safetensors format, written tensor by tensor and read by byte range, so that no file is ever whole in memory.

8 bytes: length of the header, little-endian; the header, JSON {name: {"dtype", "shape", "data_offsets"}};
then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its bytes are [start, stop) of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def header(tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> bytes:
    """The bytes before the first tensor, for tensors that follow in the mapping's order."""
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        document[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensor(stream: BinaryIO, tensor: Tensor) -> None:
    """Append the bytes of a tensor in host memory."""
    flat = tensor.detach().contiguous().reshape(-1)
    stream.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def header_length(first_bytes: bytes) -> int:
    """Bytes of the header text, from the file's first 8 bytes. Raises ValueError for what cannot be one."""
    length = int.from_bytes(first_bytes, "little")
    if len(first_bytes) != 8 or not 2 <= length <= MAX_HEADER_BYTES:
        raise ValueError(f"not a safetensors file: header length {length}")
    return length


def parse_header(text: bytes) -> dict[str, Entry]:
    """Name -> Entry. Raises ValueError for malformed text, unknown dtypes, and offsets that do not match the shape."""
    entries = {}
    for name, value in json.loads(text).items():
        if name == "__metadata__":
            continue
        if value["dtype"] not in _DTYPES:
            raise ValueError(f"{name} has dtype {value['dtype']}: not supported, only {', '.join(_DTYPES)}")
        dtype, shape, (start, stop) = _DTYPES[value["dtype"]], tuple(value["shape"]), value["data_offsets"]
        if stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has {stop - start} bytes for shape {shape} of {value['dtype']}")
        entries[name] = Entry(dtype, shape, 8 + len(text) + start, 8 + len(text) + stop)
    return entries
