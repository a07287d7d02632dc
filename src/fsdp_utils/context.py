"""Where this process stands: its rank, its device, and the process group it shares with the others.

A process that torchrun did not start gets a group of one, kept in memory, so that one code path serves any world size.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class DistContext:
    """rank in [0, world_size); local_rank counts within the machine; device is where this rank computes."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @classmethod
    def init(cls, device: str | None = None, timeout_s: float = 600.0) -> DistContext:
        """Join the group that torchrun's variables describe, or make a group of one.

        device: "cpu" (gloo) or "cuda" (nccl, with gloo for CPU tensors); None takes cuda where there is one.
        timeout_s: seconds that a collective waits for its slowest rank.
        Raises RuntimeError when only some of torchrun's variables are set, or the device is not there.
        """
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in ("cpu", "cuda"):
            raise RuntimeError(f"device is {kind}: only cpu and cuda are supported. Use one of these.")
        if kind == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("device is cuda: this machine has no usable CUDA device. Use cpu, or check the driver.")
        present = [name for name in _TORCHRUN_VARIABLES if name in os.environ]
        if present and len(present) < len(_TORCHRUN_VARIABLES):
            missing = ", ".join(sorted(set(_TORCHRUN_VARIABLES) - set(present)))
            raise RuntimeError(f"{missing} not set though {', '.join(present)} is: start the process with torchrun.")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        where = torch.device("cuda", local_rank) if kind == "cuda" else torch.device("cpu")
        if kind == "cuda":
            torch.cuda.set_device(where)
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        timeout = datetime.timedelta(seconds=timeout_s)
        if present:
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
        return cls(dist.get_rank(), local_rank, dist.get_world_size(), where)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier(device_ids=[self.local_rank] if self.device.type == "cuda" else None)

    def broadcast_object(self, value: Any, source: int = 0) -> Any:
        """The picklable `value` of rank `source`, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=source, device=torch.device("cpu"))
        return box[0]

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's picklable `value`, by rank, on every rank."""
        if self.world_size == 1:
            return [value]
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def close(self) -> None:
        """Leave the group. Safe to call twice."""
        if dist.is_initialized():
            dist.destroy_process_group()
