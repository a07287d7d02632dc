"""Checkpoints that a crash cannot spoil: every rank stores its shards, then rank 0 a list of all files, COMMIT.

A step counts only when its COMMIT is there and every listed file has the listed bytes (SHA-256); otherwise the one
before it is taken, with a warning.

    step-000123/__0_0.distcp ...   tensors, by rank (torch.distributed.checkpoint)
    step-000123/.metadata          where each tensor's pieces are
    step-000123/extra.json         {"extra": ..., "hyperparameters": ...}
    step-000123/COMMIT             {"step", "world_size", "files": {name: {"size", "sha256"}}}, stored last
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from fsdp_utils.checkpoint_reader import CheckpointError, FetchingReader
from fsdp_utils.context import DistContext
from fsdp_utils.sharding import reshard
from fsdp_utils.storage import LocalDirectory, Storage
from fsdp_utils.training_state import (
    Hyperparameters,
    empty_optimizer_tensors,
    hyperparameters,
    model_tensors,
    optimizer_tensors,
    restore_optimizers,
    snapshot,
)

COMMIT = "COMMIT"
EXTRA = "extra.json"
_STEP = re.compile(r"step-(\d{6,})/")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """step: optimizer steps done when it was saved. extra: what was given to save, as JSON returns it."""

    step: int
    extra: dict[str, Any]


class Checkpointer:
    """Save and load one run's checkpoints. Every rank calls every method, in the same order.

    keep: how many committed steps stay; older ones, and leftovers of failed saves, go when a newer one is committed.
    asynchronous: save() returns once the tensors are copied to host memory; a thread writes them, over a process group
        of its own.
    staging: local directory for files under way; by default the system's temporary one.
    """

    def __init__(
        self,
        storage: Storage,
        context: DistContext,
        *,
        keep: int = 2,
        asynchronous: bool = False,
        staging: Path | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least one checkpoint must stay. Use 1 or more.")
        self.storage, self.context, self.keep = storage, context, keep
        self._staging = staging or Path(tempfile.gettempdir())
        self._staging.mkdir(parents=True, exist_ok=True)
        _clear_dead(self._staging)
        self._group = dist.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, "checkpoint") if asynchronous else None
        self._pending: Future[None] | None = None

    @classmethod
    def local(cls, root: Path, context: DistContext, *, keep: int = 2, asynchronous: bool = False) -> Checkpointer:
        """Checkpoints in a directory that every rank sees; staged inside it, so that storing is a rename."""
        return cls(LocalDirectory(root), context, keep=keep, asynchronous=asynchronous, staging=root / ".staging")

    def save(
        self,
        step: int,
        root: nn.Module,
        optimizers: Sequence[Optimizer],
        extra: Mapping[str, Any],
        *,
        protect: Collection[int] = (),
    ) -> None:
        """Store a checkpoint of `step`, the number of optimizer steps done.

        extra: JSON values; rank 0's are stored. protect: steps that `keep` must not remove.
        Raises what the previous asynchronous save raised. When any rank fails, all raise, and nothing is committed.
        """
        self.wait()
        reshard(root)
        tensors = {**model_tensors(root), **optimizer_tensors(root, optimizers)}
        document = json.dumps({"extra": dict(extra), "hyperparameters": hyperparameters(optimizers)})
        if self._thread is None:
            self._write(step, tensors, document, frozenset(protect))
        else:
            self._pending = self._thread.submit(self._write, step, snapshot(tensors), document, frozenset(protect))

    def wait(self) -> None:
        """Return when the last save is committed; raises what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def steps(self) -> list[int]:
        """Committed steps, oldest first; their files are not checked."""
        found = (
            [_step_of(key) for key in self.storage.list("step-") if key.endswith(f"/{COMMIT}")]
            if self.context.is_main
            else []
        )
        agreed: list[int] = self._gather(sorted(step for step in found if step is not None))[0]
        return agreed

    def latest(self) -> int | None:
        """The newest step whose files are all whole; None when nothing was ever committed.

        Raises CheckpointError when steps were committed but none is whole.
        """
        self.wait()
        committed = self.steps()
        for step in reversed(committed):
            with self._workspace() as directory:
                problem = self._problem(step, Path(directory))
            if problem is None:
                return step
            self._warn(step, problem)
        if committed:
            raise CheckpointError(
                f"none of the checkpoints {committed} is whole. Restore the files, or start from an empty directory."
            )
        return None

    def load(self, root: nn.Module, optimizers: Sequence[Optimizer] = (), step: int | None = None) -> Restored | None:
        """Load `step`, or the newest whole one, into model and optimizers; None when nothing was ever committed.

        World size and sharding may differ from those it was saved with. Without optimizers, only the model is loaded.
        Raises CheckpointError when the asked step is not whole, or does not fit the model.
        """
        chosen = self.latest() if step is None else step
        if chosen is None:
            return None
        reshard(root)
        with self._workspace() as directory:
            if step is not None and (problem := self._problem(step, Path(directory))) is not None:
                raise CheckpointError(
                    f"checkpoint {_name(step)} is not whole: {problem}. Committed steps: {self.steps()}."
                )
            reader = FetchingReader(self.storage, _name(chosen), self._files(chosen), Path(directory))
            return self._restore(chosen, root, optimizers, reader)

    def close(self) -> None:
        """Finish the save under way and stop the thread."""
        self.wait()
        if self._thread is not None:
            self._thread.shutdown()

    def _restore(self, step: int, root: nn.Module, optimizers: Sequence[Optimizer], reader: FetchingReader) -> Restored:
        metadata = reader.read_metadata()
        stored = _stored(metadata)
        tensors = model_tensors(root)
        _check_fit(step, tensors, stored)
        document = json.loads(reader.fetch(EXTRA).read_bytes())
        hyper: Hyperparameters = document["hyperparameters"]
        state = empty_optimizer_tensors(root, optimizers, stored)
        if optimizers:
            _check_optimizers(step, optimizers, state, stored, hyper)
        load({**tensors, **state}, storage_reader=reader, process_group=self._group)
        if optimizers:
            restore_optimizers(root, optimizers, state, hyper)
        return Restored(step, document["extra"])

    def _write(self, step: int, tensors: dict[str, Tensor], document: str, protect: frozenset[int]) -> None:
        with self._workspace() as folder:
            directory = Path(folder)
            if self.context.is_main:  # the other ranks store only after save, in which rank 0 takes part
                self._remove(step)
                (directory / EXTRA).write_text(document)
            writer = FileSystemWriter(directory, sync_files=False)
            save(tensors, storage_writer=writer, process_group=self._group)
            stored = self._agree(lambda: self._store(step, directory))
            files = {name: entry for part in stored for name, entry in part.items()}
            self._agree(lambda: self._commit(step, files, directory, protect) if self.context.is_main else None)

    def _store(self, step: int, directory: Path) -> dict[str, dict[str, Any]]:
        files = {}
        for path in sorted(directory.iterdir()):
            files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
            self.storage.put_file(path, f"{_name(step)}/{path.name}")
        return files

    def _commit(self, step: int, files: dict[str, dict[str, Any]], directory: Path, protect: frozenset[int]) -> None:
        marker = directory / COMMIT
        marker.write_text(json.dumps({"step": step, "world_size": self.context.world_size, "files": files}, indent=1))
        self.storage.put_file(marker, f"{_name(step)}/{COMMIT}")
        keys = self.storage.list("step-")
        committed = sorted({_step_of(key) or 0 for key in keys if key.endswith(f"/{COMMIT}")})
        kept = {step, *committed[-self.keep :], *protect}
        for old in {found for key in keys if (found := _step_of(key)) is not None and found < step} - kept:
            self._remove(old)

    def _remove(self, step: int) -> None:
        self.storage.delete(f"{_name(step)}/{COMMIT}")  # first: a half-removed step must not look whole
        for key in self.storage.list(f"{_name(step)}/"):
            self.storage.delete(key)

    def _problem(self, step: int, directory: Path) -> str | None:
        """Why the step cannot be used, or None. Each rank checks its share of the files."""
        problem = None
        try:
            files = self._files(step)
            reader = FetchingReader(self.storage, _name(step), files, directory)
            for name in sorted(files)[self.context.rank :: self.context.world_size]:
                reader.fetch(name)
        except (CheckpointError, OSError) as error:
            problem = str(error)
        found = self._gather(problem)
        return next((text for text in found if text is not None), None)

    def _files(self, step: int) -> dict[str, dict[str, Any]]:
        with self._workspace() as directory:
            local = Path(directory) / COMMIT
            try:
                self.storage.get_file(f"{_name(step)}/{COMMIT}", local)
                return dict(json.loads(local.read_bytes())["files"])
            except FileNotFoundError as error:
                raise CheckpointError(f"{_name(step)} was never committed") from error
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{_name(step)}/{COMMIT} is not readable") from error

    def _agree(self, work: Callable[[], Any]) -> list[Any]:
        """Run `work` on this rank; every rank's result, or an error on all when it failed on any."""
        failure: Exception | None = None
        result, message = None, ""
        try:
            result = work()
        except Exception as error:
            failure, message = error, f"rank {self.context.rank}: {error!r}"
        outcomes = self._gather((result, message))
        messages = [message for _, message in outcomes if message]
        if messages:
            raise CheckpointError(f"the checkpoint was not stored: {'; '.join(messages)}") from failure
        return [result for result, _ in outcomes]

    def _gather(self, value: Any) -> list[Any]:
        box: list[Any] = [None] * self.context.world_size
        dist.all_gather_object(box, value, group=self._group)
        return box

    def _warn(self, step: int, problem: str) -> None:
        if self.context.is_main:
            _LOG.warning(
                "CHECKPOINT %s IS DAMAGED and is passed over: %s. Trying the one before it.", _name(step), problem
            )

    def _workspace(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=f"{_workspace_prefix()}{os.getpid()}-", dir=self._staging)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _step_of(key: str) -> int | None:
    match = _STEP.match(key)
    return int(match.group(1)) if match else None


