"""Read a stored checkpoint file by file: each rank fetches the files its shards are in and checks their SHA-256."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from enum import EnumMeta
from pathlib import Path
from typing import IO, Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from fsdp_utils.storage import Storage

METADATA = ".metadata"
_TYPES_MODULE = "torch.distributed.checkpoint.metadata"
_OTHER_NAMES = {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
}


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, missing, or of another model."""


class FetchingReader(FileSystemReader):
    """A torch.distributed.checkpoint reader over Storage. files: name -> {"size", "sha256"}, from COMMIT."""

    def __init__(self, storage: Storage, prefix: str, files: Mapping[str, Mapping[str, Any]], directory: Path) -> None:
        super().__init__(directory)
        self._storage, self._prefix, self._files, self._directory = storage, prefix, files, directory

    def fetch(self, name: str) -> Path:
        """The local copy of a file. Raises CheckpointError when it is missing or not what was stored."""
        local = self._directory / name
        if local.exists():
            return local
        entry = self._files.get(name)
        if entry is None:
            raise CheckpointError(f"{self._prefix}/{name} is not listed in COMMIT")
        try:
            self._storage.get_file(f"{self._prefix}/{name}", local)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self._prefix}/{name} is missing") from error
        problem = _difference(local, entry)
        if problem:
            local.unlink()
            raise CheckpointError(f"{self._prefix}/{name} {problem}")
        return local

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002
        with self.fetch(METADATA).open("rb") as stream:
            metadata: Metadata = _MetadataUnpickler(stream).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for name in {self.storage_data[item.storage_index].relative_path for item in plan.items}:
            self.fetch(name)
        return super().read_data(plan, planner)


class _MetadataUnpickler(pickle.Unpickler):
    """The metadata is a pickle: only the types it consists of are let in, so that a foreign file cannot run code."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # how Python 3.11.0 to 3.11.3 write the member of an enum
            return _enum_member
        if (module, name) in _OTHER_NAMES:
            return super().find_class(module, name)
        found = super().find_class(module, name) if module in (_TYPES_MODULE, "torch") else None
        if isinstance(found, torch.dtype) or (isinstance(found, type) and found.__module__ == _TYPES_MODULE):
            return found
        raise CheckpointError(f"{METADATA} refers to {module}.{name}, which is no part of a checkpoint")


def _difference(path: Path, entry: Mapping[str, Any]) -> str:
    size = path.stat().st_size
    if size != entry["size"]:
        return f"has {size} bytes instead of {entry['size']}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if digest == entry["sha256"] else "has other bytes than were stored (SHA-256 differs)"


def _enum_member(kind: Any, name: str) -> Any:
    if isinstance(kind, EnumMeta) and kind.__module__ == _TYPES_MODULE and name in kind.__members__:
        return kind[name]
    raise CheckpointError(f"{METADATA} takes {name} of {kind!r}, which is no part of a checkpoint")