def _stored(metadata: Metadata) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def _check_fit(step: int, tensors: dict[str, Tensor], stored: dict[str, tuple[torch.Size, torch.dtype]]) -> None:
    missing = sorted(set(tensors) - set(stored))
    if missing:
        raise CheckpointError(
            f"{_name(step)} lacks {len(missing)} tensors of this model, first {missing[0]}. "
            "Load it into the model it is of."
        )
    for name, tensor in tensors.items():
        if stored[name][0] != tensor.shape:
            raise CheckpointError(
                f"{name} is {tuple(stored[name][0])} in {_name(step)}, but {tuple(tensor.shape)} in this model."
            )


def _check_optimizers(
    step: int,
    optimizers: Sequence[Optimizer],
    state: Mapping[str, Tensor],
    stored: Mapping[str, object],
    hyper: Hyperparameters,
) -> None:
    theirs, ours = [len(groups) for groups in hyper], [len(optimizer.param_groups) for optimizer in optimizers]
    homeless = sorted(name for name in stored if name.startswith("optimizer.") and name not in state)
    if theirs != ours or homeless:
        raise CheckpointError(
            f"{_name(step)} was made with other optimizers (parameter groups {theirs}, here {ours}; state without a place: "
            f"{homeless[:1] or 'none'}). Resume with the same optimizer settings."
        )


def _workspace_prefix() -> str:
    return f"fsdp-checkpoint-{socket.gethostname()}-"


def _clear_dead(staging: Path) -> None:
    """Remove what processes of this machine that were killed left behind."""
    for path in staging.glob(f"{_workspace_prefix()}*"):
        pid = path.name.removeprefix(_workspace_prefix()).split("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
